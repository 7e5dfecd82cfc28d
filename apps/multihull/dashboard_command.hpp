// The command `multihull dashboard`: what `multihull top` shows, as a page for a browser of this machine.
#pragma once

#include <CLI/CLI.hpp>

#include <cstdint>
#include <memory>

namespace app {

/// What the user asked for.
struct DashboardOptions {
    std::uint16_t port = 0;    // 0: any that is free
};

/// Adds the command to the program's. The options are filled in when the command line is parsed.
CLI::App* add_dashboard_command(CLI::App& program, const std::shared_ptr<DashboardOptions>& options);

/// Serves it until Ctrl-C. Returns the exit status: 0. Throws EnvironmentError where the port can't be had.
int run_dashboard_command(const DashboardOptions& options);

}    // namespace app
