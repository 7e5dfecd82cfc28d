#include "shm/pins.hpp"

#include "os/fault.hpp"

#include <multihull/error.hpp>

#include <algorithm>
#include <string>

namespace multihull::shm {

namespace {

Pin* pins() {
    const Region& region = Region::instance();
    return region.at<Pin>(region.objects().pins_begin);
}

void set_message(Pin& pin, const PinOwner& owner) noexcept {
    pin.scope.store(owner.scope, std::memory_order_relaxed);
    pin.message.store(owner.message, std::memory_order_relaxed);
}

bool move_pin(Pin& pin, const PinOwner& from, const PinOwner& to) noexcept {
    if (!is_of(pin, from)) return false;
    std::uint32_t holder = from.holder;
    // The recovery of a dead process asks for the holder alone, so whatever else is said is said while a process has it.
    const bool is_process = holder <= kNumberMask;
    if (is_process) set_message(pin, to);
    if (!pin.holder.compare_exchange_strong(holder, to.holder, std::memory_order_acq_rel)) return false;
    if (!is_process) set_message(pin, to);
    return true;
}

}    // namespace

Pin* find_pin(std::uint32_t number) noexcept {
    return number == 0 || number > Region::instance().objects().pin_count ? nullptr : pins() + (number - 1);
}

std::uint32_t pin_number(const Pin& pin) noexcept { return static_cast<std::uint32_t>(&pin - pins()) + 1; }

Pin& claim_pin(std::uint32_t number) {
    const Region& region = Region::instance();
    RegionHeader& header = region.header();
    const std::uint32_t count = region.objects().pin_count;
    for (const bool from_hint : {true, false}) {
        const std::uint32_t first = from_hint ? header.free_pin_hint.load(std::memory_order_relaxed) : 0;
        for (std::uint32_t i = first; i < count; ++i) {
            Pin& pin = pins()[i];
            if (pin.holder.load(std::memory_order_relaxed) != 0) continue;
            // First: what this process leaves half filled is then found by its recovery.
            std::uint32_t high = header.pin_high_water.load(std::memory_order_relaxed);
            while (high < i + 1 && !header.pin_high_water.compare_exchange_weak(high, i + 1)) {}
            std::uint32_t nobody = 0;
            if (!pin.holder.compare_exchange_strong(nobody, kClaimed | number, std::memory_order_acq_rel)) continue;
            header.free_pin_hint.store(i + 1, std::memory_order_relaxed);
            pin.use.fetch_add(1, std::memory_order_relaxed);
            pin.next.store(0, std::memory_order_relaxed);
            set_message(pin, {number});
            return pin;
        }
    }
    throw Error(std::to_string(count) +
                " handles are on their way in messages at once in this family of processes: have some of them read "
                "before more are sent");
}

void free_pin(Pin& pin, std::uint32_t holder) noexcept {
    const std::uint32_t index = pin_number(pin) - 1;
    if (!pin.holder.compare_exchange_strong(holder, 0, std::memory_order_acq_rel)) return;
    auto& hint = Region::instance().header().free_pin_hint;
    if (index < hint.load(std::memory_order_relaxed)) hint.store(index, std::memory_order_relaxed);
}

std::uint32_t count_pins(std::uint32_t index, std::uint32_t generation) noexcept {
    std::uint32_t count = 0;
    for_each_pin([&](const Pin& pin) {
        const std::uint32_t holder = pin.holder.load(std::memory_order_acquire);
        const bool counts = holder != 0 && holder != kUncounted && (holder & kClaimed) == 0;
        if (counts && pin.object.load(std::memory_order_relaxed) == index + 1 &&
            pin.generation.load(std::memory_order_relaxed) == generation) {
            ++count;
        }
    });
    return count;
}

void move_pins(std::uint32_t first, const PinOwner& from, const PinOwner& to, std::uint32_t rest) noexcept {
    Pin* pin = find_pin(first);
    while (pin != nullptr && is_of(*pin, from)) {
        const std::uint32_t next = pin->next.load(std::memory_order_relaxed);
        if (next == 0) pin->next.store(rest, std::memory_order_relaxed);
        if (!move_pin(*pin, from, to)) return;
        pin = find_pin(next);
    }
}

void move_all_pins(const PinOwner& from, std::uint32_t number) noexcept {
    for_each_pin([&](Pin& pin) { move_pin(pin, from, {number}); });
}

bool abandon_pins(std::uint32_t holder) noexcept {
    bool any = false;
    for_each_pin([&](Pin& pin) {
        std::uint32_t expected = holder;
        if (pin.holder.load(std::memory_order_relaxed) == holder &&
            pin.holder.compare_exchange_strong(expected, kDropped, std::memory_order_acq_rel)) {
            any = true;
        }
    });
    return any;
}

}    // namespace multihull::shm
