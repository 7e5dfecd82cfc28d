// What a user may write after `multihull thumbnails`.
#pragma once

#include <CLI/CLI.hpp>

#include <cstddef>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace app {

/// What the user asked for.
struct ThumbnailsOptions {
    std::vector<std::filesystem::path> inputs;
    std::filesystem::path output;
    std::string size = "50x50";
    double blur = 0;
    std::size_t jobs = 0;    // 0: one a core
    double timeout = 60;     // seconds; 0: none
    unsigned retries = 0;
    std::size_t memory_limit = 0;    // bytes; 0: none
    std::string format = "jpg";
    std::filesystem::path contact_sheet;
    std::filesystem::path report;
    bool recursive = false;
    bool force = false;
    bool compare = false;
    bool mpi = false;
};

/// Adds the command to the program's. The options are filled in when the command line is parsed.
CLI::App* add_thumbnails_command(CLI::App& program, const std::shared_ptr<ThumbnailsOptions>& options);

/// A check of an option. Unlike CLI::Range, it does not let "nan" through.
CLI::Validator number_between(double low, double high);

/// `640x480`, or `256` for 256x256; nothing where it is neither.
std::optional<std::pair<int, int>> parse_size(std::string_view text);

}    // namespace app
