// Waiting until something about a shared object is so: the loop that Semaphore, Barrier and Queue have in common.
#pragma once

#include "os/clock.hpp"
#include "shm/objects.hpp"
#include "shm/wait_set.hpp"

namespace multihull::sync {

/// Calls `attempt` under the object's guard until it answers true or the deadline has passed, sleeping in between; `look` is
/// called now and then without the guard, to find processes whose death nobody has told of. True when `attempt` succeeded.
template <class Attempt, class Look>
bool wait_until(shm::ObjectHead& head, shm::WaitSet& waiters, std::int64_t deadline, Attempt attempt, Look look) {
    const shm::ThreadId self = shm::this_thread();
    std::uint32_t place = shm::WaitSet::kNoPlace;
    const auto enlist = [&] {
        const shm::Guard guard(head, self);
        if (attempt()) return true;
        place = waiters.enlist(self);
        return false;
    };
    if (deadline == 0 || deadline <= os::now_ns()) {
        const shm::Guard guard(head, self);
        return attempt();
    }
    if (enlist()) return true;
    for (;;) {
        const bool woken = waiters.sleep(place, deadline);
        const bool late = os::now_ns() >= deadline;
        if (woken && !late) {
            if (enlist()) return true;
            continue;
        }
        if (!late) look();
        bool done = false;
        bool unused = false;    // a wake-up that another could do with
        {
            const shm::Guard guard(head, self);
            done = attempt();
            if (done || late) unused = woken ? !done : !waiters.withdraw(place);
        }
        if (unused) waiters.wake_one();
        if (done || late) return done;
    }
}

/// Looks for dead processes among those that `holds(number)` names.
template <class Holds>
void look_for_dead(Holds holds) {
    auto& region = shm::Region::instance();
    const std::uint32_t highest = region.header().process_high_water.load(std::memory_order_relaxed);
    for (std::uint32_t number = 1; number <= highest; ++number) {
        if (holds(number)) region.recover_if_dead(number);
    }
}

}    // namespace multihull::sync
