#include "compare_command.hpp"

#include "command_line.hpp"
#include "comparison_plot.hpp"
#include "comparison_text.hpp"
#include "failure.hpp"
#include "gnuplot.hpp"
#include "interrupt.hpp"
#include "output_file.hpp"
#include "workloads.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <multihull/compare.hpp>
#include <multihull/process.hpp>
#include <multihull/progress_bar.hpp>
#include <nlohmann/json.hpp>

#include <algorithm>
#include <optional>
#include <span>
#include <string_view>

namespace app {

namespace fs = std::filesystem;

using multihull::BreakEven;
using multihull::ComparedWay;
using multihull::Comparison;
using multihull::Prefer;

namespace {

constexpr std::size_t kMostJobs = 1024;

std::string check_work(std::string& name) {
    if (find_workload(name) != nullptr) {
        return "";
    }
    std::vector<std::string_view> names;
    for (const Workload& work : workloads()) {
        names.push_back(work.name);
    }
    return fmt::format("there is no work '{}'; there are {}", name, fmt::join(names, ", "));
}

std::string check_plot(std::string& text) {
    const std::string ending = fs::path(text).extension().string();
    return ending == ".svg" || ending == ".png" ? "" : fmt::format("'{}' must end in .svg or .png", text);
}

/// 500000 as 500,000, whatever the locale.
std::string grouped(std::uint64_t number) {
    std::string text = std::to_string(number);
    for (std::size_t at = text.size(); at > 3;) {
        at -= 3;
        text.insert(at, ",");
    }
    return text;
}

std::string footer() {
    std::string text = "Works, with what --size counts and how much of it they have unless asked otherwise:\n";
    for (const Workload& work : workloads()) {
        text += fmt::format("  {:<10} {:<37} {} {}\n", work.name, work.title, grouped(work.size), work.unit);
    }
    return text +
           "\nExit status: 0; 1 where the ways had different results; 2 the run could not be done (bad option, "
           "missing\n"
           "file, no gnuplot for --plot); 130 interrupted with Ctrl-C, after what was measured until then.";
}

fs::path folder_of(const fs::path& path) { return path.has_parent_path() ? path.parent_path() : fs::path("."); }

void write_file(const fs::path& path, std::string_view content) {
    const std::string refused =
        write_whole(temporary_name(folder_of(path), 0), path, std::as_bytes(std::span(content)));
    if (!refused.empty()) {
        throw EnvironmentError(fmt::format("Cannot write '{}': {}.", path.native(), refused));
    }
}

/// What can't be written after a minute's work is better known before it.
void require_writable(const fs::path& path) {
    const fs::path probe = temporary_name(folder_of(path), 0);
    std::error_code error;
    const std::string refused =
        fs::is_directory(path, error) ? "it is a folder" : write_whole(probe, probe, std::as_bytes(std::span("", 0)));
    fs::remove(probe, error);
    if (!refused.empty()) {
        throw EnvironmentError(fmt::format("Cannot write '{}': {}.", path.native(), refused));
    }
}

double seconds(std::chrono::nanoseconds time) { return std::chrono::duration<double>(time).count(); }

std::vector<double> seconds(const std::vector<std::chrono::nanoseconds>& times) {
    std::vector<double> result;
    result.reserve(times.size());
    for (const auto time : times) {
        result.push_back(seconds(time));
    }
    return result;
}

nlohmann::ordered_json optional_seconds(const std::optional<std::chrono::nanoseconds>& time) {
    return time ? nlohmann::ordered_json(seconds(*time)) : nlohmann::ordered_json(nullptr);
}

/// The command at work, from the items to the files.
class Command {
public:
    explicit Command(const CompareCommandOptions& options) : options_(options), work_(*find_workload(options.work)) {}

    int run() {
        require_what_is_written();
        const WorkItems work =
            prepare(work_, {.items = options_.items, .size = options_.size, .files = options_.files});
        watch_for_interrupts();
        measure(work.items);
        if (comparison_.complete && !options_.no_break_even) {
            measure_break_evens();
        }
        print();
        if (!options_.json.empty()) {
            write_json();
        }
        if (std::ranges::any_of(comparison_.ways, [](const ComparedWay& way) { return !way.times.empty(); })) {
            draw();
        }
        if (interrupted_by() != 0) {
            return 128 + interrupted_by();
        }
        return comparison_.same_results.value_or(true) ? 0 : 1;
    }

private:
    void require_what_is_written() const {
        if (!options_.files.empty() && work_.name != "words") {
            throw EnvironmentError("--files is for the work 'words': the others read no files.");
        }
        if (!options_.plots.empty() && !has_gnuplot()) {
            throw EnvironmentError("--plot needs the program gnuplot: apt-get install gnuplot-nox.");
        }
        for (const fs::path& plot : options_.plots) {
            require_writable(plot);
        }
        if (!options_.json.empty() && options_.json != "-") {
            require_writable(options_.json);
        }
    }

    static bool interrupted() { return interrupted_by() != 0; }

    void measure(const std::vector<WorkItem>& items) {
        multihull::CompareOptions how{.jobs = options_.jobs, .repeat = options_.repeat};
        how.progress = multihull::ProgressBar({.label = options_.work, .unit = "measurements", .keep = false});
        how.stop = interrupted;
        how.pool.name = "compare";
        comparison_ = multihull::compare(run_item, items, how);
    }

    void measure_break_evens() {
        std::size_t most = multihull::cpu_count();
        if (!options_.jobs.empty()) {
            most = *std::ranges::max_element(options_.jobs);
        }
        for (const Prefer way : {Prefer::threads, Prefer::processes}) {
            const multihull::ProgressBar bar({.label = fmt::format("break-even, {}", jobs_text(most, way)),
                                              .unit = "task sizes",
                                              .keep = false});
            BreakEven found = multihull::break_even(way, most, interrupted, bar);
            if (interrupted()) {
                break_evens_.clear();
                return;
            }
            break_evens_.push_back(std::move(found));
        }
    }

