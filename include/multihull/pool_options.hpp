// Settings of pools and of single tasks.
#pragma once

#include <multihull/detail/callable.hpp>
#include <multihull/process.hpp>
#include <multihull/progress.hpp>

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>

namespace multihull {

/// Which outcomes are worth another attempt; combine with |.
enum class RetryOn : std::uint32_t {
    nothing = 0,
    crash = 1,        ///< The worker died: of a signal, or by exit().
    timeout = 2,      ///< The task ran out of time or CPU time.
    memory = 4,       ///< The task threw std::bad_alloc.
    exception = 8,    ///< The task threw anything (std::bad_alloc included).
};

constexpr RetryOn operator|(RetryOn a, RetryOn b) noexcept {
    return static_cast<RetryOn>(static_cast<std::uint32_t>(a) | static_cast<std::uint32_t>(b));
}
constexpr bool operator&(RetryOn a, RetryOn b) noexcept {
    return (static_cast<std::uint32_t>(a) & static_cast<std::uint32_t>(b)) != 0;
}

/// A function with its arguments, to be called in each worker: `.initializer = setup`, or `.initializer = {connect, "host", 80}`.
class Call {
public:
    /// Nothing to call.
    Call() = default;
    template <class Function, class... Args>
        requires(!std::is_same_v<std::remove_cvref_t<Function>, Call>)
    Call(Function function, Args&&... arguments)
        : call_(detail::make_call(std::move(function), std::forward<Args>(arguments)...)) {}
    /// One that was made elsewhere.
    static Call from(std::shared_ptr<detail::CallBase> made) {
        Call call;
        call.call_ = std::move(made);
        return call;
    }

    explicit operator bool() const noexcept { return call_ != nullptr; }
    detail::CallBase* get() const noexcept { return call_.get(); }

private:
    std::shared_ptr<detail::CallBase> call_;
};

/// The same, spelled as a call: `.initializer = multihull::call(connect, "host", 80)`.
template <class Function, class... Args>
Call call(Function function, Args&&... arguments) {
    return Call(std::move(function), std::forward<Args>(arguments)...);
}

/// Settings of a pool. All have sensible defaults; durations and sizes of 0 stand for "no limit".
struct PoolOptions {
    std::size_t processes = 0;                   ///< Workers; 0: as many as cpu_count().
    std::chrono::nanoseconds task_timeout{0};    ///< A task that runs longer is ended; its future throws TaskTimeout.
    Limits limits{};                             ///< Of each worker's private memory, and of each task's CPU time.
    unsigned retries = 0;                        ///< Attempts beyond the first.
    RetryOn retry_on = RetryOn::crash | RetryOn::timeout;
    std::size_t max_tasks_per_child = 0;     ///< A worker is replaced after this many tasks.
    std::size_t max_growth_per_child = 0;    ///< A worker is replaced when its private memory grew by this many bytes.
    Call initializer{};      ///< Called in each worker before its first task. A throw makes the pool a BrokenPool.
    Call exit_function{};    ///< Called in each worker that leaves in good order.
    std::optional<StartMethod> start_method{};
    /// Threads that OpenMP and BLAS libraries use in each worker, unless the environment says so already (OMP_NUM_THREADS, ...).
    /// Empty: a fair share of the processors; 0: what they like.
    std::optional<std::size_t> inner_max_num_threads{};
    bool capture_stderr = true;    ///< Keep the last lines of each worker's stderr for error messages.
    bool pass_stderr = true;       ///< And pass on to the program's stderr what was kept.
    std::string name{};            ///< Shown in messages; "Pool-N" where empty.
    bool trace = false;            ///< Keep who ran what and when: see trace.hpp, and insights() of the pool.
    /// How many calls, and ranges of maps, a trace keeps for each worker; older ones are dropped. 64 bytes of shared memory each.
    std::size_t trace_capacity = 65536;
    /// Lets other processes of this user look on: multihull top, multihull dashboard, PoolWatcher. Empty: where the environment variable
    /// MULTIHULL_MONITOR is set and not 0.
    std::optional<bool> publish{};
};

/// Settings of one task, where they differ from its pool's.
struct TaskOptions {
    std::optional<std::chrono::nanoseconds> timeout{};
    std::optional<std::size_t> memory{};    ///< Bytes of private memory beyond what the worker had when it started.
    std::optional<std::chrono::nanoseconds> cpu_time{};
    std::optional<unsigned> retries{};
    std::optional<RetryOn> retry_on{};
    std::size_t chunksize = 0;    ///< Of a map: inputs a worker takes at once; 0: by measuring.
    /// Of map() and starmap(): called in the thread that waits, ten times a second and at the end. What it throws cancels the map, and
    /// is thrown by it.
    std::function<void(const Progress&)> progress{};
};

}    // namespace multihull
