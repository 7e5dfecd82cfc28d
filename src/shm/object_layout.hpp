// Where shared objects lie in the region, and the head that each of them begins with. See objects.hpp.
#pragma once

#include "shm/robust_lock.hpp"

#include <atomic>
#include <cstddef>
#include <cstdint>

namespace multihull::shm {

/// What a shared object is.
enum class ObjectKind : std::uint8_t {
    none,
    lock,
    rlock,
    semaphore,
    condition,
    event,
    barrier,
    value,
    array,
    queue,
    proxy,        // stands for a manager's object, while messages name it
    mailboxes,    // of a loop of a manager's server
    count_,
};

/// The first 64 bytes of every shared object, whose memory is never used for anything but objects.
struct ObjectHead {
    /// 0: free. Else an ObjectKind in the lowest byte, a Stage in the next, above them the number of who is making or ending it.
    std::atomic<std::uint32_t> state;
    /// Counts the objects that were here; a handle that names an earlier one is known by it.
    std::atomic<std::uint32_t> generation;
    /// Guards the references and whatever the kind says.
    RobustLock guard;
    /// Handles of it that are on their way: its counted entries in the table of pins. Written under the guard.
    std::atomic<std::uint32_t> pins;
    /// What a Lock handle of this object locks; of an RLock too.
    RobustLock user_lock;
    /// How often its owner has locked an RLock. Written by the owner only.
    std::atomic<std::uint32_t> depth;
    /// 1 once extents stand under this object.
    std::atomic<std::uint32_t> has_extents;
    /// 1 once pins stand under this object: a queue.
    std::atomic<std::uint32_t> has_pins;
    std::uint32_t unused[8];
};
static_assert(sizeof(ObjectHead) == 64);

/// A handle on its way: which message names which object. Who may write what: pins.hpp.
struct Pin {
    std::atomic<std::uint32_t> holder;
    std::atomic<std::uint32_t> object;    ///< Index + 1; 0 once a reader has taken the handle over.
    std::atomic<std::uint32_t> generation;
    std::atomic<std::uint32_t> next;    ///< The next of the same message, + 1; 0 behind the last.
    std::atomic<std::uint64_t> message;
    std::atomic<std::uint32_t> scope;
    std::atomic<std::uint32_t> use;    ///< Counts the handles that were here, so that nobody takes one over twice.
};
static_assert(sizeof(Pin) == 32);
inline constexpr std::size_t kMostPins = std::size_t{1} << 20;

inline constexpr std::size_t kSmallObjectSize = 256;
inline constexpr std::size_t kLargeObjectSize = std::size_t{64} << 10;
inline constexpr std::size_t kMostSmallObjects = std::size_t{1} << 17;
inline constexpr std::size_t kMostLargeObjects = std::size_t{1} << 15;
/// The first so many keep their memory when they end, 4 MiB at most: they are used again first.
inline constexpr std::uint32_t kKeptLargeObjects = 64;

/// Bytes of one process's row of the ledger: a bit for each object.
constexpr std::size_t ledger_row_size(std::size_t objects) { return (objects / 8 + 63) / 64 * 64; }

}    // namespace multihull::shm
