// Those who sleep until something about a shared object changes: a place for each, so that every wake-up has one receiver.
//
// Safe across processes and threads, without a lock. Part of a shared object; reads as empty where its memory is zero.
//
// Invariants
// (1) places_[i].owner goes from 0 to a thread by that thread's compare-and-swap, and back by that thread, or by the recovery
//     when its process is dead.
// (2) A bit in waiting_ is set by the owner of the place. Whoever clears it, waker or owner, has decided the wake-up: exactly one.
// (3) The waker that cleared a bit stores kGranted into the place's word, then wakes it. A waker that dies between the two loses
//     that wake-up, as does a sleeper that dies with it; the recovery of either grants every place. So whoever is woken looks again.
// (4) Every sleep is bounded. A sleeper that wakes up by itself and finds its bit gone takes that for a wake-up.
//
// No wake-up is lost but with the process that it was decided by or for, which the recovery makes up for: tests/model/wait_set.pml.
#pragma once

#include "shm/robust_lock.hpp"

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>

namespace multihull::shm {

class WaitSet {
public:
    static constexpr std::size_t kPlaces = 256;
    /// The place of one who found none free: it sleeps for a short time only.
    static constexpr std::uint32_t kNoPlace = ~std::uint32_t{0};
    /// What a place's word holds.
    static constexpr std::uint32_t kWaiting = 1;
    static constexpr std::uint32_t kGranted = 2;

    /// Whether somebody may sleep. Read with seq_cst after the change that they wait for was made with seq_cst.
    bool anybody() const noexcept {
        for (const auto& word : waiting_) {
            if (word.load(std::memory_order_seq_cst) != 0) return true;
        }
        return false;
    }

    /// Takes a place, to be followed by a last look at what is waited for, then by sleep() or withdraw().
    std::uint32_t enlist(ThreadId self) noexcept;
    /// Sleeps until a wake-up or the deadline (monotonic ns), but at most 0.1 s. True when it was woken: the place is then left.
    bool sleep(std::uint32_t place, std::int64_t deadline) noexcept;
    /// For those who sleep in several sets at once: the word of their place, which is kWaiting until there is a wake-up for it, and then
    /// whether there was one: the place is left where this answers true.
    const std::atomic<std::uint32_t>& word(std::uint32_t place) const noexcept { return places_[place].word; }
    bool leave_if_woken(std::uint32_t place) noexcept;
    /// Leaves the place. False when a wake-up had been decided for it already, which the caller now has.
    bool withdraw(std::uint32_t place) noexcept;

    /// Wakes one; false when nobody waits.
    bool wake_one() noexcept;
    void wake_all() noexcept;
    /// Wakes the one in that place, whoever it is, for no reason that others could do with.
    void interrupt(std::uint32_t place) noexcept;
    /// Wakes everybody, because one who was woken, or who was waking, may have died; the dead one's own places are free again.
    void recover(std::uint32_t number) noexcept;

private:
    struct Place {
        std::atomic<std::uint32_t> owner;
        std::atomic<std::uint32_t> word;
    };

    void grant(std::uint32_t place) noexcept;

    std::array<std::atomic<std::uint64_t>, kPlaces / 64> waiting_;
    std::atomic<std::uint32_t> turn_;    // where the next search for a sleeper begins, so that none is always last
    std::array<Place, kPlaces> places_;
};

}    // namespace multihull::shm
