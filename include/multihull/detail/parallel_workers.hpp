// What Parallel needs that does not depend on types. The work is done in src/pool.
#pragma once

#include <multihull/detail/engine.hpp>
#include <multihull/parallel_options.hpp>

#include <atomic>
#include <chrono>
#include <cstddef>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>

namespace multihull::detail {

/// How many calls may run at once. Throws std::invalid_argument for 0.
std::size_t parallel_jobs(const ParallelOptions& options);

/// Where a loop runs: one of the library's own ways, or another's.
struct ParallelPlace {
    Prefer prefer = Prefer::processes;
    std::unique_ptr<ParallelBackend> backend{};
    std::shared_ptr<CallRunner> runner{};    ///< The backend's, where its calls run outside of this process.
    std::size_t jobs = 1;                    ///< How many calls may run at once there.
};
/// Throws std::invalid_argument for a backend that nobody registered.
ParallelPlace parallel_place(const ParallelOptions& options, std::size_t jobs);

/// To be called in each of `jobs` threads: what runs inside of it is to use its share of the processors.
std::function<void()> limit_of_threads(std::size_t jobs);

/// Worker processes for one loop.
class ParallelWorkers {
public:
    /// Those that the program keeps for all of its loops.
    static ParallelWorkers reusable(const ParallelOptions& options, std::size_t jobs);
    /// Some of this loop's own, copies of the program as it is now.
    static ParallelWorkers snapshot(std::size_t jobs);

    ParallelWorkers(ParallelWorkers&&) noexcept = default;
    ParallelWorkers& operator=(ParallelWorkers&&) = delete;
    /// Gives them back, or ends them: at once, unless the loop has finished().
    ~ParallelWorkers();

    const std::shared_ptr<Engine>& engine() const noexcept { return engine_; }
    void finished() noexcept { finished_ = true; }

private:
    ParallelWorkers(std::shared_ptr<Engine> engine, bool own) : engine_(std::move(engine)), own_(own) {}

    std::shared_ptr<Engine> engine_;
    bool own_;
    bool finished_ = false;
};

/// Says how far a loop has come.
class ParallelReport {
public:
    ParallelReport(const ParallelOptions& options, std::size_t jobs, std::optional<std::size_t> total);

    /// How often somebody wants to hear of it; 0: never.
    std::chrono::nanoseconds period() const noexcept { return period_; }
    void at(std::size_t done);
    /// One more call has ended, in whichever thread.
    void one_more();
    void end();

private:
    void say(std::size_t done);

    const ParallelOptions& options_;
    const std::size_t jobs_;
    const std::optional<std::size_t> total_;
    const std::chrono::steady_clock::time_point began_ = std::chrono::steady_clock::now();
    std::chrono::nanoseconds period_{0};
    std::mutex mutex_;
    std::chrono::steady_clock::time_point next_ = began_;
    std::atomic<std::size_t> done_{0};
};

/// The sentence for what a thread can't do: end a call whose time is over.
[[noreturn]] void throw_late_call(std::chrono::nanoseconds limit);
/// The sentences for what processes can't do.
[[noreturn]] void throw_result_cannot_travel();
[[noreturn]] void throw_function_after_snapshot();
[[noreturn]] void throw_call_cannot_travel();

}    // namespace multihull::detail
