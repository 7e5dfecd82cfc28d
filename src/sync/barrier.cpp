#include <multihull/barrier.hpp>

#include "os/fault.hpp"
#include "sync/wait.hpp"

#include <array>
#include <exception>
#include <stdexcept>

namespace multihull {

namespace {

// Everything is written under the object's guard. A round is over with the one store of `round`; `arrived` carries the round that
// it counts, so that a count of an earlier round reads as 0 and there is nothing to repair.
struct BarrierData {
    shm::WaitSet waiters;
    std::atomic<std::uint32_t> parties;
    std::atomic<std::uint32_t> round;
    std::atomic<std::uint64_t> arrived;    // round << 32 | how many
    std::atomic<std::uint32_t> broken;
    std::atomic<std::uint32_t> reset_rounds;                      // 1 + the last round that reset() ended
    std::array<std::uint8_t, shm::kMaxProcesses + 1> is_party;    // by process number
};
static_assert(sizeof(BarrierData) <= shm::kObjectRoom);

BarrierData& data_of(shm::ObjectHead& head) { return *reinterpret_cast<BarrierData*>(&head + 1); }

std::uint32_t count_arrived(const BarrierData& data) {
    const std::uint64_t arrived = data.arrived.load(std::memory_order_relaxed);
    return arrived >> 32 == data.round.load(std::memory_order_relaxed) ? static_cast<std::uint32_t>(arrived) : 0;
}

void break_it(BarrierData& data) {
    data.broken.store(1, std::memory_order_relaxed);
    data.waiters.wake_all();
}

void recover(shm::ObjectHead& head, std::uint32_t number) {
    auto& data = data_of(head);
    if (data.is_party[number] != 0) {
        data.is_party[number] = 0;
        data.broken.store(1, std::memory_order_relaxed);
    }
    data.waiters.recover(number);
}

// A party that leaves because an exception unwinds its stack will not come, just as if it had died.
void leave(shm::ObjectHead& head, std::uint32_t number) {
    auto& data = data_of(head);
    if (data.is_party[number] == 0) return;
    data.is_party[number] = 0;
    if (std::uncaught_exceptions() > 0 && count_arrived(data) != 0) break_it(data);
}

const shm::RegisterKind kRegistered(shm::ObjectKind::barrier, {recover, nullptr, leave});

}    // namespace

Barrier::Barrier(std::uint32_t parties) : Barrier(shm::make_object(shm::ObjectKind::barrier, sizeof(BarrierData))) {
    if (parties == 0) throw std::invalid_argument("a Barrier needs at least one party");
    data_of(object_->head()).parties.store(parties, std::memory_order_relaxed);
}

std::uint32_t Barrier::wait_until(std::int64_t deadline) {
    auto& head = object_->head();
    auto& data = data_of(head);
    const std::uint32_t number = shm::this_thread() & shm::kNumberMask;
    std::uint32_t round = 0;
    std::uint32_t place = 0;
    bool last = false;
    {
        const shm::Guard guard(head);
        data.is_party[number] = 1;
        if (data.broken.load(std::memory_order_relaxed) != 0)
            throw BrokenBarrier("the barrier is broken: reset() makes it whole");
        round = data.round.load(std::memory_order_relaxed);
        place = count_arrived(data);
        os::kill_point(os::KillPoint::barrier_arrived);
        last = place + 1 == data.parties.load(std::memory_order_relaxed);
        if (last) {
            data.round.store(round + 1, std::memory_order_relaxed);
            os::kill_point(os::KillPoint::barrier_tripped);
        } else {
            data.arrived.store(std::uint64_t{round} << 32 | (place + 1), std::memory_order_relaxed);
        }
    }
    if (last) {
        data.waiters.wake_all();
        return place;
    }
    bool failed = false;
    const auto over = [&] {
        if (data.round.load(std::memory_order_relaxed) != round) {
            failed = data.reset_rounds.load(std::memory_order_relaxed) == round + 1;
            return true;
        }
        failed = data.broken.load(std::memory_order_relaxed) != 0;
        return failed;
    };
    const bool came = sync::wait_until(head, data.waiters, deadline, over, [&] {
        sync::look_for_dead([&](std::uint32_t n) { return data.is_party[n] != 0; });
    });
    if (!came) {
        const shm::Guard guard(head);
        if (!over()) {
            break_it(data);
            throw BrokenBarrier("the others did not arrive at the barrier in time, so it is broken now");
        }
    }
    if (failed)
        throw BrokenBarrier("the barrier broke while this process waited: a party died, gave up or called it off");
    return place;
}

std::uint32_t Barrier::wait() { return wait_until(os::kNever); }
std::uint32_t Barrier::wait(std::chrono::nanoseconds timeout) { return wait_until(os::deadline_after(timeout)); }

void Barrier::reset() {
    auto& data = data_of(object_->head());
    const shm::Guard guard(object_->head());
    const std::uint32_t round = data.round.load(std::memory_order_relaxed);
    if (count_arrived(data) != 0) {
        data.reset_rounds.store(round + 1, std::memory_order_relaxed);
        data.round.store(round + 1, std::memory_order_relaxed);
    }
    data.broken.store(0, std::memory_order_relaxed);
    data.waiters.wake_all();
}

void Barrier::abort() {
    const shm::Guard guard(object_->head());
    break_it(data_of(object_->head()));
}

std::uint32_t Barrier::parties() const noexcept {
    return data_of(object_->head()).parties.load(std::memory_order_relaxed);
}
std::uint32_t Barrier::n_waiting() const noexcept { return count_arrived(data_of(object_->head())); }
bool Barrier::broken() const noexcept { return data_of(object_->head()).broken.load(std::memory_order_relaxed) != 0; }

void Codec<Barrier>::encode(detail::Writer& writer, const Barrier& barrier) {
    detail::encode_object(writer, barrier.object_);
}
Barrier Codec<Barrier>::decode(detail::Reader& reader) {
    Barrier barrier(detail::decode_object(reader, 1U << static_cast<std::uint32_t>(shm::ObjectKind::barrier)));
    // Whoever was given it is expected to come.
    auto& head = barrier.object_->head();
    const shm::Guard guard(head);
    data_of(head).is_party[shm::this_thread() & shm::kNumberMask] = 1;
    return barrier;
}

}    // namespace multihull
