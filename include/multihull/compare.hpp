// Does it pay to do this in parallel? The same work one after the other, in threads and in processes, measured side by side.
//
// Call it from one thread of a program that has nothing else to do meanwhile.
#pragma once

#include <multihull/detail/compared_calls.hpp>
#include <multihull/parallel_options.hpp>
#include <multihull/pool_options.hpp>
#include <multihull/progress.hpp>

#include <chrono>
#include <cstddef>
#include <functional>
#include <initializer_list>
#include <optional>
#include <ranges>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

namespace multihull {

/// Settings of compare().
struct CompareOptions {
    std::vector<std::size_t>
        jobs{};                ///< Numbers of threads and of processes to try; empty: 1, 2, 4, ... cpu_count().
    std::size_t repeat = 5;    ///< How often each way is measured.
    std::vector<Prefer> ways{Prefer::serial, Prefer::threads, Prefer::processes};
    PoolOptions pool{};    ///< Of the processes; `processes` is set from `jobs`.
    std::function<void(const Progress&)>
        progress{};    ///< Told before the first measurement and after each, in the calling thread.
    /// Asked before each call, from whichever thread makes it, and ten times a second while processes work: true ends the comparison
    /// early, with what was measured until then.
    std::function<bool()> stop{};
};

/// One way of doing the work, and how long it took.
struct ComparedWay {
    Prefer way = Prefer::serial;
    std::size_t jobs = 1;                              ///< Threads or processes.
    std::vector<std::chrono::nanoseconds> times{};     ///< Of the whole work, in the order in which they were measured.
    std::vector<std::chrono::nanoseconds> starts{};    ///< What it took before to start the processes; of others: 0.

    /// These throw Error where nothing was measured.
    std::chrono::nanoseconds median() const;
    std::chrono::nanoseconds fastest() const;
    std::chrono::nanoseconds slowest() const;
    std::chrono::nanoseconds median_start() const;
};

/// What compare() has found.
struct Comparison {
    std::size_t items = 0;
    std::size_t repeat = 0;
    std::vector<ComparedWay> ways{};
    bool complete = false;    ///< Not stopped early.
    std::optional<bool>
        same_results{};    ///< Whether every way gave equal results; empty where results can't be compared.

    /// How many times as fast as one call after the other, by the medians; empty where one of them was not measured.
    std::optional<double> speed_up(const ComparedWay& way) const;
    /// A table, a line a way, without a line break at its end.
    std::string to_string() const;
};

/// "serial", "threads" or "processes".
const char* to_string(Prefer way) noexcept;
/// "1.24 s", "380 us": three digits and the unit that suits them.
std::string to_string(std::chrono::nanoseconds time);

/// Does the same work in each way, in turns, so that whatever else the machine does meets all of them alike: a call of `function` for
/// each input. Threads and processes are started anew for each measurement. The first results are kept; later ones are compared
/// with them.
///
/// ```cpp
/// std::cout << multihull::compare(render, scenes, {.jobs = {2, 4}}).to_string() << '\n';
/// ```
/// The function and its inputs must travel, as for Pool::map; in threads it must be safe to call at once. Throws what a call throws,
/// WorkerCrashed where one ends its worker, and std::invalid_argument for a number of jobs or repetitions of 0.
template <class Function, std::ranges::input_range Range>
Comparison compare(Function function, Range&& inputs, const CompareOptions& options = {}) {
    using In = std::remove_cvref_t<std::ranges::range_value_t<Range>>;
    std::vector<In> kept;
    if constexpr (std::ranges::sized_range<Range>) kept.reserve(std::ranges::size(inputs));
    for (auto&& input : inputs) kept.emplace_back(std::forward<decltype(input)>(input));
    detail::ComparedCalls<std::decay_t<Function>, In> work(std::move(function), std::move(kept));
    return detail::compare_work(work, options);
}
template <class Function, class T>
Comparison compare(Function function, std::initializer_list<T> inputs, const CompareOptions& options = {}) {
    return compare(std::move(function), std::vector<T>(inputs), options);
}

/// From which size on a task is worth being sent away, by measurement: tasks that count, of sizes from 100 ns to 1 ms.
struct BreakEven {
    struct Point {
        std::chrono::nanoseconds task{0};    ///< What one task takes here, by itself.
        double futures = 0;    ///< How many times as fast: each task submitted by itself, with its future.
        double map = 0;        ///< The same tasks as one map.
    };
    Prefer way = Prefer::processes;
    std::size_t jobs = 0;
    std::vector<Point> points{};    ///< From the smallest task to the largest.

    /// The smallest task from which on it is faster than a plain loop; empty where it never is (with one processor, say), the
    /// smallest that was measured where it always is.
    std::optional<std::chrono::nanoseconds> futures() const;
    std::optional<std::chrono::nanoseconds> map() const;
};

/// Measures it for threads or processes, `jobs` of them (0: cpu_count()), which are started before; takes about a second. `stop` as in
/// CompareOptions, asked now and then; `progress` is told of sizes, as there. Throws std::invalid_argument for Prefer::serial.
BreakEven break_even(Prefer way = Prefer::processes, std::size_t jobs = 0, const std::function<bool()>& stop = {},
                     const std::function<void(const Progress&)>& progress = {});

}    // namespace multihull
