// Semaphores across processes whose permits come back when their holder dies.
//
// Handles: copies name the same semaphore, in whichever process they land. Safe across processes and threads. Permits belong to the
// process that acquired them, not to a thread. Protocol and kill points: src/sync/README.md.
#pragma once

#include <multihull/detail/shared_object.hpp>
#include <multihull/error.hpp>

#include <chrono>
#include <cstdint>

namespace multihull {

namespace detail {

/// What both semaphores share; src/sync/semaphore.cpp.
class SemaphoreBase {
public:
    /// Takes a permit, waiting for one as long as it takes.
    void acquire();
    /// Takes a permit if there is one now.
    bool try_acquire();
    /// Takes a permit unless that takes longer.
    bool acquire(std::chrono::nanoseconds timeout);
    template <class Rep, class Period>
    bool try_acquire_for(std::chrono::duration<Rep, Period> timeout) {
        return acquire(std::chrono::duration_cast<std::chrono::nanoseconds>(timeout));
    }
    /// Takes a permit for good: it does not come back when this process dies. For permits that count events or items rather than
    /// stand for a thing that is held. False when none came in time.
    bool consume(std::chrono::nanoseconds timeout = std::chrono::nanoseconds::max());

    /// Permits that could be acquired now.
    std::uint32_t value() const noexcept;

    /// These make it BasicLockable, so that std::lock_guard can hold a permit.
    void lock() { acquire(); }
    bool try_lock() { return try_acquire(); }
    void unlock() { release_one(); }

protected:
    explicit SemaphoreBase(ObjectRef object) noexcept : object_(std::move(object)) {}
    static ObjectRef make(std::uint32_t permits, bool bounded);
    bool take(std::int64_t deadline, bool for_good);
    void release_one();

    ObjectRef object_;
};

}    // namespace detail

/// A counter of permits. A process that holds none may release too: that adds a permit, as in Python.
class Semaphore : public detail::SemaphoreBase {
public:
    /// Throws StartError when there is no room for another.
    explicit Semaphore(std::uint32_t permits = 1) : Semaphore(make(permits, false)) {}
    /// Gives back a permit that this process holds, or adds a new one where it holds none.
    void release(std::uint32_t count = 1) {
        while (count-- > 0) release_one();
    }

private:
    friend struct Codec<Semaphore>;
    explicit Semaphore(detail::ObjectRef object) noexcept : SemaphoreBase(std::move(object)) {}
};

/// A fixed number of permits: releasing what this process does not hold throws SyncError.
class BoundedSemaphore : public detail::SemaphoreBase {
public:
    /// Throws StartError when there is no room for another.
    explicit BoundedSemaphore(std::uint32_t permits = 1) : BoundedSemaphore(make(permits, true)) {}
    /// Gives back a permit that this process holds. Throws SyncError where it holds none.
    void release(std::uint32_t count = 1) {
        while (count-- > 0) release_one();
    }

private:
    friend struct Codec<BoundedSemaphore>;
    explicit BoundedSemaphore(detail::ObjectRef object) noexcept : SemaphoreBase(std::move(object)) {}
};

template <>
struct Codec<Semaphore> {
    static void encode(detail::Writer& writer, const Semaphore& semaphore);
    static Semaphore decode(detail::Reader& reader);
};
template <>
struct Codec<BoundedSemaphore> {
    static void encode(detail::Writer& writer, const BoundedSemaphore& semaphore);
    static BoundedSemaphore decode(detail::Reader& reader);
};

}    // namespace multihull
