// An executor that runs everything at once, in the caller's thread: for debugging, and where parallel work does not pay.
//
// Thread-safe.
#pragma once

#include <multihull/detail/executor_map.hpp>
#include <multihull/detail/thread_task.hpp>
#include <multihull/executor.hpp>

#include <atomic>
#include <cstddef>
#include <memory>
#include <utility>

namespace multihull {

/// Runs each function when it is submitted, so that every future has its result from the beginning. Otherwise as
/// ThreadPoolExecutor; what a task does to others (a crash, a task that never ends) it does to the caller.
class SerialExecutor : public detail::ExecutorMaps<SerialExecutor> {
public:
    /// The number is for programs that change executors by one word. Throws std::invalid_argument for 0.
    explicit SerialExecutor(std::size_t max_workers = 1) { detail::checked_workers(max_workers); }
    SerialExecutor(const SerialExecutor&) = delete;
    SerialExecutor& operator=(const SerialExecutor&) = delete;

    /// Calls `function(arguments...)` and answers a future of what it returned or threw. Throws PoolClosed after shutdown().
    template <class Function, class... Args>
    auto submit(Function&& function, Args&&... arguments) {
        auto task = detail::make_thread_task(std::forward<Function>(function), std::forward<Args>(arguments)...);
        run(*closed_, *task);
        return detail::future_of(std::move(task));
    }

    /// Takes no more tasks; there are none to wait for.
    void shutdown(bool = true, bool = false) noexcept { *closed_ = true; }
    /// The same: nothing runs that could be ended.
    void terminate_workers() noexcept { shutdown(); }
    void kill_workers() noexcept { shutdown(); }

    /// 1: the caller.
    static constexpr std::size_t max_workers() noexcept { return 1; }

private:
    friend class detail::ExecutorMaps<SerialExecutor>;

    static void run(const std::atomic<bool>& closed, detail::ThreadTaskBase& task) {
        if (closed) throw PoolClosed("this executor was shut down: it takes no more tasks");
        task.run();
    }

    template <class Function, class... Ranges>
    auto start_map(const MapOptions& options, Function function, Ranges&&... inputs) {
        const auto runner = [closed = closed_](const std::shared_ptr<detail::ThreadTaskBase>& task) {
            run(*closed, *task);
        };
        using Backend = detail::ThreadMapBackend<Function, decltype(runner), std::ranges::range_value_t<Ranges>...>;
        detail::require_invocable<Function&, std::ranges::range_value_t<Ranges>...>();
        return detail::executor_map(Backend(std::make_shared<Function>(std::move(function)), runner, 1), options,
                                    std::forward<Ranges>(inputs)...);
    }

    std::shared_ptr<std::atomic<bool>> closed_ = std::make_shared<std::atomic<bool>>(false);
};

}    // namespace multihull
