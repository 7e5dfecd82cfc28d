// How the costs of a pool grow: with its workers, with the number of tasks, with the size of what they are given; what a queued task
// takes of memory; what crashes cost a map; and how much sooner two busy tasks end on two processors.
#include "../harness.hpp"
#include "../report.hpp"

#include <multihull/const_array.hpp>
#include <multihull/pool.hpp>
#include <multihull/sync.hpp>

#include <CLI/CLI.hpp>
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <csignal>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <fstream>
#include <numeric>
#include <string>
#include <thread>
#include <vector>

namespace {

using bench::median;
using bench::require;
using bench::timed;

struct Settings {
    int rounds = 7;
    std::size_t most_tasks = 10'000'000;
    std::size_t most_bytes = std::size_t{1} << 30;
};

std::string duration(double ns) {
    if (ns < 1e3) return fmt::format("{:.0f} ns", ns);
    if (ns < 1e6) return fmt::format("{:.2f} us", ns / 1e3);
    if (ns < 1e9) return fmt::format("{:.2f} ms", ns / 1e6);
    return fmt::format("{:.2f} s", ns / 1e9);
}

std::string bytes_text(double bytes) {
    if (bytes < 1024) return fmt::format("{:.0f} B", bytes);
    if (bytes < 1024 * 1024) return fmt::format("{:.0f} KiB", bytes / 1024);
    if (bytes < 1024.0 * 1024 * 1024) return fmt::format("{:.0f} MiB", bytes / 1024 / 1024);
    return fmt::format("{:.0f} GiB", bytes / 1024 / 1024 / 1024);
}

// What this process has in memory, shared pages included.
double resident_bytes() {
    std::ifstream status("/proc/self/status");
    for (std::string line; std::getline(status, line);) {
        if (line.starts_with("VmRSS:")) return std::strtod(line.c_str() + 6, nullptr) * 1024;
    }
    return 0;
}

int add_one(int x) { return x + 1; }
int end_of_itself(int x) { return x == 0 ? ::raise(SIGSEGV) : x; }

int spin(int turns) {
    for (int i = 0; i < turns; ++i) bench::keep(i);
    return turns;
}

int turns_of(double ns) {
    constexpr int kTurns = 1'000'000;
    double best = 1e18;
    for (int i = 0; i < 20; ++i) best = std::min(best, timed([] { bench::keep(spin(kTurns)); }));
    return static_cast<int>(kTurns / best * ns);
}

// One of a hundred inputs is negative, and ends its worker.
int spin_or_crash(int turns) {
    if (turns < 0) ::raise(SIGKILL);
    return spin(turns);
}

void wait_for(multihull::Event gate) { gate.wait(); }

std::size_t size_of(const std::vector<std::byte>& bytes) { return bytes.size(); }
std::size_t size_of_shared(const multihull::ConstArray<std::byte>& bytes) { return bytes.size(); }

// Tasks with a future each, all queued before the first result is asked for.
void run_tasks(multihull::Pool& pool, std::size_t count) {
    std::vector<multihull::Future<int>> futures;
    futures.reserve(count);
    for (std::size_t i = 0; i < count; ++i) futures.push_back(pool.apply_async(add_one, 1));
    std::size_t sum = 0;
    for (auto& future : futures) sum += static_cast<std::size_t>(future.get());
    require(sum == 2 * count, "the tasks");
}

template <class Sample>
double median_of_rounds(int rounds, Sample sample) {
    std::vector<double> samples;
    sample();    // warms up
    for (int i = 0; i < rounds; ++i) samples.push_back(sample());
    return median(std::move(samples));
}

void by_workers(const Settings& settings) {
    fmt::print("workers    made and ended    100,000 tasks, each    map of 100,000 times 1 us\n");
    const std::vector<int> inputs(100'000, turns_of(1000));
    for (const std::size_t workers : {1U, 2U, 4U, 8U, 16U}) {
        const double life =
            median_of_rounds(settings.rounds, [&] { return timed([&] { multihull::Pool short_lived(workers); }); });
        multihull::Pool pool(workers);
        const double tasks =
            median_of_rounds(settings.rounds, [&] { return timed([&] { run_tasks(pool, 100'000); }) / 100'000; });
        const double map =
            median_of_rounds(settings.rounds, [&] { return timed([&] { bench::keep(pool.map(spin, inputs)); }); });
        fmt::print("{:>7}{:>18}{:>23}{:>29}\n", workers, duration(life), duration(tasks), duration(map));
    }
}

void by_tasks(const Settings& settings) {
    fmt::print("     tasks    with a future each, a task    in a map, a task    memory of one, queued\n");
    for (std::size_t count = 1; count <= settings.most_tasks; count *= 10) {
        const int rounds = count < 1'000'000 ? settings.rounds : 1;
        const auto each = static_cast<double>(count);
        multihull::Pool pool(2);
        run_tasks(pool, 1);
        const double tasks = median_of_rounds(rounds, [&] { return timed([&] { run_tasks(pool, count); }) / each; });
        const std::vector<int> inputs(count, 1);
        const double map = median_of_rounds(rounds, [&] {
            return timed([&] { require(pool.map(add_one, inputs).back() == 2, "the map"); }) / each;
        });

        // A pool of its own, whose one worker is at something else.
        multihull::Pool busy(1);
        multihull::Event gate;
        const auto first = busy.apply_async(wait_for, gate);
        std::vector<multihull::Future<int>> futures;
        const double before = resident_bytes();
        futures.reserve(count);
        for (std::size_t i = 0; i < count; ++i) futures.push_back(busy.apply_async(add_one, 1));
        const double held = (resident_bytes() - before) / each;
        gate.set();
        first.get();
        require(futures.back().get() == 2, "the last queued task");
        fmt::print("{:>10}{:>30}{:>20}{:>25}\n", count, duration(tasks), duration(map),
                   count < 1000 ? std::string("-") : bytes_text(held));
    }
}

void by_argument(const Settings& settings) {
    fmt::print("argument    as std::vector, a task        a second    as ConstArray, a task    memcpy\n");
    multihull::Pool pool(1);
    for (std::size_t size = 8; size <= settings.most_bytes; size *= size < (1U << 30) / 16 ? 16 : 8) {
        const std::vector<std::byte> bytes(size, std::byte{1});
        std::vector<std::byte> other(size);
        const int repeat = size < (1U << 20) ? 200 : 1;
        const double copied = median_of_rounds(settings.rounds, [&] {
            return timed([&] {
                       for (int i = 0; i < repeat; ++i) require(pool.apply(size_of, bytes) == size, "a vector");
                   }) /
                   repeat;
        });
        const multihull::ConstArray<std::byte> array(bytes);
        const double shared = median_of_rounds(settings.rounds, [&] {
            return timed([&] {
                       for (int i = 0; i < repeat; ++i) require(pool.apply(size_of_shared, array) == size, "an array");
                   }) /
                   repeat;
        });
        const double bare = median_of_rounds(settings.rounds, [&] {
            return timed([&] {
                std::copy(bytes.begin(), bytes.end(), other.begin());
                bench::keep(other.back());
            });
        });
        fmt::print("{:>8}{:>26}{:>16}{:>25}{:>10}\n", bytes_text(static_cast<double>(size)), duration(copied),
                   bytes_text(static_cast<double>(size) / copied * 1e9), duration(shared), duration(bare));
    }
}

void by_crashes(const Settings& settings) {
    constexpr int kTasks = 2000;
    constexpr int kCrashes = kTasks / 100;
    const int turns = turns_of(100'000);
    std::vector<int> good(kTasks, turns);
    std::vector<int> bad = good;
    for (int i = 0; i < kCrashes; ++i) bad[static_cast<std::size_t>(i * 100 + 50)] = -1;
    multihull::Pool pool(2);
    multihull::Pool single(1);
    std::vector<double> without, with, crash;
    for (int round = -1; round < settings.rounds; ++round) {
        const double a = timed([&] { bench::keep(pool.map(spin_or_crash, good)); });
        bool crashed = false;
        const double b = timed([&] {
            try {
                pool.map(spin_or_crash, bad);
            } catch (const multihull::WorkerCrashed&) {
                crashed = true;
            }
        });
        require(crashed, "the crashes");
        single.apply(add_one, 1);
        const double c = timed([&] {
            const auto lost = single.apply_async(end_of_itself, 0);
            require(single.apply(add_one, 1) == 2, "the task after the crash");
            require(lost.exception() != nullptr, "the crash");
        });
        if (round < 0) continue;
        without.push_back(a);
        with.push_back(b);
        crash.push_back(c);
    }
    const double more = median(with) - median(without);
    fmt::print("map of {} times 100 us, 2 workers: {}; {} of them crash: {}, {} more, {} a crash\n", kTasks,
               duration(median(without)), kCrashes, duration(median(with)), duration(more), duration(more / kCrashes));
    fmt::print("a crash alone, until the next task is done: {}\n", duration(median(crash)));
}

void by_speedup(const Settings& settings) {
    const int turns = turns_of(300e6);
    multihull::Pool pool(2);
    std::vector<double> alone, processes, threads;
    for (int round = -1; round < settings.rounds; ++round) {
        const double a = timed([&] { bench::keep(spin(turns)); });
        const double b = timed([&] {
            const auto other = pool.apply_async(spin, turns);
            pool.apply(spin, turns);
            other.get();
        });
        const double c = timed([&] {
            std::thread other([&] { bench::keep(spin(turns)); });
            std::thread second([&] { bench::keep(spin(turns)); });
            other.join();
            second.join();
        });
        if (round < 0) continue;
        alone.push_back(a);
        processes.push_back(2 * a / b);
        threads.push_back(2 * a / c);
    }
    fmt::print("two tasks of {}: {:.3f} times as fast in a pool's two workers, {:.3f} times in two threads\n",
               duration(median(alone)), median(processes), median(threads));
}

}    // namespace

int main(int argc, char** argv) {
    multihull::init(argc, argv);
    Settings settings;
    std::vector<std::string> only;
    CLI::App app("How the costs of a pool grow.");
    app.add_option("--rounds", settings.rounds, "samples of each, of which the median is shown")
        ->check(CLI::PositiveNumber);
    app.add_option("--tasks", settings.most_tasks, "up to how many tasks")->check(CLI::PositiveNumber);
    app.add_option("--bytes", settings.most_bytes, "up to which size of an argument")->check(CLI::PositiveNumber);
    app.add_option("--only", only, "workers, tasks, argument, crashes or speedup")
        ->check(CLI::IsMember({"workers", "tasks", "argument", "crashes", "speedup"}));
    CLI11_PARSE(app, argc, argv);

    fmt::print("{}\n", bench::machine());
    const std::pair<const char*, void (*)(const Settings&)> parts[] = {{"workers", by_workers},
                                                                       {"tasks", by_tasks},
                                                                       {"argument", by_argument},
                                                                       {"crashes", by_crashes},
                                                                       {"speedup", by_speedup}};
    for (const auto& [name, part] : parts) {
        if (!only.empty() && std::find(only.begin(), only.end(), name) == only.end()) continue;
        fmt::print("\n");
        part(settings);
        std::fflush(stdout);
    }
    return 0;
}
