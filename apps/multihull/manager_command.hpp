// `multihull manager`: a server for objects that C++ and Python programs share.
#pragma once

#include <CLI/CLI.hpp>

#include <filesystem>
#include <memory>
#include <string>

namespace app {

/// What the user asked for.
struct ManagerOptions {
    std::string address;
    std::filesystem::path authkey_file;
    std::filesystem::path port_file;
};

/// Adds the command to the program's. The options are filled in when the command line is parsed.
CLI::App* add_manager_command(CLI::App& program, const std::shared_ptr<ManagerOptions>& options);

/// Serves until a client or a signal ends it. Answers the exit status.
int run_manager_command(const ManagerOptions& options);

}    // namespace app
