// A pool of worker processes, as Python's multiprocessing.Pool: functions in, results out, and nothing that sinks it.
//
// Thread-safe: any thread may submit and wait. Belongs to the process that made it; in a forked child every use throws
// PoolClosed, and the parent's pool is not touched.
//
// What a task can do to others: nothing. One that crashes, hangs, is killed, leaks or calls exit() ends its own worker; its own
// future says what happened, and a new worker takes the next task.
#pragma once

#include <multihull/detail/imap.hpp>
#include <multihull/detail/map.hpp>
#include <multihull/detail/submit.hpp>
#include <multihull/error.hpp>
#include <multihull/future.hpp>
#include <multihull/pool_options.hpp>
#include <multihull/pool_stats.hpp>
#include <multihull/trace.hpp>

#include <cstddef>
#include <exception>
#include <initializer_list>
#include <memory>
#include <ranges>
#include <type_traits>
#include <utility>
#include <vector>

namespace multihull {

/// Worker processes that run functions of this program.
///
/// ```cpp
/// multihull::Pool pool(4);
/// std::vector<int> squares = pool.map([](int x) { return x * x; }, std::views::iota(0, 1000));
/// multihull::Future<Image> image = pool.apply_async(render, scene);
/// ```
/// Functions may be function pointers, captureless lambdas, and function objects whose fields can travel; see docs/travel.md.
/// Leaving the scope finishes the work; leaving it by an exception ends the workers.
class Pool {
public:
    /// A pool of one worker for each processor this process may use.
    Pool() : Pool(PoolOptions{}) {}
    /// A pool of `processes` workers. Throws std::invalid_argument for 0 or more than 4096, StartError when none can be started.
    explicit Pool(std::size_t processes);
    explicit Pool(PoolOptions options);
    Pool(const Pool&) = delete;
    Pool& operator=(const Pool&) = delete;
    ~Pool();

    /// Calls `function(arguments...)` in a worker and returns its result. Throws as Future::get does.
    template <class Function, class... Args>
    auto apply(Function function, Args&&... arguments) {
        return submit(nullptr, std::move(function), std::forward<Args>(arguments)...).get();
    }
    template <class Function, class... Args>
    auto apply(const TaskOptions& options, Function function, Args&&... arguments) {
        return submit(&options, std::move(function), std::forward<Args>(arguments)...).get();
    }

    /// Queues `function(arguments...)` for the next free worker. Never blocks. Throws PoolClosed or BrokenPool.
    template <class Function, class... Args>
        requires(!std::is_same_v<std::remove_cvref_t<Function>, TaskOptions>)
    auto apply_async(Function function, Args&&... arguments) {
        return submit(nullptr, std::move(function), std::forward<Args>(arguments)...);
    }
    /// The same with limits of its own: `apply_async({.timeout = 2s}, f, x)`.
    template <class Function, class... Args>
    auto apply_async(const TaskOptions& options, Function function, Args&&... arguments) {
        return submit(&options, std::move(function), std::forward<Args>(arguments)...);
    }

    /// Calls `function` with each element of the range; results in the order of the inputs. Every input is run; when some fail,
    /// throws the failure of the first of them. Time-outs and retries count for each element. `options.progress` is told how far it is.
    template <class Function, std::ranges::input_range Range>
    auto map(Function function, Range&& inputs, const TaskOptions& options = {}) {
        return detail::map_future<false, true>(engine_, std::decay_t<Function>(std::move(function)),
                                               std::forward<Range>(inputs), options);
    }
    template <class Function, class T>
    auto map(Function function, std::initializer_list<T> inputs, const TaskOptions& options = {}) {
        return detail::map_future<false, true>(engine_, std::decay_t<Function>(std::move(function)), inputs, options);
    }
    template <class Function, std::ranges::input_range Range>
    auto map_async(Function function, Range&& inputs, const TaskOptions& options = {}) {
        return detail::map_future<false, false>(engine_, std::decay_t<Function>(std::move(function)),
                                                std::forward<Range>(inputs), options);
    }
    template <class Function, class T>
    auto map_async(Function function, std::initializer_list<T> inputs, const TaskOptions& options = {}) {
        return detail::map_future<false, false>(engine_, std::decay_t<Function>(std::move(function)), inputs, options);
    }

