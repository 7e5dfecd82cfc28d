#include "command_line.hpp"

#include <fmt/format.h>

#include <charconv>
#include <string_view>

namespace app {

namespace fs = std::filesystem;

namespace {

constexpr int kLongestSide = 10'000;

std::string check_size(const std::string& text) {
    return parse_size(text) ? ""
                            : fmt::format("'{}' is not a size such as 50x50, of 1 to {} pixels", text, kLongestSide);
}

std::string check_sheet(const std::string& text) {
    const std::string ending = fs::path(text).extension().string();
    return ending == ".jpg" || ending == ".jpeg" || ending == ".png" || ending == ".webp"
               ? ""
               : fmt::format("'{}' must end in .jpg, .png or .webp", text);
}

}    // namespace

CLI::Validator number_between(double low, double high) {
    const auto check = [low, high](std::string& text) -> std::string {
        double value = 0;
        const bool number = CLI::detail::lexical_cast(text, value) && value >= low && value <= high;
        return number ? "" : fmt::format("'{}' is not a number from {:g} to {:g}", text, low, high);
    };
    return CLI::Validator(check, "");
}

std::optional<std::pair<int, int>> parse_size(std::string_view text) {
    const auto side = [](std::string_view digits) {
        int value = 0;
        const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), value);
        const bool whole = error == std::errc{} && end == digits.data() + digits.size();
        return whole && value >= 1 && value <= kLongestSide ? value : 0;
    };
    const std::size_t cross = text.find('x');
    const int width = side(text.substr(0, cross));
    const int height = cross == std::string_view::npos ? width : side(text.substr(cross + 1));
    return width > 0 && height > 0 ? std::optional(std::pair(width, height)) : std::nullopt;
}

CLI::App* add_thumbnails_command(CLI::App& program, const std::shared_ptr<ThumbnailsOptions>& options) {
    CLI::App* command =
        program.add_subcommand("thumbnails",
                               "Makes thumbnails of photographs in parallel processes.\n"
                               "A file that crashes its decoder, hangs or eats memory costs itself; the rest arrive.");
    command->add_option("IN", options->inputs, "Image files, and folders of them")->required()->type_name("");
    command->add_option("-o,--output", options->output, "Folder for the thumbnails; made if it is not there")
        ->required()
        ->type_name("OUT");
    command->add_option("--size", options->size, "Box that a thumbnail fits in, or one number for a square")
        ->check(check_size)
        ->capture_default_str()
        ->type_name("WxH");
    command->add_option("--blur", options->blur, "Sigma of a Gaussian blur of the full-size image first; 0: none")
        ->check(number_between(0, 1000))
        ->capture_default_str()
        ->type_name("SIGMA");
    command->add_option("--format", options->format, "Format of the thumbnails")
        ->check(CLI::IsMember({"jpg", "png", "webp"}).description(""))
        ->capture_default_str()
        ->type_name("jpg|png|webp");
    command->add_option("-j,--jobs", options->jobs, "Worker processes; one a core unless given")
        ->check(number_between(1, 1024))
        ->type_name("N");
    command->add_option("--timeout", options->timeout, "Seconds that one file may take; 0: no limit")
        ->check(number_between(0, 1e6))
        ->capture_default_str()
        ->type_name("SECONDS");
    command->add_option("--retries", options->retries, "Further tries for a file that crashed, hung or ate memory")
        ->check(number_between(0, 100))
        ->capture_default_str()
        ->type_name("N");
    command
        ->add_option("--memory-limit", options->memory_limit,
                     "Memory that a worker may use, such as 512MB; no limit unless given")
        ->transform(CLI::AsSizeValue(false).description(""))
        ->type_name("BYTES");
    command->add_option("--contact-sheet", options->contact_sheet, "Also shows all thumbnails in this one picture")
        ->check(check_sheet)
        ->type_name("FILE");
    command
        ->add_option("--report", options->report,
                     "Also shows what each worker did, and when, in this page for a browser")
        ->type_name("FILE.html");
    command->add_flag("-r,--recursive", options->recursive, "Searches folders inside folders, too");
    command->add_flag("--force", options->force, "Makes thumbnails that are up to date again");
    command->add_flag("--compare", options->compare, "Does the work once more with one worker, and tells the speed-up");
#ifdef MULTIHULL_APP_MPI
    command
        ->add_flag("--mpi", options->mpi,
                   "Uses all ranks of an MPI run: mpiexec -n 4 multihull thumbnails ... --mpi;\n"
                   "--jobs is then of each rank. All must see the same files")
        ->excludes("--compare")
        ->excludes("--report");
#endif
    command->footer(
        "Exit status: 0 all thumbnails are there; 1 some files failed, each named with why;\n"
        "2 the run could not be done (bad option, missing file, full disk); 130 interrupted with Ctrl-C.");
    return command;
}

}    // namespace app
