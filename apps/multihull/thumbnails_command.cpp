#include "thumbnails_command.hpp"

#include "failure.hpp"
#include "interrupt.hpp"
#include "output_file.hpp"
#include "plan.hpp"
#include "progress.hpp"
#include "run.hpp"
#include "summary.hpp"

#include <fmt/format.h>
#include <unistd.h>

#include <chrono>
#include <optional>
#include <span>
#include <string_view>
#include <system_error>
#include <tuple>
#include <utility>

namespace app {

namespace fs = std::filesystem;

namespace {

void prepare_output_folder(const fs::path& folder) {
    std::error_code error;
    fs::create_directories(folder, error);
    if (error || !fs::is_directory(folder, error)) {
        throw EnvironmentError(fmt::format("Cannot make the output folder '{}': {}.", folder.native(),
                                           error ? error.message() : "something else has that name"));
    }
    remove_stale_temporaries(folder);
    // A folder that takes nothing is better found now than by the first thumbnail.
    const fs::path probe = temporary_name(folder, 0);
    const std::string refused = write_whole(probe, probe, std::as_bytes(std::span("probe", 5)));
    fs::remove(probe, error);
    if (!refused.empty()) {
        throw EnvironmentError(fmt::format("Cannot write to the folder '{}': {}.", folder.native(), refused));
    }
}

/// The command at work, from the plan to the summary.
class Command {
public:
    explicit Command(const ThumbnailsOptions& options) : options_(options) {
        std::tie(parameters_.width, parameters_.height) = parse_size(options.size).value();
        parameters_.blur = options.blur;
        parameters_.format = options.format;
    }

    int run() {
        manifest_.emplace(options_.output);
        plan_ = make_plan(options_.inputs, options_.recursive, options_.output, parameters_, *manifest_);
        prepare_output_folder(options_.output);
        summary_.output = options_.output;
        summary_.failures = plan_.failures;
        for (std::size_t i = 0; i < plan_.items.size(); ++i) {
            if (options_.force || !plan_.items[i].up_to_date) {
                todo_.push_back(i);
            }
        }
        summary_.planned = todo_.size();
        summary_.up_to_date = plan_.items.size() - todo_.size();
        watch_for_interrupts();
        make_thumbnails();
        if (summary_.goes_on() && options_.compare) {
            compare();
        }
        if (summary_.goes_on() && !options_.contact_sheet.empty()) {
            make_sheet();
        }
        print(summary_);
        return exit_status(summary_);
    }

private:
    multihull::PoolOptions pool_options(std::size_t processes) const {
        const std::chrono::duration<double> timeout(options_.timeout);
        return worker_options({.processes = processes,
                               .task_timeout = std::chrono::duration_cast<std::chrono::nanoseconds>(timeout),
                               .limits = {.memory = options_.memory_limit},
                               .retries = options_.retries},
                              todo_.size());
    }

    std::vector<ThumbnailJob> jobs_into(const fs::path& folder) const {
        std::vector<ThumbnailJob> jobs;
        for (const std::size_t i : todo_) {
            const Item& item = plan_.items[i];
            jobs.push_back({.input = item.input.native(),
                            .output = folder / item.output.filename(),
                            .temporary = temporary_name(folder, i + 1),
                            .width = parameters_.width,
                            .height = parameters_.height,
                            .blur = parameters_.blur});
        }
        return jobs;
    }

    void take(const RunResult& result) {
        summary_.signal = result.signal;
        summary_.stopped = result.stopped;
    }

