// Locks across processes: whoever dies while he holds one leaves it to the next, who is told.
//
// A Lock is a handle: copies name the same lock, in whichever process they land. Safe across processes and threads. The lock belongs
// to the thread that locked it. Its protocol and every point where a process may die in it: src/sync/README.md.
#pragma once

#include <multihull/detail/shared_object.hpp>
#include <multihull/error.hpp>

#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>

namespace multihull {

/// How an attempt to take a lock ended, for those who would rather ask than catch OwnerDied.
enum class LockState {
    acquired,    ///< The caller has the lock.
    owner_died,    ///< The caller has the lock; an owner died while it held it and nobody has said since that the data is whole.
    timed_out,    ///< The caller does not have the lock.
};

namespace detail {

/// A lock that is held by an exception, and given back when the last copy of it is gone.
class HeldLock;

/// What Lock and RLock share; src/sync/lock.cpp.
class LockBase {
public:
    /// Takes the lock, waiting for it as long as it takes. Throws OwnerDied when an owner died while it held it, and SyncError where
    /// waiting would never end because the calling thread has it already.
    void lock();
    /// Takes the lock if nobody has it. Throws as lock().
    bool try_lock();
    /// Takes the lock unless that takes longer. Throws as lock().
    template <class Rep, class Period>
    bool try_lock_for(std::chrono::duration<Rep, Period> timeout) {
        return acquire(std::chrono::duration_cast<std::chrono::nanoseconds>(timeout));
    }
    template <class Clock, class Duration>
    bool try_lock_until(std::chrono::time_point<Clock, Duration> time) {
        return acquire(std::chrono::duration_cast<std::chrono::nanoseconds>(time - Clock::now()));
    }
    /// Gives the lock back. Throws SyncError when the calling thread does not have it.
    void unlock();

    /// Python's names for lock(), try_lock_for() and unlock().
    void acquire() { lock(); }
    bool acquire(std::chrono::nanoseconds timeout);
    void release() { unlock(); }

    /// Takes the lock and answers how that went, instead of throwing when an owner died.
    LockState lock_checked();
    LockState lock_checked(std::chrono::nanoseconds timeout);

    /// Says, while holding the lock, that what it protects is whole again: nobody else is told of the death. Throws SyncError when
    /// the calling thread does not have the lock.
    void mark_consistent();

    /// Whether the calling thread has the lock.
    bool is_owned() const noexcept;

protected:
    friend class HeldLock;
    friend class ConditionAccess;

    LockBase(ObjectRef object, bool recursive) noexcept;
    LockState take(std::int64_t deadline);
    const ObjectRef& object() const noexcept { return object_; }

    static ObjectRef make(bool recursive);

    ObjectRef object_;
    bool recursive_;
};

}    // namespace detail

/// Thrown by whoever takes a lock whose owner died, or after that until somebody says that the data is whole. The lock is held by the
/// exception, and given back, still doubtful, when its last copy is gone; so the handler may repair the data first:
///
/// ```cpp
/// try {
///     std::lock_guard guard(lock);
///     ...
/// } catch (const multihull::OwnerDied& died) {
///     repair();                  // nobody else has the lock now
///     died.mark_consistent();    // the next one will not be told
/// }
/// ```
class OwnerDied : public Error {
public:
    explicit OwnerDied(std::shared_ptr<detail::HeldLock> held);
    /// Says that the data is whole again.
    void mark_consistent() const;

private:
    std::shared_ptr<detail::HeldLock> held_;
};

/// A lock that one thread of one process has at a time; meets TimedLockable, so std::lock_guard, std::unique_lock and
/// std::scoped_lock work with it. Taking it twice in one thread throws SyncError.
///
/// ```cpp
/// void say(multihull::Lock lock, int number) {
///     std::lock_guard guard(lock);
///     std::cout << "hello world " << number << std::endl;
/// }
/// ```
class Lock : public detail::LockBase {
public:
    /// A new lock. Throws StartError when there is no room for another.
    Lock() : Lock(make(false)) {}

private:
    friend struct Codec<Lock>;
    template <class T>
    friend class Value;
    template <class T>
    friend class Array;
    friend class Condition;
    explicit Lock(detail::ObjectRef object) noexcept : LockBase(std::move(object), false) {}
};

/// A lock that its owner may take again, and must give back as often.
class RLock : public detail::LockBase {
public:
    /// A new lock. Throws StartError when there is no room for another.
    RLock() : RLock(make(true)) {}

private:
    friend struct Codec<RLock>;
    friend class Condition;
    explicit RLock(detail::ObjectRef object) noexcept : LockBase(std::move(object), true) {}
};

template <>
struct Codec<Lock> {
    static void encode(detail::Writer& writer, const Lock& lock);
    static Lock decode(detail::Reader& reader);
};
template <>
struct Codec<RLock> {
    static void encode(detail::Writer& writer, const RLock& lock);
    static RLock decode(detail::Reader& reader);
};

}    // namespace multihull
