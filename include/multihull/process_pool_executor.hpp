// An executor of worker processes: Python's ProcessPoolExecutor on the engine of Pool.
//
// Thread-safe. Belongs to the process that made it; in a forked child every use throws PoolClosed.
#pragma once

#include <multihull/detail/executor_map.hpp>
#include <multihull/detail/submit.hpp>
#include <multihull/executor.hpp>
#include <multihull/pool_options.hpp>
#include <multihull/pool_stats.hpp>
#include <multihull/trace.hpp>

#include <cstddef>
#include <memory>
#include <ranges>
#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>

namespace multihull {

namespace detail {

/// Runs the elements of a map in the workers of an Engine or a CallRunner, one by one or in chunks.
template <class E, class F, class... In>
class ProcessMapBackend {
    using I = InvocationOf<F, In...>;

public:
    using Element = std::tuple<In...>;
    using Value = typename I::Value;
    static constexpr bool kChunks = true;

    ProcessMapBackend(std::shared_ptr<E> engine, F function)
        : engine_(std::move(engine)), function_(std::move(function)) {
        I::check();
        if constexpr (!std::is_void_v<Value>) require_travels<Value>();
    }

    std::size_t workers() const noexcept { return worker_count(*engine_); }
    ImapUnit submit(std::vector<Element>& elements) {
        if (elements.size() > 1) {
            const std::ranges::subrange inputs(std::move_iterator(elements.begin()),
                                               std::move_sentinel(elements.end()));
            auto [completion, count] = start_map<true, true>(engine_, function_, inputs, TaskOptions{}, 1);
            return ImapUnit(std::move(completion), 0, count);
        }
        auto [completion, task] = std::apply(
            [&](auto&... field) { return submit_arguments<I>(engine_, nullptr, function_, not_lent(field)...); },
            elements.front());
        return ImapUnit(std::move(completion), task, 1);
    }
    static std::optional<Stored<Value>> read(ImapUnit& unit) {
        ElementTarget<Stored<Value>> target{unit.next, std::nullopt};
        unit.completion->read(unit.task, &read_imap_element<Stored<Value>>, &target);
        return std::move(target.value);
    }

private:
    std::shared_ptr<E> engine_;
    F function_;
};

}    // namespace detail

/// Worker processes that run functions of this program, as Python's ProcessPoolExecutor; Pool is the other face of the same.
///
/// Functions, arguments and results must travel, as for Pool; see docs/travel.md. A task that crashes, hangs or is killed costs that
/// task: the executor goes on.
class ProcessPoolExecutor : public detail::ExecutorMaps<ProcessPoolExecutor> {
public:
    /// As many workers as cpu_count().
    ProcessPoolExecutor() : ProcessPoolExecutor(PoolOptions{}) {}
    /// `max_workers` workers. Throws std::invalid_argument for 0 or more than 4096, StartError when none can be started.
    explicit ProcessPoolExecutor(std::size_t max_workers);
    /// With the settings of Pool: time-outs, limits, retries, an initializer, the start method.
    explicit ProcessPoolExecutor(PoolOptions options);
    ProcessPoolExecutor(const ProcessPoolExecutor&) = delete;
    ProcessPoolExecutor& operator=(const ProcessPoolExecutor&) = delete;
    /// As shutdown(): all that was submitted is finished.
    ~ProcessPoolExecutor();

    /// Queues `function(arguments...)` for the next free worker. Never blocks. Throws PoolClosed or BrokenPool.
    template <class Function, class... Args>
        requires(!std::is_same_v<std::remove_cvref_t<Function>, TaskOptions>)
    auto submit(Function function, Args&&... arguments) {
        return detail::submit_function(engine_, nullptr, std::move(function), std::forward<Args>(arguments)...);
    }
    /// The same with limits of its own: `submit({.timeout = 2s}, f, x)`.
    template <class Function, class... Args>
    auto submit(const TaskOptions& options, Function function, Args&&... arguments) {
        return detail::submit_function(engine_, &options, std::move(function), std::forward<Args>(arguments)...);
    }

    /// Takes no more tasks. With `wait`, returns when the workers have left and every callback has returned; with `cancel_futures`,
    /// what waits is cancelled instead of finished.
    void shutdown(bool wait = true, bool cancel_futures = false);
    /// Ends the workers now: asks by SIGTERM, and kills after a second those that have not left. Every task that has not ended
    /// throws Cancelled.
    void terminate_workers();
    /// The same by SIGKILL, at once.
    void kill_workers();

    std::size_t max_workers() const noexcept;

    /// Counters of what was done and what waits, and what each worker is at. Cheap, always kept.
    PoolStats stats() const;
    /// Where the time went: starting, initializing, waiting, working; the slowest tasks (with `trace`), failures, restarts.
    PoolInsights insights() const;
    /// Who ran what, and when. Throws Error unless it was made with `.trace = true`.
    Trace trace() const;

private:
    friend class detail::ExecutorMaps<ProcessPoolExecutor>;

    template <class Function, class... Ranges>
    auto start_map(const MapOptions& options, Function function, Ranges&&... inputs) {
        using Backend =
            detail::ProcessMapBackend<detail::Engine, Function, detail::Holder<std::ranges::range_value_t<Ranges>>...>;
        return detail::executor_map(Backend(engine_, std::move(function)), options, std::forward<Ranges>(inputs)...);
    }

    std::shared_ptr<detail::Engine> engine_;
};

}    // namespace multihull
