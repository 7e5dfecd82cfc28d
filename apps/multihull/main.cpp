// The program `multihull`: what the library does, for the command line.
#include "failure.hpp"
#include "progress.hpp"
#include "thumbnails_command.hpp"

#include <CLI/CLI.hpp>
#include <fmt/format.h>
#include <multihull/pool.hpp>
#include <multihull/process.hpp>

#include <cstdio>
#include <exception>
#include <memory>

namespace {

int run(int argc, char** argv) {
    CLI::App program("Work in parallel processes that nothing can sink.", "multihull");
    program.set_version_flag("--version", "multihull " MULTIHULL_VERSION);
    program.require_subcommand(1);
    const auto options = std::make_shared<app::ThumbnailsOptions>();
    CLI::App* thumbnails = app::add_thumbnails_command(program, options);
    try {
        program.parse(argc, argv);
    } catch (const CLI::ParseError& error) {
        if (error.get_exit_code() == static_cast<int>(CLI::ExitCodes::Success)) {
            return program.exit(error);    // --help and --version
        }
        fmt::print(stderr, "multihull: {}. See multihull thumbnails --help.\n", app::printable(error.what()));
        return 2;
    }
    return thumbnails->parsed() ? app::run_thumbnails_command(*options) : 2;
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
