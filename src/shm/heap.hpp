// Memory for this process's own buffers, taken from the extents of the shared region.
//
// All bookkeeping is private to the process: nobody else can damage it, and a process that dies leaves nothing half-changed;
// its extents are released as a whole by whoever finds it dead.
//
// Thread-safe. Not shared between processes: a forked child starts with an empty heap of its own.
//
// Invariants
// (1) A block lies in extents that this process owns, is aligned to 64 bytes, and is handed to one user at a time.
// (2) Free memory is kept for the next user while less than kKeep bytes lie idle: first touch of a page costs more than the copy
//     into it. Above that, whole free extents are given back.
#pragma once

#include "shm/region.hpp"

#include <array>
#include <cstddef>
#include <map>
#include <mutex>
#include <set>
#include <vector>

namespace multihull::shm {

class Heap {
public:
    static constexpr std::size_t kKeep = std::size_t{256} << 20;

    /// This process's heap.
    static Heap& instance();
    /// In a forked child: what the parent's heap knew is the parent's.
    static void after_fork() noexcept;

    /// A block of at least `bytes`, not zeroed; 0 when shared memory is exhausted.
    Offset allocate(std::size_t bytes);
    /// Gives back a block with the size it was asked for.
    void free(Offset block, std::size_t bytes) noexcept;

    /// Bytes in blocks that are handed out.
    std::size_t used() const noexcept;
    /// Bytes of the extents that this heap holds.
    std::size_t held() const noexcept;

private:
    static constexpr std::size_t kUnit = 64;
    static constexpr std::size_t kSlab = std::size_t{256} << 10;
    static constexpr std::size_t kClasses = 24;    // 64 bytes to 256 KiB in half powers of two

    static std::size_t class_of(std::size_t bytes) noexcept;
    static std::size_t class_size(std::size_t index) noexcept;

    Offset allocate_range(std::size_t bytes);
    void free_range(Offset begin, std::size_t bytes);
    std::pair<Offset, std::size_t> insert_range(Offset begin, std::size_t bytes);
    void trim(Offset begin, std::size_t bytes);

    mutable std::mutex mutex_;
    std::array<std::vector<Offset>, kClasses> free_blocks_;
    std::map<Offset, std::size_t> free_ranges_;                  // by place, neighbours merged
    std::set<std::pair<std::size_t, Offset>> ranges_by_size_;    // the same, for best fit
    std::size_t used_ = 0;
    std::size_t held_ = 0;
    std::size_t idle_ = 0;    // bytes in free_ranges_
};

}    // namespace multihull::shm