    std::string title() const {
        const std::uint64_t size = options_.size == 0 ? work_.size : options_.size;
        const std::string each =
            options_.files.empty() ? fmt::format("{} {}", grouped(size), work_.unit) : "a file each";
        return fmt::format("{}: {} calls, {}", work_.title, grouped(comparison_.items), each);
    }

    std::string subtitle() const {
        return fmt::format("{} measurements of each, in turns; {} processors", comparison_.repeat,
                           multihull::cpu_count());
    }

    void print() const {
        std::FILE* const out = options_.json == "-" ? stderr : stdout;
        fmt::print(out, "{}\n{}\n\n{}\n\n", title(), subtitle(), comparison_.to_string());
        if (interrupted()) {
            fmt::print(out, "Interrupted: this is what was measured until then.\n");
            return;
        }
        fmt::print(out, "{}", conclusion(comparison_, break_evens_));
    }

    void write_json() const {
        nlohmann::ordered_json json;
        json["work"] = work_.name;
        json["title"] = work_.title;
        json["items"] = comparison_.items;
        json["size"] = options_.size == 0 ? work_.size : options_.size;
        json["repeat"] = comparison_.repeat;
        json["processors"] = multihull::cpu_count();
        json["complete"] = comparison_.complete;
        json["same_results"] = comparison_.same_results.value_or(true);
        json["ways"] = nlohmann::ordered_json::array();
        for (const ComparedWay& way : comparison_.ways) {
            nlohmann::ordered_json row{{"way", multihull::to_string(way.way)},
                                       {"jobs", way.jobs},
                                       {"seconds", seconds(way.times)},
                                       {"start_seconds", seconds(way.starts)}};
            row["median_seconds"] = way.times.empty() ? optional_seconds(std::nullopt) : optional_seconds(way.median());
            const auto speed_up = comparison_.speed_up(way);
            row["speed_up"] = speed_up ? nlohmann::ordered_json(*speed_up) : nlohmann::ordered_json(nullptr);
            json["ways"].push_back(std::move(row));
        }
        json["break_even"] = nlohmann::ordered_json::array();
        for (const BreakEven& found : break_evens_) {
            nlohmann::ordered_json points = nlohmann::ordered_json::array();
            for (const BreakEven::Point& point : found.points) {
                points.push_back({{"task_seconds", seconds(point.task)},
                                  {"map", point.map},
                                  {"futures", point.futures}});
            }
            json["break_even"].push_back({{"way", multihull::to_string(found.way)},
                                          {"jobs", found.jobs},
                                          {"map_seconds", optional_seconds(found.map())},
                                          {"futures_seconds", optional_seconds(found.futures())},
                                          {"points", std::move(points)}});
        }
        const std::string text = json.dump(2) + "\n";
        if (options_.json == "-") {
            fmt::print("{}", text);
        } else {
            write_file(options_.json, text);
        }
    }

    void draw() const {
        const ComparisonPicture picture{title(), subtitle(), comparison_, break_evens_};
        const Theme theme = options_.theme == "dark" ? Theme::dark : Theme::light;
        for (const fs::path& plot : options_.plots) {
            const PictureFormat format = plot.extension() == ".svg" ? PictureFormat::svg : PictureFormat::png;
            write_file(plot, run_gnuplot(plot_script(picture, format, theme)));
        }
    }

    const CompareCommandOptions& options_;
    const Workload& work_;
    Comparison comparison_;
    std::vector<BreakEven> break_evens_;
};

}    // namespace

CLI::App* add_compare_command(CLI::App& program, const std::shared_ptr<CompareCommandOptions>& options) {
    CLI::App* command = program.add_subcommand(
        "compare", "Does the same work in a plain loop, in threads and in processes, and shows what each takes.");
    command->add_option("WORK", options->work, "Which work; see below")
        ->required()
        ->check(CLI::Validator(check_work, ""))
        ->type_name("");
    command->add_option("--items", options->items, "How many calls; the work's own number unless given")
        ->check(number_between(1, 1e7))
        ->type_name("N");
    command->add_option("--size", options->size, "How much one call does; see below")
        ->check(number_between(1, 1e12))
        ->type_name("N");
    command
        ->add_option("-j,--jobs", options->jobs, "Numbers of threads and processes to try; 1, 2, 4, ... unless given")
        ->check(number_between(1, kMostJobs))
        ->delimiter(',')
        ->allow_extra_args(false)
        ->type_name("N,N,...");
    command->add_option("--repeat", options->repeat, "How often each way is measured")
        ->check(number_between(1, 10'000))
        ->capture_default_str()
        ->type_name("N");
    command->add_option("--files", options->files, "Of the work words: files, and folders of them")->type_name("PATH");
    command->add_option("--plot", options->plots, "Draws a picture; may be given again")
        ->check(CLI::Validator(check_plot, ""))
        ->allow_extra_args(false)
        ->type_name("FILE.svg|FILE.png");
    command->add_option("--theme", options->theme, "Of the picture")
        ->check(CLI::IsMember({"light", "dark"}).description(""))
        ->capture_default_str()
        ->type_name("light|dark");
    command->add_option("--json", options->json, "Writes all figures; - for standard output")->type_name("FILE");
    command->add_flag("--no-break-even", options->no_break_even, "Does not measure from which size on a task pays");
    command->footer(footer());
    return command;
}

int run_compare_command(const CompareCommandOptions& options) { return Command(options).run(); }

}    // namespace app
