// Waiting on a word of shared memory, in whichever process it is mapped.
#pragma once

#include <atomic>
#include <cstdint>

namespace multihull::os {

/// Sleeps while the word equals `expected`, until a wake, a signal or the deadline (monotonic ns; os::kNever: none).
/// False when the deadline has passed.
bool futex_wait(const std::atomic<std::uint32_t>& word, std::uint32_t expected, std::int64_t deadline_ns) noexcept;

/// Wakes up to `count` sleepers on the word; answers how many there were.
int futex_wake(const std::atomic<std::uint32_t>& word, int count) noexcept;
void futex_wake_all(const std::atomic<std::uint32_t>& word) noexcept;

/// A hint to the processor that this is a waiting loop.
inline void relax_cpu() noexcept {
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    asm volatile("isb" ::: "memory");
#endif
}

}    // namespace multihull::os