    /// The same with the results in an array that is in shared memory already, so that nothing is copied; inputs in an Array or a
    /// ConstArray are read where they lie, here and in map(). When some fail, the array has the results of the others; that of one
    /// whose worker died may be half written. `into` may be the inputs, unless retries are asked for: an input whose worker died may
    /// have been overwritten. Throws std::invalid_argument when the array is too small.
    template <class Function, std::ranges::input_range Range, class T>
    void map_into(Function function, Range&& inputs, const Array<T>& into, const TaskOptions& options = {}) {
        detail::map_into<true>(engine_, std::decay_t<Function>(std::move(function)), std::forward<Range>(inputs), into,
                               options);
    }
    /// The same without waiting. The array stays where it is until the future is ready, whoever lets go of it.
    template <class Function, std::ranges::input_range Range, class T>
    Future<void> map_into_async(Function function, Range&& inputs, const Array<T>& into,
                                const TaskOptions& options = {}) {
        return detail::map_into<false>(engine_, std::decay_t<Function>(std::move(function)),
                                       std::forward<Range>(inputs), into, options);
    }

    /// The same with elements that are tuples or pairs of arguments.
    template <class Function, std::ranges::input_range Range>
    auto starmap(Function function, Range&& inputs, const TaskOptions& options = {}) {
        return detail::map_future<true, true>(engine_, std::decay_t<Function>(std::move(function)),
                                              std::forward<Range>(inputs), options);
    }
    template <class Function, class... T>
    auto starmap(Function function, std::initializer_list<std::tuple<T...>> inputs, const TaskOptions& options = {}) {
        return detail::map_future<true, true>(engine_, std::decay_t<Function>(std::move(function)), inputs, options);
    }
    template <class Function, std::ranges::input_range Range>
    auto starmap_async(Function function, Range&& inputs, const TaskOptions& options = {}) {
        return detail::map_future<true, false>(engine_, std::decay_t<Function>(std::move(function)),
                                               std::forward<Range>(inputs), options);
    }

    /// Results one by one, in order, of inputs that are taken only as fast as the workers can eat them: for inputs that are
    /// endless, or too many to keep. `options.chunksize` elements travel together (default 1).
    template <class Function, std::ranges::input_range Range>
    auto imap(Function function, Range&& inputs, TaskOptions options = {}) {
        return lazy<true>(std::move(function), std::views::all(std::forward<Range>(inputs)), options);
    }
    /// The same in the order in which they are ready.
    template <class Function, std::ranges::input_range Range>
    auto imap_unordered(Function function, Range&& inputs, TaskOptions options = {}) {
        return lazy<false>(std::move(function), std::views::all(std::forward<Range>(inputs)), options);
    }

    /// Takes no more tasks; those that were given are finished.
    void close();
    /// Ends the workers now. Tasks that have not ended throw Cancelled.
    void terminate() noexcept;
    /// Waits until the workers have left and every callback has returned; any number of threads may. In a callback, waits for the
    /// workers only. Throws Error unless close() or terminate() was called.
    void join();

    /// How many workers the pool keeps.
    std::size_t processes() const noexcept;

    /// Counters of what was done and what waits, and what each worker is at. Cheap, always kept.
    PoolStats stats() const;
    /// Where the time went: starting, initializing, waiting, working; the slowest tasks (with `trace`), failures, restarts.
    PoolInsights insights() const;
    /// Who ran what, and when. Throws Error unless the pool was made with `.trace = true`.
    Trace trace() const;

private:
    template <class Function, class... Args>
    auto submit(const TaskOptions* options, Function function, Args&&... arguments) {
        return detail::submit_function(engine_, options, std::move(function), std::forward<Args>(arguments)...);
    }

    template <bool kOrdered, class Function, class View>
    auto lazy(Function function, View view, TaskOptions options) {
        using F = std::decay_t<Function>;
        using I = detail::RangeInvocation<F, View, false>;
        using Value = detail::Stored<typename I::Value>;
        I::check();
        if constexpr (!std::is_void_v<typename I::Value>) detail::require_travels<typename I::Value>();
        return ResultRange<Value>(std::make_unique<detail::Imap<F, View, kOrdered>>(engine_, std::move(function),
                                                                                    std::move(view), options));
    }

    std::shared_ptr<detail::Engine> engine_;
    int exceptions_ = std::uncaught_exceptions();
};

}    // namespace multihull
