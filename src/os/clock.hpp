// Monotonic time in nanoseconds: the same clock in every process of the machine.
#pragma once

#include <chrono>
#include <cstdint>
#include <limits>
#include <time.h>

namespace multihull::os {

inline constexpr std::int64_t kNever = std::numeric_limits<std::int64_t>::max();

inline std::int64_t now_ns() noexcept {
    timespec time;
    ::clock_gettime(CLOCK_MONOTONIC, &time);
    return std::int64_t{time.tv_sec} * 1'000'000'000 + time.tv_nsec;
}

/// A deadline that is `duration` from now; saturates, so that huge durations mean "never".
inline std::int64_t deadline_after(std::chrono::nanoseconds duration) noexcept {
    const std::int64_t now = now_ns();
    const std::int64_t wait = duration.count();
    if (wait <= 0) return now;
    return wait > kNever - now ? kNever : now + wait;
}

/// CPU time that a process has used so far over all its threads; -1 where it can't be told.
inline std::int64_t process_cpu_ns(int pid) noexcept {
    clockid_t clock;
    timespec time;
    if (::clock_getcpuclockid(pid, &clock) != 0 || ::clock_gettime(clock, &time) != 0) return -1;
    return std::int64_t{time.tv_sec} * 1'000'000'000 + time.tv_nsec;
}

inline std::int64_t own_cpu_ns() noexcept {
    timespec time;
    ::clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &time);
    return std::int64_t{time.tv_sec} * 1'000'000'000 + time.tv_nsec;
}

}    // namespace multihull::os