    void make_thumbnails() {
        if (todo_.empty()) {
            return;
        }
        // The names are taken before the first file appears: a run that is killed leaves none that nobody owns.
        for (const std::size_t i : todo_) {
            const Item& item = plan_.items[i];
            const ManifestEntry* known = manifest_->find(item.output.filename());
            if (known == nullptr || known->input != item.key) {
                summary_.stopped =
                    record(item, {.input = item.key, .input_stamp = {}, .output_stamp = {}, .parameters = {}});
                if (!summary_.stopped.empty()) {
                    return;
                }
            }
        }
        multihull::PoolOptions pool = pool_options(options_.jobs);
        pool.trace = !options_.report.empty();
        if (options_.mpi) pool.processes = options_.jobs;
        Progress progress(todo_.size());
        std::vector<std::string> reasons(todo_.size());
        const auto ended = [&](std::size_t index, const std::string& reason) -> std::string {
            reasons[index] = reason;
            const Item& item = plan_.items[todo_[index]];
            std::string trouble = reason.empty() ? record_made(item) : std::string();
            summary_.made += reason.empty() && trouble.empty() ? 1U : 0U;
            summary_.failed += reason.empty() ? 0U : 1U;
            return trouble;
        };
        const auto run = options_.mpi ? run_thumbnails_on_ranks : run_thumbnails;
        const RunResult result =
            run(jobs_into(options_.output), pool, ended, [&] { progress.show(summary_.made, summary_.failed); });
        progress.finish();
        take(result);
        summary_.workers = result.workers;
        summary_.seconds = result.seconds;
        remove_own_temporaries(options_.output);
        if (result.trace) {
            write_report(*result.trace);
        }
        for (std::size_t index = 0; index < reasons.size(); ++index) {
            if (!reasons[index].empty()) {
                summary_.failures.push_back({.input = plan_.items[todo_[index]].input, .reason = reasons[index]});
            }
        }
    }

    void write_report(const multihull::Trace& trace) {
        try {
            trace.write_html(options_.report);
            summary_.report = options_.report;
        } catch (const std::system_error& error) {
            summary_.failures.push_back({.input = options_.report, .reason = error.what()});
        }
    }

    std::string record_made(const Item& item) {
        return record(item, {.input = item.key,
                             .input_stamp = item.stamp,
                             .output_stamp = stamp_of(item.output).value_or(Stamp{}),
                             .parameters = parameters_.to_string()});
    }

    std::string record(const Item& item, const ManifestEntry& entry) {
        const std::string refused = manifest_->record(item.output.filename(), entry);
        return refused.empty() ? ""
                               : fmt::format("Cannot write to the folder '{}': {}.", options_.output.native(), refused);
    }

    /// The same work once more with one worker, into a folder that is thrown away.
    void compare() {
        if (todo_.empty()) {
            return;
        }
        const fs::path folder = options_.output / fmt::format(".multihull-{}-compare.tmp", getpid());
        std::error_code error;
        fs::create_directory(folder, error);
        std::size_t made = 0, failed = 0;
        Progress progress(todo_.size());
        const auto ended = [&](std::size_t, const std::string& reason) -> std::string {
            ++(reason.empty() ? made : failed);
            return {};
        };
        const RunResult alone =
            run_thumbnails(jobs_into(folder), pool_options(1), ended, [&] { progress.show(made, failed); });
        progress.finish();
        fs::remove_all(folder, error);
        take(alone);
        if (summary_.goes_on()) {
            summary_.seconds_alone = alone.seconds;
        }
    }

    void make_sheet() {
        const fs::path& path = options_.contact_sheet;
        const fs::path folder = path.has_parent_path() ? path.parent_path() : fs::path(".");
        SheetJob job{.thumbnails = {},
                     .output = folder / path.filename(),
                     .temporary = temporary_name(folder, 0),
                     .width = parameters_.width,
                     .height = parameters_.height};
        for (const Item& item : plan_.items) {
            if (is_up_to_date(item, parameters_, *manifest_)) {
                job.thumbnails.push_back(item.output);
            }
        }
        std::string failure;
        const auto ended = [&](std::size_t, const std::string& reason) -> std::string {
            failure = reason;
            return {};
        };
        const RunResult sheet = run_contact_sheet(job, ended);
        remove_own_temporaries(folder);
        take(sheet);
        if (!failure.empty()) {
            summary_.failures.push_back({.input = path, .reason = "no contact sheet: " + failure});
        }
        if (summary_.goes_on() && failure.empty()) {
            summary_.contact_sheet = path;
        }
    }

    const ThumbnailsOptions& options_;
    Parameters parameters_;
    std::optional<Manifest> manifest_;
    Plan plan_;
    std::vector<std::size_t> todo_;    // indices of plan_.items
    Summary summary_;
};

}    // namespace

int run_thumbnails_command(const ThumbnailsOptions& options) { return Command(options).run(); }

}    // namespace app
