// From which size on a task is worth being sent away.
#include <multihull/compare.hpp>

#include <multihull/detail/parallel_workers.hpp>
#include <multihull/pool.hpp>
#include <multihull/process.hpp>
#include <multihull/thread_pool_executor.hpp>

#include <algorithm>
#include <array>
#include <cmath>
#include <stdexcept>

namespace multihull {

namespace {

using std::chrono::nanoseconds;
using Clock = std::chrono::steady_clock;

constexpr std::array kSizes{100, 316, 1'000, 3'162, 10'000, 31'623, 100'000, 316'228, 1'000'000};    // ns
constexpr double kWorkNs = 8e6;    // of one measurement, by one processor
constexpr int kRounds = 5;

// A chain of multiplications, which no compiler and no processor shortens.
std::uint64_t count_to(std::uint64_t turns) {
    std::uint64_t value = turns | 1;
    for (std::uint64_t i = 0; i < turns; ++i) {
        value *= 6364136223846793005U;
        asm volatile("" : "+r"(value));
    }
    return value;
}

template <class Function>
double ns_of(Function function) {
    const auto begin = Clock::now();
    function();
    return std::chrono::duration<double, std::nano>(Clock::now() - begin).count();
}

double turns_per_ns() {
    constexpr std::uint64_t kTurns = 1'000'000;
    double best = 1e18;
    for (int i = 0; i < 5; ++i) best = std::min(best, ns_of([] { count_to(kTurns); }));
    return static_cast<double>(kTurns) / best;
}

// What the machine does besides only ever adds.
double least(const std::array<double, kRounds>& values) { return *std::ranges::min_element(values); }

// Where the curve crosses 1 for good, between two sizes as the logarithms have it.
std::optional<nanoseconds> crossing(const std::vector<BreakEven::Point>& points, double BreakEven::Point::*speed_up) {
    std::size_t first = points.size();
    while (first > 0 && points[first - 1].*speed_up > 1) --first;
    if (first == points.size()) return std::nullopt;
    const BreakEven::Point& above = points[first];
    if (first == 0) return above.task;
    const BreakEven::Point& below = points[first - 1];
    const double low = std::log(std::max(below.*speed_up, 1e-6));
    const double part = -low / (std::log(above.*speed_up) - low);
    const auto size = [](const BreakEven::Point& point) { return std::log(static_cast<double>(point.task.count())); };
    return nanoseconds(std::llround(std::exp(size(below) + part * (size(above) - size(below)))));
}

// `submit(turns)` answers a future; `map(inputs)` runs them all.
template <class Submit, class Map>
BreakEven::Point measure(double size_ns, double turns_each, Submit submit, Map map) {
    const auto turns = static_cast<std::uint64_t>(std::max(1.0, size_ns * turns_each));
    const auto count = static_cast<std::size_t>(std::clamp(kWorkNs / size_ns, 16.0, 10'000.0));
    const std::vector<std::uint64_t> inputs(count, turns);
    std::array<double, kRounds> serial{};
    std::array<double, kRounds> futures{};
    std::array<double, kRounds> mapped{};
    for (int round = 0; round < kRounds; ++round) {
        const auto r = static_cast<std::size_t>(round);
        serial[r] = ns_of([&] {
            for (const std::uint64_t input : inputs) count_to(input);
        });
        futures[r] = ns_of([&] {
            std::vector<Future<std::uint64_t>> results;
            results.reserve(count);
            for (const std::uint64_t input : inputs) results.push_back(submit(input));
            for (auto& result : results) result.get();
        });
        mapped[r] = ns_of([&] { map(inputs); });
    }
    const double alone = least(serial);
    return {.task = nanoseconds(std::llround(alone / static_cast<double>(count))),
            .futures = alone / least(futures),
            .map = alone / least(mapped)};
}

template <class Submit, class Map>
void measure_all(BreakEven& result, const std::function<bool()>& stop,
                 const std::function<void(const Progress&)>& progress, Submit submit, Map map) {
    const auto began = Clock::now();
    const auto tell = [&] {
        if (progress) progress({result.points.size(), kSizes.size(), Clock::now() - began});
    };
    tell();
    const double turns = turns_per_ns();
    map(std::vector<std::uint64_t>(64 * result.jobs, 1000));    // so that all workers are there
    for (const int size : kSizes) {
        if (stop && stop()) return;
        result.points.push_back(measure(size, turns, submit, map));
        tell();
    }
}

}    // namespace

std::optional<nanoseconds> BreakEven::futures() const { return crossing(points, &Point::futures); }
std::optional<nanoseconds> BreakEven::map() const { return crossing(points, &Point::map); }

BreakEven break_even(Prefer way, std::size_t jobs, const std::function<bool()>& stop,
                     const std::function<void(const Progress&)>& progress) {
    BreakEven result{.way = way, .jobs = jobs != 0 ? jobs : cpu_count()};
    if (way == Prefer::serial)
        throw std::invalid_argument("a plain loop has no break-even: ask for threads or processes");
    if (way == Prefer::threads) {
        ThreadPoolExecutor threads(result.jobs);
        const auto loop = detail::parallel_place({.prefer = Prefer::threads}, 2).backend;
        measure_all(
            result, stop, progress, [&](std::uint64_t turns) { return threads.submit(count_to, turns); },
            [&](const std::vector<std::uint64_t>& inputs) {
                loop->run(inputs.size(), result.jobs, 0, [&](std::size_t i) { count_to(inputs[i]); });
            });
    } else {
        Pool pool(result.jobs);
        measure_all(
            result, stop, progress, [&](std::uint64_t turns) { return pool.apply_async(count_to, turns); },
            [&](const std::vector<std::uint64_t>& inputs) { pool.map(count_to, inputs); });
    }
    return result;
}

}    // namespace multihull
