#include <multihull/event.hpp>

#include "os/clock.hpp"
#include "os/futex.hpp"
#include "shm/objects.hpp"

#include <algorithm>

namespace multihull {

namespace {

// The whole state is one word: 0 clear, 1 set, 2 clear and somebody sleeps. Every change is one instruction, so there is nothing to
// repair; a wake-up that a dead one did not get to make is made by its recovery, or missed for no longer than a sleeper sleeps.
struct EventData {
    std::atomic<std::uint32_t> word;
};
constexpr std::uint32_t kClear = 0;
constexpr std::uint32_t kSet = 1;
constexpr std::uint32_t kAwaited = 2;
constexpr std::int64_t kLook = 100'000'000;    // ns

std::atomic<std::uint32_t>& word_of(shm::ObjectHead& head) { return reinterpret_cast<EventData*>(&head + 1)->word; }

void recover(shm::ObjectHead& head, std::uint32_t) { os::futex_wake_all(word_of(head)); }

const shm::RegisterKind kRegistered(shm::ObjectKind::event, {recover, nullptr, nullptr});

}    // namespace

Event::Event() : Event(shm::make_object(shm::ObjectKind::event, sizeof(EventData))) {}

void Event::set() noexcept {
    auto& word = word_of(object_->head());
    if (word.exchange(kSet, std::memory_order_acq_rel) == kAwaited) os::futex_wake_all(word);
}

void Event::clear() noexcept {
    std::uint32_t set = kSet;
    word_of(object_->head()).compare_exchange_strong(set, kClear, std::memory_order_acq_rel);
}

bool Event::is_set() const noexcept { return word_of(object_->head()).load(std::memory_order_acquire) == kSet; }

void Event::wait() const { wait_until(os::kNever); }
bool Event::wait(std::chrono::nanoseconds timeout) const { return wait_until(os::deadline_after(timeout)); }

bool Event::wait_until(std::int64_t deadline) const {
    auto& word = word_of(object_->head());
    std::uint32_t now = word.load(std::memory_order_acquire);
    while (now != kSet) {
        if (now == kClear && !word.compare_exchange_weak(now, kAwaited, std::memory_order_acq_rel)) continue;
        const std::int64_t time = os::now_ns();
        if (time >= deadline) return false;
        os::futex_wait(word, kAwaited, std::min(deadline, time + kLook));
        now = word.load(std::memory_order_acquire);
    }
    return true;
}

void Codec<Event>::encode(detail::Writer& writer, const Event& event) { detail::encode_object(writer, event.object_); }
Event Codec<Event>::decode(detail::Reader& reader) {
    return Event(detail::decode_object(reader, 1U << static_cast<std::uint32_t>(shm::ObjectKind::event)));
}

}    // namespace multihull
