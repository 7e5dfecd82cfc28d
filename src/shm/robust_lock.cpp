#include "shm/robust_lock.hpp"

#include "os/clock.hpp"
#include "os/fault.hpp"
#include "os/futex.hpp"
#include "shm/region.hpp"

#include <multihull/error.hpp>

#include <algorithm>
#include <climits>
#include <thread>

namespace multihull::shm {

namespace {

// How long a sleeper sleeps before it looks whether the owner still lives. The supervisors of dead processes wake sleepers at
// once; this is for the deaths that nobody supervises.
constexpr std::int64_t kLook = 100'000'000;
// About 2 us of waiting awake: what an owner on another core needs for a short piece of work.
constexpr int kSpins = 10;

std::atomic<std::uint32_t> thread_count{0};
constinit thread_local ThreadId identity = 0;

bool worth_spinning() noexcept {
    static const bool several = std::thread::hardware_concurrency() > 1;
    return several;
}

}    // namespace

ThreadId this_thread() {
    if (identity != 0) [[likely]] {
        return identity;
    }
    const std::uint32_t number = Region::instance().own_number();
    if (number == 0) {
        throw StartError("8190 processes of this program use shared objects at once: end some before starting more");
    }
    const std::uint32_t place = thread_count.fetch_add(1, std::memory_order_relaxed) % (1U << 17);
    identity = number | place << 13;
    return identity;
}

void forget_thread() noexcept { identity = 0; }

Acquired RobustLock::lock_slow(ThreadId self, std::int64_t deadline) noexcept {
    std::uint32_t mark = 0;    // kWaiters once this thread has slept: others may still sleep
    int spins = worth_spinning() ? kSpins : 0;
    std::uint32_t word = word_.load(std::memory_order_relaxed);
    for (;;) {
        if ((word & kOwnerMask) == 0) {
            if (word_.compare_exchange_weak(word, self | (word & (kOrphaned | kWaiters)) | mark,
                                            std::memory_order_acquire, std::memory_order_relaxed)) {
                os::kill_point(os::KillPoint::lock_taken);
                return (word & kOrphaned) != 0 ? Acquired::orphaned : Acquired::yes;
            }
            continue;
        }
        if ((word & kOwnerMask) == self) return Acquired::own;
        if (deadline == 0) return Acquired::timed_out;
        if (spins > 0) {
            --spins;
            os::relax_cpu();
            word = word_.load(std::memory_order_relaxed);
            continue;
        }
        if ((word & kWaiters) == 0) {
            if (!word_.compare_exchange_weak(word, word | kWaiters, std::memory_order_relaxed)) continue;
            word |= kWaiters;
        }
        mark = kWaiters;
        os::kill_point(os::KillPoint::lock_before_sleep);
        const std::int64_t now = os::now_ns();
        if (now >= deadline) return Acquired::timed_out;
        if (!os::futex_wait(word_, word, std::min(deadline, now + kLook))) {
            Region::instance().recover_if_dead(word & kNumberMask, this);
        }
        word = word_.load(std::memory_order_relaxed);
    }
}

bool RobustLock::unlock_slow(ThreadId self) noexcept {
    std::uint32_t word = word_.load(std::memory_order_relaxed);
    if ((word & kOwnerMask) != self) return false;
    while (!word_.compare_exchange_weak(word, word & kOrphaned, std::memory_order_seq_cst, std::memory_order_relaxed)) {
    }
    os::kill_point(os::KillPoint::lock_released);
    if ((word & kWaiters) != 0) os::futex_wake(word_, 1);
    return true;
}

bool RobustLock::mark_consistent(ThreadId self) noexcept {
    if (!is_owner(self)) return false;
    word_.fetch_and(~kOrphaned, std::memory_order_relaxed);
    return true;
}

void RobustLock::recover(std::uint32_t number) noexcept {
    std::uint32_t word = word_.load(std::memory_order_relaxed);
    while ((word & kOwnerMask) != 0 && (word & kNumberMask) == number) {
        if (word_.compare_exchange_weak(word, kOrphaned, std::memory_order_acq_rel, std::memory_order_relaxed)) break;
    }
    // The dead may also have been woken by an unlock, and not have passed it on.
    os::futex_wake(word_, INT_MAX);
}

}    // namespace multihull::shm
