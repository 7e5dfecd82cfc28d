// A lock in shared memory that outlives its owners: one word, which names the owner.
//
// Safe across processes and threads. A process that dies while it owns the lock leaves it to the next that asks, which is told;
// the protocol and its kill points are in src/sync/README.md.
//
// Invariants
// (1) The owner bits are 0 (nobody) or name one thread of one process; only that thread sets them, by compare-and-swap from 0, and
//     only it sets them back to 0, or the recovery for its dead process does.
// (2) kOrphaned is set by the recovery, and cleared by an owner who says that the data is whole again.
// (3) kWaiters is set before anybody sleeps on the word; whoever takes it away by unlocking wakes one.
// (4) Every sleep is bounded (kLook), after which the sleeper looks whether the owner still lives.
#pragma once

#include <atomic>
#include <cstdint>

namespace multihull::shm {

/// A thread among all of the family: the number of its process (13 bits) and its own place in it (17 bits). Never 0.
using ThreadId = std::uint32_t;

/// The calling thread. Throws StartError when the family has too many processes.
ThreadId this_thread();
/// In a forked child, whose thread is another from now on.
void forget_thread() noexcept;

inline constexpr std::uint32_t kNumberMask = (1U << 13) - 1;
inline constexpr std::uint32_t kOwnerMask = (1U << 30) - 1;
inline constexpr std::uint32_t kOrphaned = 1U << 30;
inline constexpr std::uint32_t kWaiters = 1U << 31;

enum class Acquired { yes, orphaned, timed_out, own };

class RobustLock {
public:
    /// Takes the lock, waiting until `deadline` (monotonic ns). `orphaned`: taken, and an owner died while it held it, or nobody has
    /// said yet that the data is whole; `own`: the caller has it already.
    Acquired lock(ThreadId self, std::int64_t deadline) noexcept {
        std::uint32_t nobody = 0;
        if (word_.compare_exchange_strong(nobody, self, std::memory_order_acquire, std::memory_order_relaxed)) {
            return Acquired::yes;
        }
        return lock_slow(self, deadline);
    }
    /// Gives it back; false when the caller does not have it.
    bool unlock(ThreadId self) noexcept {
        std::uint32_t mine = self;
        if (word_.compare_exchange_strong(mine, 0, std::memory_order_seq_cst, std::memory_order_relaxed)) return true;
        return unlock_slow(self);
    }
    /// Says, as its owner, that what the lock protects is whole again; false when the caller does not have it.
    bool mark_consistent(ThreadId self) noexcept;
    bool is_owner(ThreadId self) const noexcept { return (word_.load(std::memory_order_relaxed) & kOwnerMask) == self; }
    bool is_locked() const noexcept { return (word_.load(std::memory_order_relaxed) & kOwnerMask) != 0; }

    /// Leaves it to the next one if the process with that number had it, and wakes everybody who may wait for it.
    void recover(std::uint32_t number) noexcept;
    /// As it is in fresh memory.
    void reset() noexcept { word_.store(0, std::memory_order_relaxed); }

private:
    Acquired lock_slow(ThreadId self, std::int64_t deadline) noexcept;
    bool unlock_slow(ThreadId self) noexcept;

    std::atomic<std::uint32_t> word_;
};

}    // namespace multihull::shm
