// Parallel loops that answer all results at once.
#pragma once

#include <multihull/detail/parallel_workers.hpp>
#include <multihull/detail/wire_call.hpp>
#include <multihull/future.hpp>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <exception>
#include <iterator>
#include <limits>
#include <mutex>
#include <optional>
#include <ranges>
#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>

namespace multihull::detail {

template <class Range>
using CallOf = std::ranges::range_value_t<Range>;

/// All calls of a range: made now, so that a snapshot taken afterwards has them.
template <class Range>
std::vector<CallOf<Range>> take_calls(Range&& range) {
    std::vector<CallOf<Range>> calls;
    if constexpr (std::ranges::sized_range<Range>) calls.reserve(static_cast<std::size_t>(std::ranges::size(range)));
    for (auto&& call : range) calls.push_back(std::forward<decltype(call)>(call));
    return calls;
}

/// Runs a call of a thread; fails where it took longer than it may.
template <class C>
typename C::Result run_timed(C& call, const std::optional<std::chrono::nanoseconds>& timeout) {
    if (!timeout) return std::move(call)();
    const auto began = std::chrono::steady_clock::now();
    const auto check = [&] {
        if (std::chrono::steady_clock::now() - began > *timeout) throw_late_call(*timeout);
    };
    if constexpr (std::is_void_v<typename C::Result>) {
        std::move(call)();
        check();
    } else {
        typename C::Result result = std::move(call)();
        check();
        if constexpr (std::is_reference_v<typename C::Result>) {
            return static_cast<typename C::Result>(result);
        } else {
            return result;
        }
    }
}

/// Gives the results of a loop, in order, to whoever asked for it.
template <class Value>
MapValue<Value> unwrap(std::vector<std::optional<Stored<Value>>>& results) {
    if constexpr (!std::is_void_v<Value>) {
        std::vector<Value> values;
        values.reserve(results.size());
        for (auto& result : results) values.push_back(std::move(*result));
        return values;
    }
}

template <class C>
MapValue<typename C::Value> list_in_this_process(ParallelBackend& backend, const ParallelOptions& options,
                                                 std::size_t jobs, std::vector<C>& calls, ParallelReport& report) {
    using Value = typename C::Value;
    std::vector<std::optional<Stored<Value>>> results(calls.size());
    std::atomic<bool> stop{false};
    std::mutex mutex;
    std::size_t first = std::numeric_limits<std::size_t>::max();
    std::exception_ptr failure;
    backend.run(calls.size(), jobs, options.batch_size, [&](std::size_t i) {
        if (stop.load(std::memory_order_relaxed)) return;
        try {
            if constexpr (std::is_void_v<Value>) {
                run_timed(calls[i], options.timeout);
            } else {
                results[i].emplace(run_timed(calls[i], options.timeout));
            }
            report.one_more();
        } catch (...) {
            const std::lock_guard guard(mutex);
            stop = true;
            if (i > first) return;
            first = i;
            failure = std::current_exception();
        }
    });
    if (failure) std::rethrow_exception(failure);
    report.end();
    return unwrap<Value>(results);
}

// Waits for a map and answers its results. A failed one's workers are not to be used again by a loop of their own.
template <class Value, bool kCells>
MapValue<Value> finish_map(ParallelWorkers& workers, ParallelReport& report, std::shared_ptr<Completion> map) {
    const Future<MapValue<Value>> results(map, 0, &read_map<Value, kCells>);
    wait_for_map(map, report.period(), [&](std::size_t done) { report.at(done); });
    workers.finished();
    report.end();
    return results.get();
}

template <class Value>
inline constexpr bool kNeedsCells = kFixedSize<Stored<Value>> == 0;

// Whether the calls differ in nothing but their arguments, which are called the same when they have become their holders.
template <class C>
inline constexpr bool kTupleInputs = false;
template <class F, class... Args>
inline constexpr bool kTupleInputs<DelayedCall<F, Args...>> =
    std::is_same_v<InvocationOf<F, Args...>,
                   typename ElementInvocation<F, typename InvocationOf<F, Args...>::Holders, true>::Type>;

template <class C>
auto start_travelling(const std::shared_ptr<Engine>& engine, std::vector<C>& calls, const TaskOptions& task,
                      std::size_t jobs) {
    const auto parts = static_cast<std::uint32_t>(jobs);
    if constexpr (kTupleInputs<C>) {
        const bool same =
            std::ranges::all_of(calls, [&](C& call) { return call.function().same(calls.front().function()); });
        if (same) {
            using Holders = typename WireCall<C>::Holders;
            const auto inputs = calls | std::views::transform([](C& call) {
                                    return make_input<Holders, true>(std::move(call.arguments()));
                                });
            return start_map<true, false>(engine, calls.front().function().get(), inputs, task, parts, true).first;
        }
    }
    std::vector<WireCall<C>> inputs;
    inputs.reserve(calls.size());
    for (C& call : calls) inputs.emplace_back(std::move(call), false);
    return start_map<false, false>(engine, RunWireCall<C>{},
                                   std::ranges::subrange(std::move_iterator(inputs.begin()),
                                                         std::move_sentinel(inputs.end())),
                                   task, parts, true)
        .first;
}

template <class C>
MapValue<typename C::Value> list_in_processes(const ParallelOptions& options, std::size_t jobs, std::vector<C>& calls,
                                              ParallelReport& report) {
    using Traits = CallTraits<C>;
    using Value = typename C::Value;
    if constexpr (!Traits::kResultTravels) {
        throw_result_cannot_travel();
    } else {
        if (calls.empty()) return MapValue<Value>();
        TaskOptions task;
        task.timeout = options.timeout;
        task.chunksize = options.batch_size;
        if constexpr (Traits::kTravels) {
            if (!options.snapshot) {
                ParallelWorkers workers = ParallelWorkers::reusable(options, jobs);
                return finish_map<Value, kNeedsCells<Value>>(workers, report,
                                                             start_travelling(workers.engine(), calls, task, jobs));
            }
        }
        ParallelWorkers workers = ParallelWorkers::snapshot(std::min(jobs, calls.size()));
        const auto indexes = std::views::iota(std::uint64_t{0}, std::uint64_t{calls.size()});
        return finish_map<Value, kNeedsCells<Value>>(workers, report,
                                                     start_map<false, false>(workers.engine(),
                                                                             RunPreparedCall<C>{address_of(calls)},
                                                                             indexes, task, 0, true)
                                                         .first);
    }
}

}    // namespace multihull::detail
