// A queue's memory: what lies behind the head of its shared object. The protocol and its kill points: README.md.
//
// Invariants
// (1) `put_total` counts the messages that are in or were in the queue. Storing it is what publishes a message, and is done by the
//     owner of put_lock only; `taken_total` is the same for taking, under take_lock.
// (2) Where the next message goes is put_at[put_total % 2]: the next place is written into the other half before put_total moves, so
//     that a putter may die anywhere and leave both true. take_at likewise.
// (3) Slots between the taker's place and the putter's are whole, and are written by nobody.
// (4) A block belongs to whom its state says: to the list of free ones, to a process that fills or reads it, or to the queue. It
//     changes hands under block_lock, or, into and out of the queue, under put_lock and take_lock with a note of it (`Pending`) that
//     lasts until both the block and the total have moved. Pins are handed on in the same way.
#pragma once

#include "shm/objects.hpp"
#include "shm/wait_set.hpp"

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>

namespace multihull::channel {

inline constexpr std::size_t kSlotSize = 128;
inline constexpr std::size_t kMessageSlots = 16;
inline constexpr std::size_t kFirstSlots = 128;    ///< Slots of ring 0; each further ring has twice as many.
inline constexpr std::uint32_t kRings = 20;
inline constexpr std::uint32_t kInnerRings =
    9;    ///< Those lie in the object and in one extent; the others have their own.
inline constexpr std::uint32_t kMinBlockClass = 12;
inline constexpr std::uint32_t kBlockClasses = 40;
inline constexpr std::uint32_t kHistory = 16;    ///< Hops that the takers may be behind before no ring is used again.
inline constexpr std::uint32_t kMaxBlocks = std::uint32_t{1} << 20;

/// In front of each message, and where there is none to say how to go on.
struct SlotHead {
    enum Kind : std::uint32_t { message = 1, big_message = 2, wrap = 3, hop = 4 };
    std::uint32_t kind;
    std::uint32_t size;     ///< message: bytes; hop: the ring to go on in, from its first slot.
    std::uint32_t block;    ///< big_message: where it is.
    std::uint32_t pins;     ///< The first of the pins of what it names, as in Writer::pins(); 0 for none.
};
inline constexpr std::size_t kMaxInlineMessage = kMessageSlots * kSlotSize - sizeof(SlotHead);

/// A place in the rings. `position` counts slots since the ring was entered; `hops` counts rings.
struct Place {
    std::uint64_t position;
    std::uint32_t hops;
    std::uint32_t ring;
};

/// A message on its way into or out of the queue, and the total at which it is.
struct Pending {
    std::uint64_t total;
    std::uint32_t block;    ///< Index + 1; 0 for none.
    std::atomic<std::uint32_t>
        number;    ///< The process that moves it; 0: nothing is on its way. Written last, and cleared last.
};

struct Block {
    enum State : std::uint32_t { unused = 0, free = 1, queued = 2, loaned = 3 };
    std::uint64_t place;
    std::atomic<std::uint32_t> state;    ///< State, and for loaned ones the number of the process << 8.
    std::uint32_t next;                  ///< Of a free one: the next free one's index + 1.
    std::uint32_t size_class;            ///< It has 1 << size_class bytes.
    std::uint32_t unused_word;
};

struct QueueData {
    // Written when the queue is made.
    std::uint64_t maxsize;
    std::uint32_t joinable;
    std::atomic<std::uint32_t> closed;

    // The putters', under put_lock.
    alignas(64) shm::RobustLock put_lock;
    std::uint32_t known_hops;    ///< The takers' progress, when a putter last looked.
    std::uint64_t known_position;
    std::uint64_t known_taken;
    std::array<std::uint8_t, kHistory> ring_history;    ///< The ring of each of the last hops.
    alignas(64) std::array<Place, 2> put_at;
    Pending pending_put;
    alignas(64) std::atomic<std::uint64_t> put_total;

    // The takers', under take_lock.
    alignas(64) shm::RobustLock take_lock;
    std::uint64_t known_put;
    alignas(64) std::array<Place, 2> take_at;
    Pending pending_take;
    std::uint32_t pending_count;    ///< What taken_by of pending_take.number becomes.
    alignas(64) std::atomic<std::uint64_t> taken_total;
    /// hops << 48 | position: what the putters may overwrite ends here. May be behind, when a taker died.
    std::atomic<std::uint64_t> progress;

    // The big messages' memory, under block_lock.
    alignas(64) shm::RobustLock block_lock;
    std::atomic<std::uint32_t> block_count;
    shm::Offset blocks;         ///< Of the table; 0 until there is one.
    shm::Offset carve_begin;    ///< Of the extent that small blocks are cut from, what is left of it, and its end.
    shm::Offset carve_at;
    shm::Offset carve_end;
    std::array<std::uint32_t, kBlockClasses> free_blocks;    ///< Index + 1 of the first free one of each class.

    std::array<shm::Offset, kRings> rings;    ///< 0 until it is used. Under put_lock.
    shm::WaitSet takers;
    shm::WaitSet putters;
    shm::WaitSet joiners;
    std::atomic<std::uint32_t> lost_tasks;

    /// Messages taken and done by each process, modulo 2^16, for JoinableQueue. Written under take_lock and under the guard.
    std::array<std::atomic<std::uint16_t>, shm::kMaxProcesses + 1> taken_by;
    std::array<std::atomic<std::uint16_t>, shm::kMaxProcesses + 1> done_by;

    alignas(64) std::array<std::byte, kFirstSlots * kSlotSize> ring0;
};
static_assert(sizeof(QueueData) <= shm::kObjectRoom);

}    // namespace multihull::channel
