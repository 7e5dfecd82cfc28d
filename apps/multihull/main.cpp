// The program `multihull`: what the library does, for the command line.
#include "compare_command.hpp"
#include "dashboard_command.hpp"
#include "failure.hpp"
#include "manager_command.hpp"
#include "progress.hpp"
#include "thumbnails_command.hpp"
#include "top_command.hpp"

#include <CLI/CLI.hpp>
#include <fmt/format.h>
#ifdef MULTIHULL_APP_MPI
#include <multihull/mpi.hpp>
#endif
#include <multihull/pool.hpp>
#include <multihull/process.hpp>

#include <algorithm>
#include <cstdio>
#include <exception>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace {

/// A command of the program: what parses its options, and what does it then.
struct Command {
    const CLI::App* options;
    std::function<int()> run;
};

/// `add` gives the program a command with options of a type, which `run` gets.
template <class Options>
Command add(CLI::App& program, CLI::App* (*add_command)(CLI::App&, const std::shared_ptr<Options>&),
            int (*run)(const Options&)) {
    const auto options = std::make_shared<Options>();
    return {add_command(program, options), [options, run] { return run(*options); }};
}

int run(int argc, char** argv) {
    CLI::App program("Work in parallel processes that nothing can sink.", "multihull");
    program.set_version_flag("--version", "multihull " MULTIHULL_VERSION);
    program.require_subcommand(1);
    const std::vector<Command> commands{
        add(program, app::add_thumbnails_command, app::run_thumbnails_command),
        add(program, app::add_compare_command, app::run_compare_command),
        add(program, app::add_top_command, app::run_top_command),
        add(program, app::add_dashboard_command, app::run_dashboard_command),
        add(program, app::add_manager_command, app::run_manager_command),
    };
    try {
        program.parse(argc, argv);
    } catch (const CLI::ParseError& error) {
        if (error.get_exit_code() == static_cast<int>(CLI::ExitCodes::Success)) {
            return program.exit(error);    // --help and --version
        }
        const auto asked = program.get_subcommands();
        const std::string command = asked.empty() ? "" : asked.front()->get_name() + " ";
        fmt::print(stderr, "multihull: {}. See multihull {}--help.\n", app::printable(error.what()), command);
        return 2;
    }
    for (const Command& command : commands) {
        if (command.options->parsed()) {
            return command.run();
        }
    }
    return 2;
}

}    // namespace

int main(int argc, char** argv) {
    multihull::init(argc, argv);
    try {
#ifdef MULTIHULL_APP_MPI
        // Ranks other than 0 do not come back from here, so it can't wait for the command line to be understood.
        std::optional<multihull::mpi::Session> session;
        if (std::any_of(argv, argv + argc, [](const char* word) { return std::string_view(word) == "--mpi"; })) {
            session.emplace(argc, argv);
        }
#endif
        return run(argc, argv);
    } catch (const std::exception& error) {
        fmt::print(stderr, "multihull: {}\n", app::printable(error.what()));
        return 2;
    }
}
