// How long to wait before MPI is asked again: it has nothing to sleep on.
//
// Awake at first (in a crowd, and where tasks are long, for moments only), then for an eighth of the time since something happened last: who
// waits for an answer waits an eighth longer at most, and who waits for nothing costs next to nothing.
#pragma once

#include "os/clock.hpp"

#include <algorithm>
#include <cstdint>
#include <sched.h>

namespace multihull::mpi {

class Poll {
public:
    static constexpr std::int64_t kLongestRestNs = 1'000'000;
    /// A task that takes so long is worth a message of its own, and that its rank is woken.
    static constexpr std::int64_t kLongTaskNs = 100'000;
    /// And its end is worth that rank 0 is woken while nobody is about to run out of tasks. In a crowd no caller waits awake for it.
    static constexpr std::int64_t kVeryLongTaskNs = 1'000'000;

    /// How long nothing need be looked at, 0 where something may soon, and how long a task takes of those that are waited for, where they
    /// take least; 0 where nobody knows.
    struct Rest {
        std::int64_t ns = 0;
        std::int64_t task_ns = 0;
    };

    /// From now on there are more threads that wait awake than processors.
    void be_crowded() noexcept { crowded_ = true; }
    void something_happened(std::int64_t now_ns) noexcept { last_ns_ = now_ns; }
    /// Gives way to others; at first only in a crowd.
    void give_way(std::int64_t now_ns) const noexcept {
        if (crowded_ || now_ns - last_ns_ > kAtOnceNs) ::sched_yield();
    }
    /// How long to rest where nobody will run out of work meanwhile: a thread that waits awake is not to keep others from computing. A
    /// quarter of the time that workers need for what they have beyond the tasks at hand, of so many nanoseconds each, and no longer than 500
    /// us or an eighth of a task, so that its result comes little later; 0: not at all.
    static std::int64_t rest_ns(std::size_t tasks, std::int64_t task_ns, std::size_t workers) noexcept {
        if (tasks < 2 * workers) return 0;
        const std::int64_t ahead = static_cast<std::int64_t>(tasks / workers - 1) * task_ns;
        return ahead < 4 * kShortestRestNs ? 0 : std::min(ahead / 4, std::clamp(task_ns / 8, kRestNs, kLongestRestNs));
    }
    /// The same where all have a task at hand, for who is woken when the first of them ends.
    static std::int64_t rest_at_hand_ns(std::size_t tasks, std::int64_t task_ns, std::size_t workers) noexcept {
        const std::int64_t rest = tasks < workers ? 0 : std::min(task_ns / 32, kLongestRestNs);
        return rest < kShortestRestNs ? 0 : rest;
    }

    /// 0: not at all, but `give_way`. In a crowd, where tasks are long, nobody waits awake: who gives way to a thread that
    /// computes has to wait until that has had its turn, of milliseconds, while who sleeps is woken where a processor is free.
    std::int64_t pause_ns(std::int64_t now_ns, std::int64_t task_ns = 0) const noexcept {
        const std::int64_t idle = now_ns - last_ns_;
        if (crowded_ && task_ns >= kLongTaskNs && idle < kAwakeNs)
            return std::clamp<std::int64_t>(task_ns / 32, kShortestNs, kAwakeNs);
        if (idle < kAwakeNs) return 0;
        return std::clamp<std::int64_t>(idle / 8, kShortestNs, std::max(kLongestNs, std::min(idle / 1000, kAsleepNs)));
    }

private:
    static constexpr std::int64_t kShortestRestNs = 25'000;
    static constexpr std::int64_t kRestNs = 500'000;
    static constexpr std::int64_t kAtOnceNs = 20'000;
    static constexpr std::int64_t kAwakeNs = 50'000;
    static constexpr std::int64_t kShortestNs = 5'000;
    static constexpr std::int64_t kLongestNs = 1'000'000;
    static constexpr std::int64_t kAsleepNs = 10'000'000;    // after ten seconds of nothing

    bool crowded_ = false;
    std::int64_t last_ns_ = os::now_ns();
};

}    // namespace multihull::mpi
