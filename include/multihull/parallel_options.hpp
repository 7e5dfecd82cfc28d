// Settings of Parallel, and loops that others provide.
#pragma once

#include <multihull/progress.hpp>

#include <chrono>
#include <cstddef>
#include <functional>
#include <memory>
#include <optional>
#include <string>

namespace multihull {

/// Where the calls of a Parallel run.
enum class Prefer {
    processes,    ///< In worker processes: a call that crashes or never ends costs itself.
    threads,      ///< In threads of this process: nothing travels, everything is shared.
    serial,       ///< Here, one after the other.
};

/// Settings of a Parallel.
struct ParallelOptions {
    /// How many calls run at once: a number; -1 for as many as there are processors, -2 for all but one, and so on. 1 is a plain loop
    /// in this process. In a worker of a Parallel or a Pool, -1 stands for that worker's share of the processors.
    int n_jobs = -1;
    Prefer prefer = Prefer::processes;
    std::string backend{};         ///< A name given to register_parallel_backend(); goes before `prefer`.
    std::size_t batch_size = 0;    ///< Calls that a worker takes at once; 0: by measuring.
    std::size_t pre_dispatch =
        0;    ///< Batches taken from the range ahead of what is read. 0: all where a vector is returned, else 2 x n_jobs.
    /// Of each call. In a process it is ended then, and its result is TaskTimeout. A thread can't be ended: a call that took longer
    /// counts as failed when it returns. Without effect in a plain loop.
    std::optional<std::chrono::nanoseconds> timeout{};
    /// Takes a new snapshot of the program for this loop even where its functions and arguments could travel to workers that are there:
    /// so that they see the present values of global variables. Start method fork only; see docs/parallel.md.
    bool snapshot = false;
    std::chrono::nanoseconds idle_timeout = std::chrono::seconds(300);    ///< After which reusable workers leave.
    unsigned verbose =
        0;    ///< 1: a line about progress to stderr each second and at the end; 10 and more: ten each second.
    /// Called now and then, and at the end; never by two threads at once.
    std::function<void(const Progress&)> progress{};
};

namespace detail {
class CallRunner;
}    // namespace detail

/// Another way to run a loop in this process: somebody else's threads, for example. See register_parallel_backend().
class ParallelBackend {
public:
    virtual ~ParallelBackend() = default;
    /// Calls `body(i)` once for each i below `count`, in any order, from up to `jobs` threads at once, and returns when all calls have.
    /// `body` never throws. `batch_size` is the caller's wish, 0 for none.
    virtual void run(std::size_t count, std::size_t jobs, std::size_t batch_size,
                     const std::function<void(std::size_t)>& body) = 0;
    /// What runs the calls outside of this process, where functions and arguments must travel; then run() is not called. Of this
    /// library's components: Multihull::mpi has one.
    virtual std::shared_ptr<detail::CallRunner> runner() { return nullptr; }
};

/// Makes `Parallel({.backend = name})` run its loops by what the factory makes. The same name again replaces it. Throws
/// std::invalid_argument for the names that there are: "processes", "threads", "serial". Thread-safe.
void register_parallel_backend(std::string name, std::function<std::unique_ptr<ParallelBackend>()> factory);

/// Ends the reusable workers that no loop uses now, instead of after `idle_timeout`.
void end_reusable_workers();

}    // namespace multihull
