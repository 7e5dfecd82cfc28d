#include <multihull/condition.hpp>

#include "os/clock.hpp"
#include "shm/objects.hpp"
#include "shm/wait_set.hpp"

namespace multihull {

namespace {

// The head's own lock is the condition's, where none was given.
struct ConditionData {
    shm::WaitSet waiters;
};

ConditionData& data_of(shm::ObjectHead& head) { return *reinterpret_cast<ConditionData*>(&head + 1); }

void recover(shm::ObjectHead& head, std::uint32_t number) { data_of(head).waiters.recover(number); }

const shm::RegisterKind kRegistered(shm::ObjectKind::condition, {recover, nullptr, nullptr});

constexpr std::uint32_t mask_of(shm::ObjectKind kind) { return 1U << static_cast<std::uint32_t>(kind); }

}    // namespace

namespace detail {

// What a condition needs of its lock beyond what everybody may do.
class ConditionAccess {
public:
    static LockBase make(ObjectRef object, bool recursive) { return {std::move(object), recursive}; }
    static const ObjectRef& object(const LockBase& lock) { return lock.object_; }
    static bool recursive(const LockBase& lock) { return lock.recursive_; }
    static LockState take(LockBase& lock) { return lock.take(os::kNever); }
};

}    // namespace detail

Condition::Condition()
    : object_(shm::make_object(shm::ObjectKind::condition, sizeof(ConditionData))),
      lock_(detail::ConditionAccess::make(object_, true)) {}
Condition::Condition(const Lock& lock)
    : object_(shm::make_object(shm::ObjectKind::condition, sizeof(ConditionData))), lock_(lock) {}
Condition::Condition(const RLock& lock)
    : object_(shm::make_object(shm::ObjectKind::condition, sizeof(ConditionData))), lock_(lock) {}

void Condition::require_lock(const char* what) const {
    if (!lock_.is_owned()) throw SyncError(std::string("take the condition's lock before you ") + what);
}

bool Condition::wait_until(std::int64_t deadline) {
    require_lock("wait");
    auto& waiters = data_of(object_->head()).waiters;
    auto& lock_head = detail::ConditionAccess::object(lock_)->head();
    const shm::ThreadId self = shm::this_thread();
    const std::uint32_t place = waiters.enlist(self);
    const std::uint32_t depth = lock_head.depth.exchange(0, std::memory_order_relaxed);
    lock_head.user_lock.unlock(self);
    bool notified = false;
    while (!(notified = waiters.sleep(place, deadline)) && os::now_ns() < deadline) {}
    if (!notified) notified = !waiters.withdraw(place);
    const LockState state = detail::ConditionAccess::take(lock_);
    lock_head.depth.store(depth, std::memory_order_relaxed);
    // The lock is the caller's, as after any wait.
    if (state == LockState::owner_died) throw OwnerDied(nullptr);
    return notified;
}

void Condition::wait() { wait_until(os::kNever); }
bool Condition::wait(std::chrono::nanoseconds timeout) { return wait_until(os::deadline_after(timeout)); }

void Condition::notify(std::size_t count) {
    require_lock("notify");
    auto& waiters = data_of(object_->head()).waiters;
    while (count-- > 0 && waiters.wake_one()) {}
}

void Condition::notify_all() {
    require_lock("notify");
    data_of(object_->head()).waiters.wake_all();
}

void Codec<Condition>::encode(detail::Writer& writer, const Condition& condition) {
    detail::encode_object(writer, condition.object_);
    detail::encode_object(writer, detail::ConditionAccess::object(condition.lock_));
    writer.put(static_cast<std::uint8_t>(detail::ConditionAccess::recursive(condition.lock_)));
}
Condition Codec<Condition>::decode(detail::Reader& reader) {
    auto object = detail::decode_object(reader, mask_of(shm::ObjectKind::condition));
    auto lock = detail::decode_object(reader, mask_of(shm::ObjectKind::condition) | mask_of(shm::ObjectKind::lock) |
                                                  mask_of(shm::ObjectKind::rlock) | mask_of(shm::ObjectKind::value) |
                                                  mask_of(shm::ObjectKind::array));
    const bool recursive = reader.get<std::uint8_t>() != 0;
    return {std::move(object), detail::ConditionAccess::make(std::move(lock), recursive)};
}

}    // namespace multihull
