#include "run.hpp"

#include "failure.hpp"
#include "interrupt.hpp"

#include <fmt/format.h>
#ifdef MULTIHULL_APP_MPI
#include <multihull/mpi.hpp>
#endif
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

/// The workers of this machine.
class LocalWorkers {
public:
    explicit LocalWorkers(const multihull::PoolOptions& options) : pool_(options), count_(options.processes) {}

    std::size_t count() const { return count_; }
    template <class Job>
    auto submit(JobResult (*work)(const Job&), const Job& job) {
        return pool_.apply_async(work, job);
    }
    std::optional<multihull::Trace> trace() { return pool_.trace(); }
    void end_now() { pool_.terminate(); }
    void finish() {
        pool_.close();
        pool_.join();
    }

private:
    multihull::Pool pool_;
    std::size_t count_;
};

#ifdef MULTIHULL_APP_MPI
/// The workers of all ranks of an MPI run.
class RankWorkers {
public:
    explicit RankWorkers(const multihull::PoolOptions& options) : executor_(options) {}

    std::size_t count() const { return executor_.max_workers(); }
    template <class Job>
    auto submit(JobResult (*work)(const Job&), const Job& job) {
        return executor_.submit(work, job);
    }
    static std::optional<multihull::Trace> trace() { return std::nullopt; }
    void end_now() { executor_.kill_workers(); }
    void finish() { executor_.shutdown(); }

private:
    multihull::mpi::PoolExecutor executor_;
};
#endif

/// One run over jobs of one type.
template <class Job, class Workers>
class Run {
public:
    Run(JobResult (*work)(const Job&), const std::vector<Job>& jobs, const multihull::PoolOptions& options)
        : work_(work),
          jobs_(jobs),
          traced_(options.trace),
          futures_(jobs.size()),
          workers_(options),
          window_(kTasksPerWorker * workers_.count()) {}

    RunResult go(const JobEnded& ended, const Tick& tick) {
        const auto start = std::chrono::steady_clock::now();
        RunResult result;
        result.workers = workers_.count();
        for (std::size_t over = 0; over < jobs_.size();) {
            submit(over);
            if (const std::optional<std::size_t> index = completions_.pop_within(kTick)) {
                ++over;
                result.stopped = finish(*index, ended);
            }
            tick();
            result.signal = interrupted_by();
            if (result.signal != 0 || !result.stopped.empty()) {
                workers_.end_now();
                break;
            }
        }
        result.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
        workers_.finish();
        while (const std::optional<std::size_t> index = completions_.pop_within({})) {
            finish_late(*index, ended);
        }
        if (traced_) {
            result.trace = workers_.trace();
        }
        return result;
    }

private:
    void submit(std::size_t over) {
        for (; next_ < jobs_.size() && next_ - over < window_; ++next_) {
            futures_[next_] = workers_.submit(work_, jobs_[next_]);
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
    const bool traced_;
    std::size_t next_ = 0;
    Completions completions_;    // before the pool: the pool's thread puts into it until the pool is gone
    std::vector<std::optional<multihull::Future<JobResult>>> futures_;
    Workers workers_;
    const std::size_t window_;
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
    return Run<ThumbnailJob, LocalWorkers>(make_thumbnail, jobs, options).go(ended, tick);
}

RunResult run_thumbnails_on_ranks([[maybe_unused]] const std::vector<ThumbnailJob>& jobs,
                                  [[maybe_unused]] const multihull::PoolOptions& options,
                                  [[maybe_unused]] const JobEnded& ended, [[maybe_unused]] const Tick& tick) {
#ifdef MULTIHULL_APP_MPI
    return Run<ThumbnailJob, RankWorkers>(make_thumbnail, jobs, options).go(ended, tick);
#else
    throw EnvironmentError("This program was built without MPI.");
#endif
}

RunResult run_contact_sheet(const SheetJob& job, const JobEnded& ended) {
    return Run<SheetJob, LocalWorkers>(make_contact_sheet, {job}, worker_options({.processes = 1}, 1)).go(ended, [] {});
}

}    // namespace app
