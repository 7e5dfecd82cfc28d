// Proxies of what synchronizes in a manager's server: locks, semaphores, conditions, events, barriers. They work between processes of
// any family and any language, on any machine that reaches the server; where all processes come from one program, Lock and the others
// of sync.hpp do without a server.
//
// An RLock and a Condition belong to the thread that took them, and our servers give them back when it ends. A Lock and permits belong to
// its process, whose other threads may release them; they are given back when it is killed, but stay taken when it ends by itself, as
// with Python. What they have in common, and what their calls throw: see proxy.hpp.
#pragma once

#include <multihull/proxy.hpp>

#include <chrono>
#include <cstddef>
#include <functional>
#include <optional>
#include <utility>

namespace multihull {

namespace detail {

/// What has acquire() and release().
class AcquirerProxy : public BaseProxy {
public:
    using BaseProxy::BaseProxy;

    /// Waits until it is taken.
    void acquire() const { call("acquire", true); }
    /// The same for at most `timeout`; false when it was not.
    bool acquire(std::chrono::nanoseconds timeout) const { return call("acquire", true, seconds(timeout)).as_bool(); }
    /// Takes it if it can be had now.
    bool try_acquire() const { return call("acquire", false).as_bool(); }
    /// Gives it back. Throws SyncError when it is not held.
    void release() const;
};

/// What is also a lock for std::lock_guard, std::unique_lock and std::scoped_lock.
class LockableProxy : public AcquirerProxy {
public:
    using AcquirerProxy::AcquirerProxy;

    void lock() const { acquire(); }
    void unlock() const { release(); }
    bool try_lock() const { return try_acquire(); }
    template <class Rep, class Period>
    bool try_lock_for(std::chrono::duration<Rep, Period> timeout) const {
        return acquire(std::chrono::ceil<std::chrono::nanoseconds>(timeout));
    }
    template <class Clock, class Duration>
    bool try_lock_until(std::chrono::time_point<Clock, Duration> end) const {
        return try_lock_for(end - Clock::now());
    }
};

}    // namespace detail

/// A lock: `const std::lock_guard guard(lock);`. May be given back by another thread, as Python's.
class LockProxy : public detail::LockableProxy {
public:
    explicit LockProxy(const Object& object) : LockProxy(detail::reference_from(object, "AcquirerProxy")) {}
    explicit LockProxy(detail::ProxyRef reference) : LockableProxy(std::move(reference)) {}
};

/// A lock that one thread may take several times, and gives back as often.
class RLockProxy : public detail::LockableProxy {
public:
    explicit RLockProxy(const Object& object) : RLockProxy(detail::reference_from(object, "AcquirerProxy")) {}
    explicit RLockProxy(detail::ProxyRef reference) : LockableProxy(std::move(reference)) {}
};

/// Permits that are taken and given back.
class SemaphoreProxy : public detail::AcquirerProxy {
public:
    explicit SemaphoreProxy(const Object& object) : SemaphoreProxy(detail::reference_from(object, "AcquirerProxy")) {}
    explicit SemaphoreProxy(detail::ProxyRef reference) : AcquirerProxy(std::move(reference)) {}
};

/// The same, but release() throws SyncError when there were all permits already.
class BoundedSemaphoreProxy : public detail::AcquirerProxy {
public:
    explicit BoundedSemaphoreProxy(const Object& object)
        : BoundedSemaphoreProxy(detail::reference_from(object, "AcquirerProxy")) {}
    explicit BoundedSemaphoreProxy(detail::ProxyRef reference) : AcquirerProxy(std::move(reference)) {}
};

/// A lock with which to wait until another thread says that something has changed.
class ConditionProxy : public detail::LockableProxy {
public:
    explicit ConditionProxy(const Object& object) : ConditionProxy(detail::reference_from(object, "ConditionProxy")) {}
    explicit ConditionProxy(detail::ProxyRef reference) : LockableProxy(std::move(reference)) {}

    /// Gives the lock back, waits to be notified, and takes it again. Throws SyncError when the caller does not hold it.
    void wait() const { wait_seconds({}); }
    /// The same for at most `timeout`; false when nobody notified.
    bool wait(std::chrono::nanoseconds timeout) const { return wait_seconds(detail::seconds(timeout)); }
    /// Waits until the predicate holds, looking again after each notification.
    template <std::predicate Predicate>
    void wait_for(Predicate predicate) const {
        while (!predicate()) wait();
    }
    /// The same for at most `timeout`: what the predicate says then.
    template <std::predicate Predicate>
    bool wait_for(Predicate predicate, std::chrono::nanoseconds timeout) const {
        const auto end = std::chrono::steady_clock::now() + timeout;
        while (!predicate()) {
            const auto left = end - std::chrono::steady_clock::now();
            if (left <= left.zero()) return predicate();
            wait(left);
        }
        return true;
    }
    /// Wakes up to `count` threads that wait. Throws SyncError when the caller does not hold the lock.
    void notify(std::size_t count = 1) const;
    void notify_all() const;

private:
    bool wait_seconds(const Object& timeout) const;
};

/// A flag that threads can wait for.
class EventProxy : public BaseProxy {
public:
    explicit EventProxy(const Object& object) : EventProxy(detail::reference_from(object, "EventProxy")) {}
    explicit EventProxy(detail::ProxyRef reference) : BaseProxy(std::move(reference)) {}

    void set() const { call("set"); }
    void clear() const { call("clear"); }
    bool is_set() const { return call("is_set").as_bool(); }
    void wait() const { call("wait", nullptr); }
    /// Waits for at most `timeout`; false when it was not set.
    bool wait(std::chrono::nanoseconds timeout) const { return call("wait", detail::seconds(timeout)).as_bool(); }
};

/// Holds up its parties until all have come.
class BarrierProxy : public BaseProxy {
public:
    explicit BarrierProxy(const Object& object) : BarrierProxy(detail::reference_from(object, "BarrierProxy")) {}
    explicit BarrierProxy(detail::ProxyRef reference) : BaseProxy(std::move(reference)) {}

    /// Waits for the others; answers a number from 0 to parties() - 1, another one for each. Throws BrokenBarrier.
    std::size_t wait() const { return call("wait", nullptr).as<std::size_t>(); }
    /// The same for at most `timeout`: the barrier is then broken for all.
    std::size_t wait(std::chrono::nanoseconds timeout) const {
        return call("wait", detail::seconds(timeout)).as<std::size_t>();
    }
    void abort() const { call("abort"); }
    void reset() const { call("reset"); }
    std::size_t parties() const { return call("__getattribute__", "parties").as<std::size_t>(); }
    std::size_t n_waiting() const { return call("__getattribute__", "n_waiting").as<std::size_t>(); }
    bool broken() const { return call("__getattribute__", "broken").as_bool(); }
};

}    // namespace multihull
