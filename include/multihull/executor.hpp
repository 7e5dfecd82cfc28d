// What all executors have in common.
#pragma once

#include <multihull/future.hpp>

#include <chrono>
#include <concepts>
#include <cstddef>
#include <optional>
#include <ranges>

namespace multihull {

/// Settings of one executor's map().
struct MapOptions {
    /// From the call of map(): reading a result that is not ready by then throws WaitTimeout. The task goes on.
    std::optional<std::chrono::nanoseconds> timeout{};
    /// Inputs that travel together. Processes only: to threads nothing travels.
    std::size_t chunksize = 1;
    /// How many chunks are submitted ahead of the one that is read; 0: all of a range that knows its size, up to 65,536, and as
    /// many as keep the workers busy of one that may be endless.
    std::size_t buffersize = 0;
};

/// Something that runs functions and gives futures of their results: ProcessPoolExecutor, ThreadPoolExecutor, SerialExecutor.
///
/// A program that is written for one runs with the others: `submit(f, args...)`, `map(f, ranges...)`, `map(f, ranges..., options)`,
/// `map(options, f, ranges...)`, `shutdown(wait, cancel_futures)`. What runs in processes, where functions and values must travel,
/// runs in threads; not always the other way round, and there the compiler says so.
template <class E>
concept Executor =
    std::constructible_from<E, std::size_t> &&
    requires(E& executor, int (*function)(int), std::ranges::iota_view<int, int> inputs, MapOptions options) {
        { executor.submit(function, 1) } -> std::same_as<Future<int>>;
        { executor.map(function, inputs) } -> std::ranges::input_range;
        { executor.map(function, inputs, options) } -> std::ranges::input_range;
        { executor.map(options, function, inputs) } -> std::ranges::input_range;
        { executor.max_workers() } -> std::convertible_to<std::size_t>;
        executor.shutdown(true, false);
        executor.terminate_workers();
        executor.kill_workers();
    };

namespace detail {

/// The spellings of map() that executors share; `Self` has start_map(options, function, ranges...).
template <class Self>
class ExecutorMaps {
public:
    /// Calls `function` with the elements of the ranges, taken together, until the shortest ends. Answers a range of the results, in
    /// order, that is read once and may outlive the executor; reading one whose task failed throws what it failed with, and the
    /// next `++` goes on behind it. A range that is dropped before its end cancels what has not started.
    template <class Function, std::ranges::input_range... Ranges>
        requires(sizeof...(Ranges) > 0)
    auto map(Function function, Ranges&&... inputs) {
        return self().start_map(MapOptions{}, std::move(function), std::forward<Ranges>(inputs)...);
    }
    /// The same with settings: `map({.timeout = 2s, .chunksize = 100}, f, xs, ys)`.
    template <class Function, std::ranges::input_range... Ranges>
        requires(sizeof...(Ranges) > 0)
    auto map(const MapOptions& options, Function function, Ranges&&... inputs) {
        return self().start_map(options, std::move(function), std::forward<Ranges>(inputs)...);
    }
    template <class Function, std::ranges::input_range Range>
    auto map(Function function, Range&& inputs, const MapOptions& options) {
        return self().start_map(options, std::move(function), std::forward<Range>(inputs));
    }
    template <class Function, std::ranges::input_range Range, std::ranges::input_range Second>
    auto map(Function function, Range&& inputs, Second&& second, const MapOptions& options) {
        return self().start_map(options, std::move(function), std::forward<Range>(inputs),
                                std::forward<Second>(second));
    }

private:
    Self& self() noexcept { return static_cast<Self&>(*this); }
};

/// Throws std::invalid_argument for 0.
std::size_t checked_workers(std::size_t max_workers);

}    // namespace detail

}    // namespace multihull
