// The one reservation of shared memory that a family of processes (a program and everything started from it) shares.
//
// A memfd of up to 1 TiB, mapped before the first fork: a place in it is named by its offset, which means the same in every
// process of the family, however old. Memory is taken as pages are touched and given back by punching holes.
//
// Safe across processes. Survives the death of any of them at any instruction: see "Kill points" in README.md.
//
// Invariants
// (1) The geometry (sizes and counts) is written by the process that makes the region, before anybody else maps it.
// (2) A home or an extent belongs to the process whose number stands in its owner word; 0 is nobody. A word goes from 0 to a
//     number by compare-and-swap, made by that process for itself, and back to 0 by the owner, or by the one process that
//     found the owner dead.
// (3) A process's number is the index of its pid in `processes`, plus one.
// (4) An extent may also belong to a shared object (its index with kOfObject set), which outlives the process that claimed it.
// (5) Where things lie is read from the header once, when a process maps the region: what a process gone wild writes there later
//     moves nobody's bounds.
#pragma once

#include "os/fault.hpp"
#include "os/memory.hpp"

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <sys/types.h>

namespace multihull::shm {

class RobustLock;

/// A place in the region; 0 is nowhere (the header is there).
using Offset = std::uint64_t;

inline constexpr std::uint32_t kMaxProcesses = 8190;    // a number has 13 bits in the words that name owners
/// The number under which the one process that recovers just now takes locks: it may have none of its own.
inline constexpr std::uint32_t kRecoverer = 8191;
inline constexpr std::uint32_t kHomes = 128;
inline constexpr std::uint32_t kMaxExtents = 65536;
inline constexpr std::uint32_t kMaxModules = 256;
inline constexpr std::size_t kExtentSize = std::size_t{8} << 20;

struct RegionHeader {
    std::uint64_t magic;
    std::uint64_t size;
    std::uint64_t small_objects_begin;    ///< Offset of the first of the small shared objects: see objects.hpp.
    std::uint64_t large_objects_begin;
    std::uint64_t ledger_begin;    ///< Offset of the bits that say which process holds which object.
    std::uint64_t pins_begin;      ///< Offset of the table of handles on their way: see pins.hpp.
    std::uint32_t small_object_count;
    std::uint32_t large_object_count;
    std::uint32_t pin_count;
    std::uint64_t homes_begin;    ///< Offset of the first home: control memory of one pool.
    std::uint64_t home_size;
    std::uint32_t extent_count;
    std::uint64_t extents_begin;    ///< Offset of the first extent: memory for arguments, arrays and results.
    os::KillPoints kill_points;
    std::atomic<std::uint32_t> process_high_water;    ///< No number above this one was ever given.
    std::atomic<std::uint32_t> free_hints[2];         ///< Where to look first for a free object, small and large.
    std::atomic<std::uint32_t> free_pin_hint;         ///< The same for a free pin.
    std::atomic<std::uint32_t> pin_high_water;        ///< No pin from this one on was ever used.
    std::atomic<std::uint32_t> recoverer;    ///< Pid of the process that recovers, or frees a number, just now.
    std::atomic<std::uint64_t> modules[kMaxModules];    ///< Build-ids (hashed) of the modules that tokens speak of.
    std::atomic<std::uint32_t> processes[kMaxProcesses];
    std::atomic<std::uint32_t> homes[kHomes];
    std::atomic<std::uint32_t> extents[kMaxExtents];
    std::atomic<Offset>
        broadcast_values;       ///< The table of values that another family sent to all of this one: see src/mpi.
    std::uint64_t family[2];    ///< Random: names this family's sockets.
    std::atomic<std::uint32_t>
        fd_keeper;    ///< Pid of the process that keeps descriptors on their way; 0 for none yet.
};

/// In `homes`: its owner is dead, and so will be, in a moment, the processes that still look at it. Taken only when no other is left.
inline constexpr std::uint32_t kAbandonedHome = ~std::uint32_t{0};
/// In `processes`: dead, but what it owned is still in use.
inline constexpr std::uint32_t kDeadProcess = ~std::uint32_t{0};
/// In `extents`: owned by the shared object whose index is in the other bits.
inline constexpr std::uint32_t kOfObject = std::uint32_t{1} << 31;

class Region {
public:
    /// The region of this process's family; made on first use.
    static Region& instance();
    /// Joins the family whose region is behind the descriptor: for processes started by exec. Must come before instance().
    static void attach(os::Fd fd);
    /// Whether the region exists already in this process.
    static bool exists() noexcept;

