#include "dashboard_command.hpp"

#include "command_line.hpp"
#include "dashboard_history.hpp"
#include "dashboard_server.hpp"
#include "interrupt.hpp"
#include "observer.hpp"

#include <fmt/format.h>

#include <chrono>
#include <cstdio>
#include <thread>

namespace app {

namespace {

using Clock = std::chrono::steady_clock;

constexpr auto kInterval = std::chrono::milliseconds(500);
constexpr auto kPatience = std::chrono::milliseconds(50);    // so long until a signal is noticed

}    // namespace

CLI::App* add_dashboard_command(CLI::App& program, const std::shared_ptr<DashboardOptions>& options) {
    CLI::App* command = program.add_subcommand(
        "dashboard", "Shows the pools of your running programs on a page for a browser of this machine, until Ctrl-C.");
    command->add_option("--port", options->port, "Port of 127.0.0.1 to serve it at; any that is free unless given")
        ->check(number_between(0, 65'535))
        ->type_name("N");
    command->footer(
        "Prints the page's address, with a token in it: whoever has it can look on, and nobody can change anything.\n"
        "Programs are seen that publish their pools: those started with the environment variable MULTIHULL_MONITOR=1,\n"
        "and those that set PoolOptions::publish.");
    return command;
}

int run_dashboard_command(const DashboardOptions& options) {
    watch_for_interrupts();
    DashboardServer server(options.port);
    fmt::print("{}\n", server.url());
    std::fflush(stdout);
    Observer observer;
    DashboardHistory history;
    const auto start = Clock::now();
    for (auto next = start; interrupted_by() == 0; std::this_thread::sleep_for(kPatience)) {
        if (Clock::now() < next) {
            continue;
        }
        const std::vector<ProgramView> programs = observer.look();
        const double seconds = std::chrono::duration<double>(Clock::now() - start).count();
        history.add(programs, seconds);
        server.publish(history.to_json_text(programs, seconds));
        next = Clock::now() + kInterval;
    }
    return 0;
}

}    // namespace app
