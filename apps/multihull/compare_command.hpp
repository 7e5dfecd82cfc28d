// The command `multihull compare WORK`: the same work in a plain loop, in threads and in processes, as a table and a picture.
#pragma once

#include <CLI/CLI.hpp>

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

namespace app {

/// What the user asked for.
struct CompareCommandOptions {
    std::string work;
    std::size_t items = 0;            // 0: the work's own number
    std::uint64_t size = 0;           // 0: the work's own
    std::vector<std::size_t> jobs;    // empty: 1, 2, 4, ... up to the processors
    std::size_t repeat = 5;
    std::vector<std::filesystem::path> files;
    std::vector<std::filesystem::path> plots;
    std::string theme = "light";
    std::filesystem::path json;
    bool no_break_even = false;
};

/// Adds the command to the program's. The options are filled in when the command line is parsed.
CLI::App* add_compare_command(CLI::App& program, const std::shared_ptr<CompareCommandOptions>& options);

/// Runs it. Returns the exit status: 0, 1 where the ways had different results, 128 + N after signal N.
/// Throws EnvironmentError where it can't be done.
int run_compare_command(const CompareCommandOptions& options);

}    // namespace app
