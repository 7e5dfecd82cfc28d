#include <multihull/compare.hpp>

#include <multihull/barrier.hpp>
#include <multihull/detail/parallel_workers.hpp>
#include <multihull/error.hpp>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>
#include <stdexcept>

namespace multihull {

namespace {

using std::chrono::nanoseconds;
using Clock = std::chrono::steady_clock;

constexpr std::chrono::seconds kStartPatience{10};

nanoseconds median_of(std::vector<nanoseconds> values) {
    if (values.empty()) throw Error("this way was not measured: the comparison was stopped before its turn");
    std::ranges::sort(values);
    const std::size_t middle = values.size() / 2;
    return values.size() % 2 != 0 ? values[middle] : (values[middle - 1] + values[middle]) / 2;
}

std::vector<std::size_t> jobs_to_try(const std::vector<std::size_t>& asked) {
    if (!asked.empty()) return asked;
    std::vector<std::size_t> jobs;
    const std::size_t processors = cpu_count();
    for (std::size_t n = 1; n < processors; n *= 2) jobs.push_back(n);
    jobs.push_back(processors);
    return jobs;
}

Comparison planned(std::size_t items, const CompareOptions& options) {
    if (items == 0) throw std::invalid_argument("there is nothing to compare: give at least one input");
    if (options.repeat == 0) throw std::invalid_argument("to compare is to measure: repeat must be at least 1");
    if (std::ranges::find(options.jobs, 0U) != options.jobs.end())
        throw std::invalid_argument("0 threads or processes can run nothing: jobs must be at least 1");
    Comparison plan{.items = items, .repeat = options.repeat};
    for (const Prefer way : options.ways) {
        if (way == Prefer::serial) {
            plan.ways.push_back({.way = way});
            continue;
        }
        for (const std::size_t jobs : jobs_to_try(options.jobs)) plan.ways.push_back({.way = way, .jobs = jobs});
    }
    if (plan.ways.empty()) throw std::invalid_argument("there is nothing to compare: give at least one way");
    return plan;
}

std::unique_ptr<ParallelBackend> threads_of_one_loop() {
    return detail::parallel_place({.prefer = Prefer::threads}, 2).backend;
}

template <class Function>
nanoseconds timed(Function function) {
    const auto begin = Clock::now();
    function();
    return Clock::now() - begin;
}

void wait_for_all(Barrier everybody) {
    try {
        everybody.wait(kStartPatience);
    } catch (const BrokenBarrier&) {
        // One of them can't be started, or died. What it means for the work is measured.
    }
}

// A pool whose workers are all there.
std::unique_ptr<Pool> started_pool(PoolOptions options, std::size_t jobs) {
    options.processes = jobs;
    auto pool = std::make_unique<Pool>(std::move(options));
    const Barrier everybody(static_cast<std::uint32_t>(jobs));
    std::vector<Future<void>> waits;
    for (std::size_t i = 0; i < jobs; ++i) waits.push_back(pool->apply_async(wait_for_all, everybody));
    for (const auto& wait : waits) wait.get();
    return pool;
}

void measure(detail::ComparedWork& work, ComparedWay& way, const CompareOptions& options) {
    nanoseconds start{0};
    nanoseconds time{0};
    switch (way.way) {
        case Prefer::serial:
            time = timed([&] { work.run_serial(options.stop); });
            break;
        case Prefer::threads: {
            const auto threads = threads_of_one_loop();
            time = timed([&] { work.run_threads(*threads, way.jobs, options.stop); });
            break;
        }
        case Prefer::processes: {
            std::unique_ptr<Pool> pool;
            start = timed([&] { pool = started_pool(options.pool, way.jobs); });
            time = timed([&] { work.run_processes(*pool, options.stop); });
            break;
        }
    }
    way.times.push_back(time);
    way.starts.push_back(start);
}

std::string row(const Comparison& comparison, const ComparedWay& way) {
    std::array<char, 160> line{};
    if (way.times.empty()) {
        std::snprintf(line.data(), line.size(), "%-10s %4zu   not measured", to_string(way.way), way.jobs);
        return line.data();
    }
    const std::string spread = to_string(way.fastest()) + " to " + to_string(way.slowest());
    const auto factor = comparison.speed_up(way);
    std::array<char, 32> speed_up{"-"};
    if (factor) std::snprintf(speed_up.data(), speed_up.size(), "%.2f x", *factor);
    std::snprintf(line.data(), line.size(), "%-10s %4zu  %9s  %-20s %9s  %9s", to_string(way.way), way.jobs,
                  to_string(way.median()).c_str(), spread.c_str(), speed_up.data(),
                  way.way == Prefer::processes ? to_string(way.median_start()).c_str() : "-");
    return line.data();
}

}    // namespace

nanoseconds ComparedWay::median() const { return median_of(times); }
nanoseconds ComparedWay::median_start() const { return median_of(starts); }
nanoseconds ComparedWay::fastest() const { return times.empty() ? median() : *std::ranges::min_element(times); }
nanoseconds ComparedWay::slowest() const { return times.empty() ? median() : *std::ranges::max_element(times); }

std::optional<double> Comparison::speed_up(const ComparedWay& way) const {
    const auto serial = std::ranges::find(ways, Prefer::serial, &ComparedWay::way);
    if (serial == ways.end() || serial->times.empty() || way.times.empty()) return std::nullopt;
    return static_cast<double>(serial->median().count()) /
           static_cast<double>(std::max<std::int64_t>(way.median().count(), 1));
}

std::string Comparison::to_string() const {
    std::string text = "way        jobs     median  fastest to slowest    speed-up      start";
    for (const ComparedWay& way : ways) text += '\n' + row(*this, way);
    return text;
}

const char* to_string(Prefer way) noexcept {
    switch (way) {
        case Prefer::processes:
            return "processes";
        case Prefer::threads:
            return "threads";
        case Prefer::serial:
            break;
    }
    return "serial";
}

std::string to_string(nanoseconds time) {
    struct Unit {
        double ns;
        const char* name;
    };
    constexpr std::array kUnits{Unit{1e9, "s"}, Unit{1e6, "ms"}, Unit{1e3, "us"}, Unit{1, "ns"}};
    const auto ns = static_cast<double>(time.count());
    // A unit from where it is reached after rounding, so that 999.9 us is 1.00 ms.
    const auto* const unit = std::ranges::find_if(kUnits, [&](const Unit& u) { return std::abs(ns) >= 0.9995 * u.ns; });
    const Unit& used = unit == kUnits.end() ? kUnits.back() : *unit;
    const double value = ns / used.ns;
    const int digits = used.ns == 1 || std::abs(value) >= 99.95 ? 0 : std::abs(value) >= 9.995 ? 1 : 2;
    std::array<char, 48> text{};
    std::snprintf(text.data(), text.size(), "%.*f %s", digits, value, used.name);
    return text.data();
}

Comparison detail::compare_work(ComparedWork& work, const CompareOptions& options) {
    Comparison comparison = planned(work.items(), options);
    const std::size_t ways = comparison.ways.size();
    const auto began = Clock::now();
    std::size_t done = 0;
    const auto tell = [&] {
        if (options.progress) options.progress({done, ways * options.repeat, Clock::now() - began});
    };
    tell();
    try {
        for (std::size_t round = 0; round < options.repeat; ++round) {
            for (std::size_t turn = 0; turn < ways; ++turn) {
                // Each round begins with another way: none is always the one after the slow one.
                measure(work, comparison.ways[(turn + round) % ways], options);
                const std::optional<bool> same = work.same_as_first();
                if (same) comparison.same_results = comparison.same_results.value_or(true) && *same;
                ++done;
                tell();
            }
        }
        comparison.complete = true;
    } catch (const CompareStopped&) {
        // What was measured until then is worth having.
    }
    return comparison;
}

}    // namespace multihull
