// The tasks that all sides of script/bench --mpi do, and how results are written down: `name seconds` a line.
#pragma once

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <span>
#include <string_view>
#include <vector>

namespace works {

inline constexpr int kCubes = 999;
inline constexpr int kTiny = 20'000;
inline constexpr std::size_t kBig = 200;
inline constexpr std::size_t kBigBytes = std::size_t{1} << 20;
/// Passes over the big arguments: the first ones, in which all processes touch their memory, are not counted.
inline constexpr int kBigPasses = 6;
inline constexpr int kBigWarmUp = 2;
inline constexpr int kLong = 100;
inline constexpr int kLongMs = 10;
inline constexpr int kSingles = 300;

inline std::int64_t cube(std::int64_t x) { return x * x * x; }

inline std::uint64_t sum(std::span<const std::uint64_t> values) {
    std::uint64_t total = 0;
    for (const std::uint64_t value : values) total += value;
    return total;
}

/// Computes for so long, by the processor's own time.
inline int busy(int milliseconds) {
    const auto own_ns = [] {
        timespec time;
        ::clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
        return std::int64_t{time.tv_sec} * 1'000'000'000 + time.tv_nsec;
    };
    const std::int64_t end = own_ns() + std::int64_t{milliseconds} * 1'000'000;
    while (own_ns() < end) {}
    return milliseconds;
}

/// The works whose names are a program's arguments; all of them where it has none.
class Selection {
public:
    Selection(int argc, char** argv) : names_(argv + 1, argv + argc) {}
    bool operator()(std::string_view name) const {
        return names_.empty() || std::find(names_.begin(), names_.end(), name) != names_.end();
    }

private:
    std::vector<std::string_view> names_;
};

class Stopwatch {
public:
    double seconds() const { return std::chrono::duration<double>(std::chrono::steady_clock::now() - start_).count(); }

private:
    std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
};

inline void write_down(const char* name, double seconds) {
    std::printf("%s %.9f\n", name, seconds);
    std::fflush(stdout);
}

inline double median(std::vector<double> values) {
    std::nth_element(values.begin(), values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2), values.end());
    return values[values.size() / 2];
}

}    // namespace works
