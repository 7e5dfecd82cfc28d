// Calls that wait for something of a referent, oldest first. Under the referent's lock.
#pragma once

#include "manager/referent.hpp"

#include <algorithm>
#include <deque>
#include <memory>
#include <optional>
#include <utility>

namespace multihull::detail {

struct Waiter {
    std::shared_ptr<ParkedCall> call;
    Caller caller;
};

/// Drops what a caller that has ended waited for. Its calls are claimed by who told.
template <class T>
void drop_waiters(std::deque<T>& waiters, const Caller& caller, bool process_ended) {
    std::erase_if(waiters, [&](const T& waiter) {
        return process_ended ? waiter.caller.process == caller.process : waiter.caller == caller;
    });
}

/// Takes out the one whose time is over; nothing where it has been served meanwhile. A caller waits for one thing at a time.
template <class T>
std::optional<T> take_waiter(std::deque<T>& waiters, const Caller& caller) {
    const auto found = std::ranges::find_if(waiters, [&](const T& waiter) { return waiter.caller == caller; });
    if (found == waiters.end()) return std::nullopt;
    std::optional<T> waiter(std::move(*found));
    waiters.erase(found);
    return waiter;
}

}    // namespace multihull::detail
