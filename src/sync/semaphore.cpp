#include <multihull/semaphore.hpp>

#include "os/fault.hpp"
#include "sync/wait.hpp"

#include <array>

namespace multihull {

namespace {

// Everything is written under the object's guard. `available` follows from the others, which is how it is made right when an owner
// of the guard has died: total less everything that is held.
struct SemaphoreData {
    shm::WaitSet waiters;
    std::atomic<std::uint32_t> available;
    std::uint32_t total;
    std::uint32_t bounded;
    std::array<std::uint32_t, shm::kMaxProcesses + 1> held;    // by process number
};
static_assert(sizeof(SemaphoreData) <= shm::kObjectRoom);

SemaphoreData& data_of(shm::ObjectHead& head) { return *reinterpret_cast<SemaphoreData*>(&head + 1); }

void repair(shm::ObjectHead& head) {
    auto& data = data_of(head);
    std::uint32_t held = 0;
    const std::uint32_t highest = shm::Region::instance().header().process_high_water.load(std::memory_order_relaxed);
    for (std::uint32_t number = 1; number <= highest; ++number) held += data.held[number];
    data.available.store(data.total - held, std::memory_order_relaxed);
}

void recover(shm::ObjectHead& head, std::uint32_t number) {
    auto& data = data_of(head);
    data.held[number] = 0;
    repair(head);
    data.waiters.recover(number);
}

const shm::RegisterKind kRegistered(shm::ObjectKind::semaphore, {recover, repair, nullptr});

constexpr std::uint32_t kSemaphores = 1U << static_cast<std::uint32_t>(shm::ObjectKind::semaphore);

}    // namespace

namespace detail {

ObjectRef SemaphoreBase::make(std::uint32_t permits, bool bounded) {
    auto object = shm::make_object(shm::ObjectKind::semaphore, sizeof(SemaphoreData));
    auto& data = data_of(object->head());
    const shm::Guard guard(object->head());
    data.total = permits;
    data.bounded = bounded ? 1 : 0;
    data.available.store(permits, std::memory_order_relaxed);
    return object;
}

bool SemaphoreBase::take(std::int64_t deadline, bool for_good) {
    auto& head = object_->head();
    auto& data = data_of(head);
    const std::uint32_t number = shm::this_thread() & shm::kNumberMask;
    const auto attempt = [&] {
        const std::uint32_t available = data.available.load(std::memory_order_relaxed);
        if (available == 0) return false;
        if (for_good) {
            --data.total;
        } else {
            ++data.held[number];
        }
        os::kill_point(os::KillPoint::permit_taken);
        data.available.store(available - 1, std::memory_order_relaxed);
        return true;
    };
    {
        const shm::Guard guard(head);
        if (attempt()) return true;
    }
    if (deadline == 0) return false;
    return sync::wait_until(head, data.waiters, deadline, attempt,
                            [&] { sync::look_for_dead([&](std::uint32_t n) { return data.held[n] != 0; }); });
}

void SemaphoreBase::acquire() { take(os::kNever, false); }
bool SemaphoreBase::try_acquire() { return take(0, false); }
bool SemaphoreBase::acquire(std::chrono::nanoseconds timeout) { return take(os::deadline_after(timeout), false); }
bool SemaphoreBase::consume(std::chrono::nanoseconds timeout) { return take(os::deadline_after(timeout), true); }

std::uint32_t SemaphoreBase::value() const noexcept {
    return data_of(object_->head()).available.load(std::memory_order_relaxed);
}

void SemaphoreBase::release_one() {
    auto& head = object_->head();
    auto& data = data_of(head);
    const std::uint32_t number = shm::this_thread() & shm::kNumberMask;
    {
        const shm::Guard guard(head);
        if (data.held[number] != 0) {
            --data.held[number];
        } else if (data.bounded != 0) {
            throw SyncError("this process releases a permit of a BoundedSemaphore that it does not hold");
        } else {
            ++data.total;
        }
        os::kill_point(os::KillPoint::permit_returned);
        data.available.store(data.available.load(std::memory_order_relaxed) + 1, std::memory_order_relaxed);
    }
    if (data.waiters.anybody()) data.waiters.wake_one();
}

}    // namespace detail

void Codec<Semaphore>::encode(detail::Writer& writer, const Semaphore& semaphore) {
    detail::encode_object(writer, semaphore.object_);
}
Semaphore Codec<Semaphore>::decode(detail::Reader& reader) {
    return Semaphore(detail::decode_object(reader, kSemaphores));
}
void Codec<BoundedSemaphore>::encode(detail::Writer& writer, const BoundedSemaphore& semaphore) {
    detail::encode_object(writer, semaphore.object_);
}
BoundedSemaphore Codec<BoundedSemaphore>::decode(detail::Reader& reader) {
    return BoundedSemaphore(detail::decode_object(reader, kSemaphores));
}

}    // namespace multihull
