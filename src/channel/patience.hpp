// What a thread does before it sleeps, where going to sleep and being woken would cost more than the wait.
//
// For the calling thread alone: what it has learned is its own.
#pragma once

#include "os/clock.hpp"
#include "os/futex.hpp"

#include <algorithm>
#include <cstdint>
#include <sched.h>
#include <thread>

namespace multihull::channel {

/// Whether something is worth trying: what was in vain is left out the next times, the more of them the more often, up to `kLongest`.
template <int kLongest>
class Habit {
public:
    bool is_due() noexcept {
        if (skip_ == 0) return true;
        --skip_;
        return false;
    }
    void learn(bool helped) noexcept {
        if (helped) {
            penalty_ = std::max(penalty_ / 2, 1);
        } else {
            penalty_ = std::min(penalty_ * 2, kLongest);
            skip_ = penalty_;
        }
    }

private:
    int penalty_ = 1;
    int skip_ = 0;
};

/// Waiting awake pays while the other side is awake too and answers soon; giving way pays where it waits for this very processor, which is
/// where the kernel puts it when the others are fast asleep. Each thread learns which of the two helps.
class Patience {
public:
    /// Waits awake until `ready`, as long as that is worth it; false when it is time to sleep.
    template <class Ready>
    static bool wait_awake(Ready ready) {
        if (several_cores() && watching.is_due() && watch(ready)) return true;
        return (giving_way.is_due() && give_way(ready)) || ready();
    }

private:
    static constexpr std::int64_t kWorthwhile = 10'000;    // ns: about what going to sleep and being woken cost
    static constexpr std::int64_t kAnswer = 100'000;       // ns: more is a stranger's time slice
    static constexpr int kTurnsPerLook = 16;

    static bool several_cores() {
        static const bool several = std::thread::hardware_concurrency() > 1;
        return several;
    }

    template <class Ready>
    static bool watch(Ready ready) {
        const std::int64_t begin = os::now_ns();
        for (int turn = 1; !ready(); ++turn) {
            os::relax_cpu();
            if (turn % kTurnsPerLook == 0 && os::now_ns() - begin > kWorthwhile) {
                watching.learn(false);
                return false;
            }
        }
        watching.learn(true);
        return true;
    }

    // Costs little where nobody else wants the processor, and a time slice where a stranger does.
    template <class Ready>
    static bool give_way(Ready ready) {
        const std::int64_t begin = os::now_ns();
        ::sched_yield();
        giving_way.learn(os::now_ns() - begin < kAnswer);
        return ready();
    }

    static inline constinit thread_local Habit<1024> watching;
    static inline constinit thread_local Habit<1024> giving_way;
};

}    // namespace multihull::channel
