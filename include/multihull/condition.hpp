// Waiting, with a lock given up meanwhile, until another process says that something has changed.
//
// A handle: copies name the same condition, in whichever process they land. Safe across processes and threads. When a process that
// used the condition dies, everybody who waits is woken, so that no wake-up is lost with it: wait in a loop, or with wait_for().
// Protocol and kill points: src/sync/README.md.
#pragma once

#include <multihull/lock.hpp>

#include <chrono>
#include <cstddef>
#include <cstdint>

namespace multihull {

/// A condition variable and its lock, an RLock of its own unless one is given.
///
/// ```cpp
/// std::unique_lock guard(condition);
/// condition.wait_for([&] { return ready.value(); });
/// ```
class Condition {
public:
    /// A new condition with a lock of its own. Throws StartError when there is no room for another.
    Condition();
    explicit Condition(const Lock& lock);
    explicit Condition(const RLock& lock);

    void lock() { lock_.lock(); }
    bool try_lock() { return lock_.try_lock(); }
    void unlock() { lock_.unlock(); }
    /// Python's names for lock() and unlock().
    void acquire() { lock_.lock(); }
    bool acquire(std::chrono::nanoseconds timeout) { return lock_.acquire(timeout); }
    void release() { lock_.unlock(); }
    /// Says, while holding the lock, that what it protects is whole again after an OwnerDied.
    void mark_consistent() { lock_.mark_consistent(); }

    /// Gives up the lock, however often it was taken, until somebody notifies, and takes it again. May also return when a process has
    /// died. Throws SyncError when the calling thread does not have the lock, and OwnerDied when an owner of the lock died meanwhile:
    /// the caller has the lock then, too.
    void wait();
    /// The same, for that long at most; false when nobody notified in time.
    bool wait(std::chrono::nanoseconds timeout);
    /// Waits until the predicate, called with the lock held, answers true.
    template <class Predicate>
    void wait_for(Predicate predicate) {
        while (!predicate()) wait();
    }
    /// The same, for that long at most; answers what the predicate says at last.
    template <class Predicate>
    bool wait_for(Predicate predicate, std::chrono::nanoseconds timeout) {
        const auto now = std::chrono::steady_clock::now();
        const auto most = std::chrono::steady_clock::time_point::max() - now;
        const auto deadline = timeout < most ? now + timeout : std::chrono::steady_clock::time_point::max();
        while (!predicate()) {
            const auto left = deadline - std::chrono::steady_clock::now();
            if (left <= left.zero() || !wait(left)) return predicate();
        }
        return true;
    }

    /// Wakes that many of those who wait. Throws SyncError when the calling thread does not have the lock.
    void notify(std::size_t count = 1);
    /// C++'s name for notify().
    void notify_one() { notify(1); }
    void notify_all();

private:
    friend struct Codec<Condition>;
    Condition(detail::ObjectRef object, detail::LockBase lock) noexcept
        : object_(std::move(object)), lock_(std::move(lock)) {}
    bool wait_until(std::int64_t deadline);
    void require_lock(const char* what) const;

    detail::ObjectRef object_;
    detail::LockBase lock_;
};

template <>
struct Codec<Condition> {
    static void encode(detail::Writer& writer, const Condition& condition);
    static Condition decode(detail::Reader& reader);
};

}    // namespace multihull