    /// An address in this process. The offset must lie inside the region.
    std::byte* at(Offset offset) const noexcept { return base_ + offset; }
    template <class T>
    T* at(Offset offset) const noexcept {
        return reinterpret_cast<T*>(base_ + offset);
    }
    Offset offset_of(const void* address) const noexcept {
        return static_cast<Offset>(static_cast<const std::byte*>(address) - base_);
    }
    /// Whether [offset, offset + size) lies in the extents: what a worker says of its results is checked with this.
    bool in_extents(Offset offset, std::uint64_t size) const noexcept;

    RegionHeader& header() const noexcept { return *reinterpret_cast<RegionHeader*>(base_); }
    int fd() const noexcept { return fd_.get(); }
    std::size_t home_size() const noexcept { return geometry_.home_size; }
    Offset extents_begin() const noexcept { return geometry_.extents_begin; }

    /// Claims a home; it reads as zeros. Throws StartError when all are in use.
    Offset claim_home();
    void release_home(Offset home) noexcept;

    /// Claims a run of whole extents of at least `bytes`, which read as zeros; 0 when there is none.
    Offset claim_extents(std::size_t bytes) noexcept;
    /// The same for a shared object, whose index is in `owner` beside kOfObject.
    Offset claim_extents_for(std::uint32_t owner, std::size_t bytes) noexcept;
    /// The same without a sweep for dead processes where there is none: for who holds a lock that their recovery waits for.
    Offset try_claim_extents_for(std::uint32_t owner, std::size_t bytes) noexcept;
    /// Gives back every extent that stands under the owner.
    void release_extents_of(std::uint32_t owner) noexcept;
    void release_extents(Offset first, std::size_t bytes) noexcept;
    /// Whether the extent around a place belongs to this process: false for what a forked child knows of its parent's.
    bool owns(Offset place) const noexcept;
    /// The number of the process that owns the extent around a place; 0 for nobody, and outside of the extents.
    std::uint32_t owner_of(Offset place) const noexcept;

    /// The number of this process, claimed on first use; 0 when the table is full.
    std::uint32_t own_number() noexcept;
    /// The number of another process of the family; 0 when it never claimed one.
    std::uint32_t number_of(pid_t pid) const noexcept;
    /// Whether a process with that number runs. A pid that was used again hides its dead predecessor.
    bool is_alive(std::uint32_t number) const noexcept;
    /// Recovers what a process held, if it is dead, and that lock, which it may have held without a handle; its number and its
    /// extents wait for whoever reaps it. False while it lives.
    bool recover_if_dead(std::uint32_t number, RobustLock* lock = nullptr) noexcept;
    /// To be told when a child of this process has been reaped: recovers and releases what it held. Harmless when it was done before.
    void bury(pid_t pid) noexcept;
    /// What has to be made right when a process has died, before its number is given to another; may run twice for one death.
    using Recovery = void (*)(std::uint32_t number);
    static void set_recovery(Recovery recovery) noexcept { recovery_.store(recovery, std::memory_order_release); }
    /// Keeps what a dead process owned until release_owned(), and frees its pid to be used by another process.
    void mark_dead(std::uint32_t number) noexcept;
    /// Releases every extent and home that stands under the number, and the number itself.
    void release_owned(std::uint32_t number) noexcept;
    /// Releases what belongs to processes that no longer exist, wherever in the family they were.
    void sweep_dead() noexcept;
    /// Forgets who this process was: in the child, after a fork.
    void after_fork() noexcept;

    struct Objects {
        Offset small_begin = 0;
        Offset large_begin = 0;
        Offset ledger_begin = 0;
        Offset pins_begin = 0;
        std::uint32_t small_count = 0;
        std::uint32_t large_count = 0;
        std::uint32_t pin_count = 0;
    };
    const Objects& objects() const noexcept { return objects_; }

private:
    struct Geometry {
        Offset homes_begin = 0;
        std::uint64_t home_size = 0;
        Offset extents_begin = 0;
        std::uint32_t extent_count = 0;
    };

    Region(os::Fd fd, bool create);
    void recover(std::uint32_t number) noexcept;
    void recover_locked(std::uint32_t number) noexcept;
    void create_geometry(std::size_t size);
    Offset extent_offset(std::uint32_t index) const noexcept {
        return geometry_.extents_begin + std::uint64_t{index} * kExtentSize;
    }
    Offset home_offset(std::uint32_t index) const noexcept {
        return geometry_.homes_begin + std::uint64_t{index} * geometry_.home_size;
    }

    os::Fd fd_;
    os::Mapping mapping_;
    std::byte* base_ = nullptr;
    Geometry geometry_;
    Objects objects_;
    static inline constinit std::atomic<Recovery> recovery_{nullptr};
    std::atomic<std::uint32_t> number_{0};
};

}    // namespace multihull::shm
