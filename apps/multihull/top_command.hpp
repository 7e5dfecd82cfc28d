// The command `multihull top`: a live view of the pools of this user's running programs.
#pragma once

#include <CLI/CLI.hpp>

#include <memory>

namespace app {

/// What the user asked for.
struct TopOptions {
    double interval = 1;    // seconds
    bool once = false;
    bool json = false;
};

/// Adds the command to the program's. The options are filled in when the command line is parsed.
CLI::App* add_top_command(CLI::App& program, const std::shared_ptr<TopOptions>& options);

/// Runs it until q or Ctrl-C. Returns the exit status: 0. Throws EnvironmentError where there is no terminal.
int run_top_command(const TopOptions& options);

}    // namespace app
