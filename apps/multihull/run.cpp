#include "run.hpp"

#include "failure.hpp"
#include "interrupt.hpp"

#include <fmt/format.h>
#include <multihull/process.hpp>

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <deque>
#include <filesystem>
#include <mutex>
#include <optional>

namespace app {

namespace {

constexpr auto kTick = std::chrono::milliseconds(100);
constexpr std::size_t kTasksPerWorker = 4;

/// Indices of jobs that are over: a thread of the library puts, the main thread takes.
class Completions {
public:
    void push(std::size_t index) {
        const std::lock_guard lock(mutex_);
        indices_.push_back(index);
        arrived_.notify_one();
    }

    std::optional<std::size_t> pop_within(std::chrono::milliseconds time) {
        std::unique_lock lock(mutex_);
        if (!arrived_.wait_for(lock, time, [this] { return !indices_.empty(); })) {
            return std::nullopt;
        }
        const std::size_t index = indices_.front();
        indices_.pop_front();
        return index;
    }

private:
    std::mutex mutex_;
    std::condition_variable arrived_;
    std::deque<std::size_t> indices_;
};

/// One run over jobs of one type.
template <class Job>
class Run {
public:
    Run(JobResult (*work)(const Job&), const std::vector<Job>& jobs, const multihull::PoolOptions& options)
        : work_(work),
          jobs_(jobs),
          window_(kTasksPerWorker * options.processes),
          traced_(options.trace),
          futures_(jobs.size()),
          pool_(options) {}

    RunResult go(const JobEnded& ended, const Tick& tick) {
        const auto start = std::chrono::steady_clock::now();
        RunResult result;
        for (std::size_t over = 0; over < jobs_.size();) {
            submit(over);
            if (const std::optional<std::size_t> index = completions_.pop_within(kTick)) {
                ++over;
                result.stopped = finish(*index, ended);
            }
            tick();
            result.signal = interrupted_by();
            if (result.signal != 0 || !result.stopped.empty()) {
                pool_.terminate();
                break;
            }
        }
        result.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
        pool_.close();
        pool_.join();
        while (const std::optional<std::size_t> index = completions_.pop_within({})) {
            finish_late(*index, ended);
        }
        if (traced_) {
            result.trace = pool_.trace();
        }
        return result;
    }

private:
    void submit(std::size_t over) {
        for (; next_ < jobs_.size() && next_ - over < window_; ++next_) {
            futures_[next_] = pool_.apply_async(work_, jobs_[next_]);
            futures_[next_]->add_done_callback([this, index = next_](const auto&...) { completions_.push(index); });
        }
    }

    /// Returns a sentence where the run can't go on.
    std::string finish(std::size_t index, const JobEnded& ended) {
        multihull::Future<JobResult> future = std::move(*futures_[index]);
        futures_[index].reset();
        if (const std::exception_ptr error = future.exception()) {
            const std::string sentence = describe(error);
            return ends_the_run(error) ? sentence : ended(index, sentence);
        }
        const JobResult result = future.get();
        if (!result.output_refused.empty()) {
            const auto folder = std::filesystem::path(jobs_[index].output).parent_path();
            return fmt::format("Cannot write to the folder '{}': {}.", folder.native(), result.output_refused);
        }
        return ended(index, result.unreadable.empty() ? "" : "unreadable: " + result.unreadable);
    }

    /// A job that was over, or was ended, as the run was stopped: what is made counts, and nobody is told of the rest.
    void finish_late(std::size_t index, const JobEnded& ended) {
        const multihull::Future<JobResult>& future = *futures_[index];
        if (!future.exception()) {
            const JobResult result = future.get();
            if (result.unreadable.empty() && result.output_refused.empty()) {
                ended(index, "");
            }
        }
    }

    JobResult (*const work_)(const Job&);
    const std::vector<Job>& jobs_;
    const std::size_t window_;
    const bool traced_;
    std::size_t next_ = 0;
    Completions completions_;    // before the pool: the pool's thread puts into it until the pool is gone
    std::vector<std::optional<multihull::Future<JobResult>>> futures_;
    multihull::Pool pool_;
};

}    // namespace

multihull::PoolOptions worker_options(multihull::PoolOptions options, std::size_t job_count) {
    if (options.processes == 0) {
        options.processes = static_cast<std::size_t>(multihull::cpu_count());
    }
    options.processes = std::clamp<std::size_t>(job_count, 1, options.processes);
    options.initializer = multihull::call(start_libvips);
    options.retry_on = multihull::RetryOn::crash | multihull::RetryOn::timeout | multihull::RetryOn::memory;
    options.name = "thumbnails";
    options.pass_stderr = false;    // what a decoder says of a bad file stands in that file's line of the summary
    return options;
}

RunResult run_thumbnails(const std::vector<ThumbnailJob>& jobs, const multihull::PoolOptions& options,
                         const JobEnded& ended, const Tick& tick) {
    return Run<ThumbnailJob>(make_thumbnail, jobs, options).go(ended, tick);
}

RunResult run_contact_sheet(const SheetJob& job, const JobEnded& ended) {
    return Run<SheetJob>(make_contact_sheet, {job}, worker_options({.processes = 1}, 1)).go(ended, [] {});
}

}    // namespace app
