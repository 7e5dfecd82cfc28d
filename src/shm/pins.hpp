// Handles on their way: a message or result that names a shared object pins it, and each pin is an entry of one table.
//
// Safe across processes and threads. Survives the death of any process at any instruction: see "Handles on their way" in README.md.
//
// Invariants
// (1) An entry has one holder, which moves by compare-and-swap: the process that writes or has read the message, the queue that the
//     message is in, the process that a result was made for, or nobody of the family (kAdrift). Whoever ends or buries the holder drops
//     what it holds; no pin depends on a message being found again.
// (2) An entry is counted from when its holder is named until it is kUncounted or has no object. It begins and ends to be counted under
//     the guard of its object, together with ObjectHead::pins; where a guard's owner has died the entries are the truth.
// (3) An entry that is kDropped or kUncounted is on its way out; any recovery finishes what a death leaves of that. It is free when the
//     object has been ended, if it was the last that kept it.
// (4) What is read here may have been overwritten: indices are checked, chains end where an entry is not the expected holder's.
#pragma once

#include "shm/object_layout.hpp"
#include "shm/region.hpp"

#include <cstdint>

namespace multihull::shm {

/// Pin::holder: 0 for nobody; a process's number; kOfObject and the index of a queue; or one of these.
inline constexpr std::uint32_t kAdrift = 1U << 30;       ///< Of a message in a Connection: its reader's, when it comes.
inline constexpr std::uint32_t kDropped = 1U << 29;      ///< Nobody will read it.
inline constexpr std::uint32_t kUncounted = 1U << 28;    ///< The same, and ObjectHead::pins knows.
inline constexpr std::uint32_t kClaimed = 1U << 27;      ///< Beside a number: that process fills it; not counted.

/// Whose a pin is, and which of its holder's messages names the object. A process has one message of its own, {number}, for whatever it
/// writes and has read.
struct PinOwner {
    std::uint32_t holder;
    std::uint32_t scope = 0;    ///< The pool that a result is of.
    std::uint64_t message = 0;
};

/// What a message says of a pin beside the object's name: for its reader, who takes the handle over.
struct PinTicket {
    std::uint32_t pin = 0;    ///< + 1; 0 for a handle that the sender keeps.
    std::uint32_t use = 0;
};

/// The entry with that number + 1; null for 0 and for what can't be.
Pin* find_pin(std::uint32_t number) noexcept;
std::uint32_t pin_number(const Pin& pin) noexcept;
inline bool is_of(const Pin& pin, const PinOwner& owner) noexcept {
    return pin.holder.load(std::memory_order_acquire) == owner.holder &&
           pin.scope.load(std::memory_order_relaxed) == owner.scope &&
           pin.message.load(std::memory_order_relaxed) == owner.message;
}
/// Calls `visit` for every entry that may be in use.
template <class Visit>
void for_each_pin(Visit visit) {
    const Region& region = Region::instance();
    const std::uint32_t end = region.header().pin_high_water.load(std::memory_order_acquire);
    Pin* const pins = region.at<Pin>(region.objects().pins_begin);
    for (std::uint32_t i = 0; i < end && i < region.objects().pin_count; ++i) visit(pins[i]);
}

/// Takes a free entry for the process; not counted. Throws Error where there is none.
Pin& claim_pin(std::uint32_t number);
/// Frees an entry that has no object, or that is not counted any more, if it still has that holder.
void free_pin(Pin& pin, std::uint32_t holder) noexcept;
/// How many entries an object has.
std::uint32_t count_pins(std::uint32_t index, std::uint32_t generation) noexcept;

/// Moves a message's pins to another owner, and has them followed by the chain `rest`.
void move_pins(std::uint32_t first, const PinOwner& from, const PinOwner& to, std::uint32_t rest = 0) noexcept;
/// Moves whatever one has to a process, for its recovery: of messages whose chain is not to be relied on.
void move_all_pins(const PinOwner& from, std::uint32_t number) noexcept;
/// Marks everything that stands under a holder as dropped. False where there was nothing.
bool abandon_pins(std::uint32_t holder) noexcept;

/// Gives a message's pins back: ends what nothing else needs. Not with any object's guard held (objects.cpp).
void drop_pins(std::uint32_t first, const PinOwner& owner) noexcept;
/// The same for whatever one has, whether it is in a chain or not.
void drop_all_pins(const PinOwner& owner) noexcept;

}    // namespace multihull::shm
