// Waiting on a word of shared memory, in whichever process it is mapped.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <span>

namespace multihull::os {

/// Sleeps while the word equals `expected`, until a wake, a signal or the deadline (monotonic ns; os::kNever: none).
/// False when the deadline has passed.
bool futex_wait(const std::atomic<std::uint32_t>& word, std::uint32_t expected, std::int64_t deadline_ns) noexcept;

/// A word, and the value that it has while there is nothing to wake up for.
struct FutexWord {
    const std::atomic<std::uint32_t>* word;
    std::uint32_t expected;
};
inline constexpr std::size_t kMostFutexes = 128;

/// Sleeps while all the words, at most kMostFutexes, have their values, until a wake-up of one, a signal or the deadline. False, at once,
/// where the kernel can't (before 5.16, or not allowed to).
bool futex_wait_any(std::span<const FutexWord> words, std::int64_t deadline_ns) noexcept;

/// Wakes up to `count` sleepers on the word; answers how many there were.
int futex_wake(const std::atomic<std::uint32_t>& word, int count) noexcept;
void futex_wake_all(const std::atomic<std::uint32_t>& word) noexcept;

/// Asks for a cache line that is about to be written, so that the write need not wait until other cores have given it up.
inline void prefetch_for_write(const void* place) noexcept {
#if defined(__x86_64__)
    asm volatile("prefetchw %0"
                 :
                 : "m"(*static_cast<const char*>(place)));    // a processor without it takes it as a no-op
#else
    __builtin_prefetch(place, 1);
#endif
}

/// A hint to the processor that this is a waiting loop.
inline void relax_cpu() noexcept {
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    asm volatile("isb" ::: "memory");
#endif
}

}    // namespace multihull::os
