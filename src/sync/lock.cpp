#include <multihull/lock.hpp>

#include "os/clock.hpp"
#include "os/fault.hpp"
#include "shm/objects.hpp"

namespace multihull {

namespace detail {

namespace {

constexpr auto mask_of(shm::ObjectKind kind) { return std::uint32_t{1} << static_cast<std::uint32_t>(kind); }

}    // namespace

class HeldLock {
public:
    explicit HeldLock(ObjectRef object) noexcept : object_(std::move(object)), owner_(shm::this_thread()) {}
    // Whichever thread lets go of the last copy of the exception.
    ~HeldLock() {
        auto& head = object_->head();
        // A forked child's copy of the exception holds nothing.
        if (((shm::this_thread() ^ owner_) & shm::kNumberMask) != 0 || !head.user_lock.is_owner(owner_)) return;
        head.depth.store(0, std::memory_order_relaxed);
        head.user_lock.unlock(owner_);
    }
    HeldLock(const HeldLock&) = delete;
    HeldLock& operator=(const HeldLock&) = delete;

    void mark_consistent() const noexcept { object_->head().user_lock.mark_consistent(owner_); }

private:
    ObjectRef object_;
    shm::ThreadId owner_;
};

LockBase::LockBase(ObjectRef object, bool recursive) noexcept : object_(std::move(object)), recursive_(recursive) {}

ObjectRef LockBase::make(bool recursive) {
    return shm::make_object(recursive ? shm::ObjectKind::rlock : shm::ObjectKind::lock, 0);
}

LockState LockBase::take(std::int64_t deadline) {
    if (object_ == nullptr) throw SyncError("this lock was moved from: copy a lock to share it");
    auto& head = object_->head();
    const shm::ThreadId self = shm::this_thread();
    switch (head.user_lock.lock(self, deadline)) {
        case shm::Acquired::timed_out:
            return LockState::timed_out;
        case shm::Acquired::own:
            if (recursive_) {
                head.depth.fetch_add(1, std::memory_order_relaxed);
                return LockState::acquired;
            }
            if (deadline == 0) return LockState::timed_out;
            throw SyncError(
                "this thread has the Lock already and would wait for itself for ever: use RLock, or unlock it first");
        case shm::Acquired::orphaned:
            head.depth.store(1, std::memory_order_relaxed);
            return LockState::owner_died;
        case shm::Acquired::yes:
            break;
    }
    os::kill_point(os::KillPoint::lock_taken);
    if (recursive_) head.depth.store(1, std::memory_order_relaxed);
    return LockState::acquired;
}

void LockBase::lock() {
    if (take(os::kNever) == LockState::owner_died) throw OwnerDied(std::make_shared<HeldLock>(object_));
}

bool LockBase::try_lock() {
    const LockState state = take(0);
    if (state == LockState::owner_died) throw OwnerDied(std::make_shared<HeldLock>(object_));
    return state == LockState::acquired;
}

bool LockBase::acquire(std::chrono::nanoseconds timeout) {
    const LockState state = take(os::deadline_after(timeout));
    if (state == LockState::owner_died) throw OwnerDied(std::make_shared<HeldLock>(object_));
    return state == LockState::acquired;
}

LockState LockBase::lock_checked() { return take(os::kNever); }
LockState LockBase::lock_checked(std::chrono::nanoseconds timeout) { return take(os::deadline_after(timeout)); }

void LockBase::unlock() {
    auto& head = object_->head();
    const shm::ThreadId self = shm::this_thread();
    if (recursive_ && head.user_lock.is_owner(self)) {
        const std::uint32_t depth = head.depth.load(std::memory_order_relaxed);
        head.depth.store(depth - 1, std::memory_order_relaxed);
        if (depth > 1) return;
    }
    if (!head.user_lock.unlock(self)) {
        throw SyncError("a lock can be given back only by the thread that has it, which this one does not");
    }
}

void LockBase::mark_consistent() {
    if (!object_->head().user_lock.mark_consistent(shm::this_thread())) {
        throw SyncError("only the owner of a lock can say that its data is whole: take the lock first");
    }
}

bool LockBase::is_owned() const noexcept { return object_->head().user_lock.is_owner(shm::this_thread()); }

}    // namespace detail

OwnerDied::OwnerDied(std::shared_ptr<detail::HeldLock> held)
    : Error(
          "a process died while it held this lock, so what the lock protects may be half changed: repair it, then call "
          "mark_consistent()"),
      held_(std::move(held)) {}

void OwnerDied::mark_consistent() const {
    if (held_ == nullptr) {
        throw SyncError("this OwnerDied does not hold the lock: call mark_consistent() of the lock itself");
    }
    held_->mark_consistent();
}

void Codec<Lock>::encode(detail::Writer& writer, const Lock& lock) { detail::encode_object(writer, lock.object_); }
Lock Codec<Lock>::decode(detail::Reader& reader) {
    // What has a lock of its own hands out a Lock that names it.
    return Lock(detail::decode_object(reader, detail::mask_of(shm::ObjectKind::lock) |
                                                  detail::mask_of(shm::ObjectKind::value) |
                                                  detail::mask_of(shm::ObjectKind::array) |
                                                  detail::mask_of(shm::ObjectKind::condition)));
}
void Codec<RLock>::encode(detail::Writer& writer, const RLock& lock) { detail::encode_object(writer, lock.object_); }
RLock Codec<RLock>::decode(detail::Reader& reader) {
    return RLock(detail::decode_object(reader, detail::mask_of(shm::ObjectKind::rlock)));
}

}    // namespace multihull
