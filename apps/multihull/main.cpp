// The program `multihull`: what the library does, for the command line.
#include "compare_command.hpp"
#include "failure.hpp"
#include "manager_command.hpp"
#include "progress.hpp"
#include "thumbnails_command.hpp"

#include <CLI/CLI.hpp>
#include <fmt/format.h>
#include <multihull/pool.hpp>
#include <multihull/process.hpp>

#include <cstdio>
#include <exception>
#include <memory>
#include <string>

namespace {

int run(int argc, char** argv) {
    CLI::App program("Work in parallel processes that nothing can sink.", "multihull");
    program.set_version_flag("--version", "multihull " MULTIHULL_VERSION);
    program.require_subcommand(1);
    const auto thumbnails_options = std::make_shared<app::ThumbnailsOptions>();
    const CLI::App* thumbnails = app::add_thumbnails_command(program, thumbnails_options);
    const auto compare_options = std::make_shared<app::CompareCommandOptions>();
    const CLI::App* compare = app::add_compare_command(program, compare_options);
    const auto manager_options = std::make_shared<app::ManagerOptions>();
    const CLI::App* manager = app::add_manager_command(program, manager_options);
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
    if (thumbnails->parsed()) {
        return app::run_thumbnails_command(*thumbnails_options);
    }
    if (manager->parsed()) {
        return app::run_manager_command(*manager_options);
    }
    return compare->parsed() ? app::run_compare_command(*compare_options) : 2;
}

}    // namespace

int main(int argc, char** argv) {
    multihull::init(argc, argv);
    try {
        return run(argc, argv);
    } catch (const std::exception& error) {
        fmt::print(stderr, "multihull: {}\n", app::printable(error.what()));
        return 2;
    }
}
