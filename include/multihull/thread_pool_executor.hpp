// An executor of threads of this process.
//
// Thread-safe. Belongs to the process that made it; in a forked child every use throws PoolClosed.
#pragma once

#include <multihull/detail/executor_map.hpp>
#include <multihull/detail/thread_task.hpp>
#include <multihull/executor.hpp>

#include <cstddef>
#include <functional>
#include <memory>
#include <string>
#include <utility>

namespace multihull {

/// Settings of a ThreadPoolExecutor.
struct ThreadPoolOptions {
    std::size_t max_workers = 0;    ///< Threads; 0: as many as cpu_count(). They start as work comes.
    std::function<void()>
        initializer{};     ///< Called in each thread before its first task. A throw makes it a BrokenPool.
    std::string name{};    ///< Shown in messages and, its first letters, as the threads' name.
};

namespace detail {

/// Threads and their queue.
class ThreadCrew;
std::shared_ptr<ThreadCrew> make_thread_crew(ThreadPoolOptions options);
void submit_task(ThreadCrew& crew, std::shared_ptr<ThreadTaskBase> task);

}    // namespace detail

/// Threads that run functions of this program, as Python's ThreadPoolExecutor.
///
/// Functions may be anything that can be called, closures and references included. Arguments and the elements of ranges are
/// copied, as by std::thread; std::ref() gives a reference. Results and exceptions come back as they are: an exception is the
/// object that was thrown, a result is copied by each get() (one that can't be copied is given away by the first).
///
/// Threads share one fate: a task that crashes ends the program, and one that never ends can't be ended. Future::cancel() keeps a
/// waiting task from starting, and answers false for one that runs.
class ThreadPoolExecutor : public detail::ExecutorMaps<ThreadPoolExecutor> {
public:
    /// As many threads as cpu_count().
    ThreadPoolExecutor() : ThreadPoolExecutor(ThreadPoolOptions{}) {}
    /// Up to `max_workers` threads. Throws std::invalid_argument for 0.
    explicit ThreadPoolExecutor(std::size_t max_workers);
    explicit ThreadPoolExecutor(ThreadPoolOptions options);
    ThreadPoolExecutor(const ThreadPoolExecutor&) = delete;
    ThreadPoolExecutor& operator=(const ThreadPoolExecutor&) = delete;
    /// As shutdown(): all that was submitted is finished.
    ~ThreadPoolExecutor();

    /// Queues `function(arguments...)` for the next free thread. Never blocks. Throws PoolClosed or BrokenPool.
    template <class Function, class... Args>
    auto submit(Function&& function, Args&&... arguments) {
        auto task = detail::make_thread_task(std::forward<Function>(function), std::forward<Args>(arguments)...);
        detail::submit_task(*crew_, task);
        return detail::future_of(std::move(task));
    }

    /// Takes no more tasks. With `wait`, returns when the threads have left; with `cancel_futures`, what waits is cancelled instead
    /// of finished. Throws Error where one of its own tasks waits for it.
    void shutdown(bool wait = true, bool cancel_futures = false);
    /// Throws Error: nothing can end a thread from outside. Use shutdown(false, true), or a ProcessPoolExecutor.
    [[noreturn]] void terminate_workers();
    [[noreturn]] void kill_workers();

    std::size_t max_workers() const noexcept;

private:
    friend class detail::ExecutorMaps<ThreadPoolExecutor>;

    template <class Function, class... Ranges>
    auto start_map(const MapOptions& options, Function function, Ranges&&... inputs) {
        const auto run = [crew = crew_](std::shared_ptr<detail::ThreadTaskBase> task) {
            detail::submit_task(*crew, std::move(task));
        };
        using Backend = detail::ThreadMapBackend<Function, decltype(run), std::ranges::range_value_t<Ranges>...>;
        detail::require_invocable<Function&, std::ranges::range_value_t<Ranges>...>();
        return detail::executor_map(Backend(std::make_shared<Function>(std::move(function)), run, max_workers()),
                                    options, std::forward<Ranges>(inputs)...);
    }

    std::shared_ptr<detail::ThreadCrew> crew_;
};

}    // namespace multihull
