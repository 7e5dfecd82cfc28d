// How ranks of one machine wake one another: MPI has nothing to sleep on.
//
// A word of shared memory for each rank, made by rank 0. Who has nothing to do announces that it is about to sleep, asks MPI once more, and
// sleeps on its word. Who has given MPI something for a rank rings: takes the announcement back, and wakes it.
//
// Wait-free but for the sleep. A rank that dies here leaves nothing undone but a ring. What it said is heard when the sleeper's deadline has
// passed, so nobody sleeps without one while something is expected.
//
// Invariants
// (1) The word is written before MPI is asked for the last time, and read after MPI was given the message: one of both sees the other.
// (2) Only the word's rank sets it, and anybody takes it back.
#pragma once

#include "os/futex.hpp"
#include "os/memory.hpp"

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace multihull::mpi {

class Bells {
public:
    /// Where other processes of this machine and user find them.
    struct Address {
        std::int32_t pid = 0;
        std::int32_t descriptor = -1;    ///< Negative: nowhere.
        std::uint64_t key[2] = {};       ///< Random.
    };

    Bells() = default;
    /// Makes them. Throws std::system_error.
    Bells(std::size_t ranks, std::span<const std::uint64_t, 2> key);
    /// Those of another process. Throws std::system_error or Error where this one may not, or something else is there by now.
    Bells(std::size_t ranks, const Address& address);

    /// Whether the kernel lets a thread sleep on several words (Linux 5.16), which sleep() needs.
    static bool supported() noexcept;

    explicit operator bool() const noexcept { return static_cast<bool>(mapping_); }
    Address address() const noexcept;
    /// From now on nobody new finds them.
    void close_descriptor() noexcept { fd_.reset(); }

    /// Behind what was given to MPI for that rank.
    void ring(std::size_t rank) const noexcept {
        full_fence();
        ring_behind_fence(rank);
    }
    static void full_fence() noexcept;
    void ring_behind_fence(std::size_t rank) const noexcept;

    /// To be called before MPI is asked for the last time.
    void announce_sleep(std::size_t rank) const noexcept;
    void stay_awake(std::size_t rank) const noexcept;
    /// Returns when that rank has been rung since it announced this (true), one of the other words has changed, or the deadline (monotonic
    /// ns) has passed; also for a signal. The first of the words is this function's to fill in.
    bool sleep(std::size_t rank, std::span<os::FutexWord> words, std::int64_t deadline_ns) const noexcept;

private:
    static constexpr std::uint32_t kAsleep = 1;
    struct alignas(64) Line {
        std::atomic<std::uint32_t> word;
    };
    struct alignas(64) Head {
        std::uint64_t key[2];
    };

    static std::size_t bytes(std::size_t ranks) noexcept { return sizeof(Head) + ranks * sizeof(Line); }
    Head& head() const noexcept { return *reinterpret_cast<Head*>(mapping_.data()); }
    std::atomic<std::uint32_t>& word(std::size_t rank) const noexcept {
        return reinterpret_cast<Line*>(mapping_.data() + sizeof(Head))[rank].word;
    }

    os::Fd fd_;
    os::Mapping mapping_;
};

/// When one rank sleeps, so that nothing is missed: the first time that it wants to, it is to ask MPI once more.
class Sleeper {
public:
    Sleeper(const Bells& bells, std::size_t rank) noexcept : bells_(bells), rank_(rank) {}

    /// Whether there are bells.
    bool hears() const noexcept { return static_cast<bool>(bells_); }
    /// True when it was announced before, and nothing has come since: now it may.
    bool may_sleep() noexcept;
    /// Something has come, or it is to look by itself.
    void stay_awake() noexcept;
    /// What else ends the next sleep, to be added to: the first one is the bell's.
    std::vector<os::FutexWord>& words() noexcept;
    /// As that of Bells; no longer than kUnrungNs.
    void sleep(std::int64_t deadline_ns) noexcept;

private:
    /// Who was rung, and found nothing, is told of something that is on its way: it looks again after this, and ten times that.
    static constexpr std::int64_t kOnItsWayNs = 100'000;
    static constexpr std::int64_t kUnrungNs = 10'000'000;

    const Bells& bells_;
    const std::size_t rank_;
    std::vector<os::FutexWord> words_ = std::vector<os::FutexWord>(1);
    bool announced_ = false;
    std::int64_t longest_ns_ = kUnrungNs;
};

}    // namespace multihull::mpi
