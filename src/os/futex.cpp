#include "os/futex.hpp"

#include "os/clock.hpp"

#include <array>
#include <cerrno>
#include <climits>
#include <ctime>
#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>

namespace multihull::os {

bool futex_wait(const std::atomic<std::uint32_t>& word, std::uint32_t expected, std::int64_t deadline_ns) noexcept {
    timespec deadline{};
    timespec* limit = nullptr;
    if (deadline_ns != kNever) {
        deadline.tv_sec = deadline_ns / 1'000'000'000;
        deadline.tv_nsec = deadline_ns % 1'000'000'000;
        limit = &deadline;
    }
    // FUTEX_WAIT_BITSET takes an absolute monotonic deadline, so that a signal does not start the wait anew.
    const long result =
        ::syscall(SYS_futex, &word, FUTEX_WAIT_BITSET, expected, limit, nullptr, FUTEX_BITSET_MATCH_ANY);
    return result == 0 || errno != ETIMEDOUT;
}

bool futex_wait_any(std::span<const FutexWord> words, std::int64_t deadline_ns) noexcept {
    std::array<futex_waitv, kMostFutexes> waiters{};
    for (std::size_t i = 0; i < words.size(); ++i) {
        waiters[i].uaddr = reinterpret_cast<std::uintptr_t>(words[i].word);
        waiters[i].val = words[i].expected;
        waiters[i].flags = FUTEX_32;
    }
    const timespec deadline{deadline_ns / 1'000'000'000, deadline_ns % 1'000'000'000};
    const long result = ::syscall(SYS_futex_waitv, waiters.data(), static_cast<unsigned>(words.size()), 0,
                                  deadline_ns == kNever ? nullptr : &deadline, CLOCK_MONOTONIC);
    return result >= 0 || (errno != ENOSYS && errno != EPERM);
}

int futex_wake(const std::atomic<std::uint32_t>& word, int count) noexcept {
    return static_cast<int>(::syscall(SYS_futex, &word, FUTEX_WAKE, count, nullptr, nullptr, 0));
}

void futex_wake_all(const std::atomic<std::uint32_t>& word) noexcept { futex_wake(word, INT_MAX); }

}    // namespace multihull::os
