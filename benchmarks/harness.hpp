// Measures competitors side by side: each round takes one sample of each of them, in an order that turns from round to round, so
// that what else the machine does meets all of them alike.
//
// A work runs in a process of its own: threads and memory that one leaves behind cost the next one nothing.
#pragma once

#include <chrono>
#include <cstddef>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

namespace bench {

// The columns of the table.
inline constexpr std::string_view kMultihull = "Multihull";
inline constexpr std::string_view kUntraced = "untraced";
inline constexpr std::string_view kUnwatched = "unwatched";
inline constexpr std::string_view kThreadPool = "thread pool";
inline constexpr std::string_view kAsio = "asio";
inline constexpr std::string_view kTbb = "TBB";
inline constexpr std::string_view kLoop = "loop";
inline constexpr std::string_view kBare = "bare";
inline constexpr std::string_view kPythonPool = "py Pool";
inline constexpr std::string_view kPythonExecutor = "py executor";

struct Settings {
    int rounds = 11;
    std::size_t workers = 0;
};

/// One way of doing a work. `sample` does it once or many times and answers nanoseconds per unit of it.
struct Competitor {
    std::string name;
    std::function<double()> sample;
};

/// Something to measure. `prepare` makes the competitors, which keep what they need (pools, inputs) from sample to sample.
struct Work {
    std::string_view name;        // for --only
    std::string_view title;       // in the table
    std::string_view baseline;    // the column that Multihull is compared with
    std::vector<Competitor> (*prepare)(const Settings& settings);
};

/// All works, in the order of the table.
const std::vector<Work>& works();

inline std::chrono::steady_clock::time_point now() { return std::chrono::steady_clock::now(); }
inline double ns_since(std::chrono::steady_clock::time_point begin) {
    return std::chrono::duration<double, std::nano>(now() - begin).count();
}

/// Nanoseconds that one call takes.
template <class Function>
double timed(Function function) {
    const auto begin = now();
    function();
    return ns_since(begin);
}

/// The value of which as many are above as below.
double median(std::vector<double> values);

/// The median of `count` calls, each timed for itself; `before` is called, untimed, before each.
template <class Function, class Before>
double median_of(int count, Function function, Before before) {
    std::vector<double> samples;
    for (int i = 0; i < count; ++i) {
        before();
        samples.push_back(timed(function));
    }
    return median(std::move(samples));
}
template <class Function>
double median_of(int count, Function function) {
    return median_of(count, std::move(function), [] {});
}

/// Keeps a result from being optimized away.
template <class T>
void keep(const T& value) {
    asm volatile("" : : "r,m"(value) : "memory");
}

/// Stops the program when a competitor computed something wrong: a quick wrong answer is no measurement.
void require(bool right, std::string_view what);

// The works, by the files that they are in.
std::vector<Competitor> prepare_round_trip(const Settings& settings);
std::vector<Competitor> prepare_round_trip_idle(const Settings& settings);
std::vector<Competitor> prepare_tiny_tasks(const Settings& settings);
std::vector<Competitor> prepare_tiny_tasks_traced(const Settings& settings);
std::vector<Competitor> prepare_tiny_tasks_watched(const Settings& settings);
std::vector<Competitor> prepare_map_vector(const Settings& settings);
std::vector<Competitor> prepare_map_iota(const Settings& settings);
std::vector<Competitor> prepare_map_lambda(const Settings& settings);
std::vector<Competitor> prepare_map_shared(const Settings& settings);
std::vector<Competitor> prepare_map_microsecond(const Settings& settings);
std::vector<Competitor> prepare_map_microsecond_traced(const Settings& settings);
std::vector<Competitor> prepare_pool_of_five(const Settings& settings);
std::vector<Competitor> prepare_pool_of_five_fork(const Settings& settings);
std::vector<Competitor> prepare_pool_of_999(const Settings& settings);
std::vector<Competitor> prepare_process_fork(const Settings& settings);
std::vector<Competitor> prepare_process_forkserver(const Settings& settings);
std::vector<Competitor> prepare_process_spawn(const Settings& settings);
std::vector<Competitor> prepare_process_fork_big(const Settings& settings);
std::vector<Competitor> prepare_process_forkserver_big(const Settings& settings);
std::vector<Competitor> prepare_process_spawn_big(const Settings& settings);
std::vector<Competitor> prepare_crash(const Settings& settings);

}    // namespace bench
