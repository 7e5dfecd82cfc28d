// Where a worker puts results that are too big for a task slot: blocks of its own heap, handed to the parent one by one.
//
// Used by the worker's one thread. The parent marks a block `released` when it has read it; the worker then uses it again.
#pragma once

#include "pool/layout.hpp"
#include "shm/heap.hpp"

#include <multihull/codec.hpp>

#include <cstddef>
#include <deque>

namespace multihull::detail {

class ResultArena {
public:
    /// A block with room for `bytes` behind its head. Throws std::bad_alloc.
    shm::Offset allocate(std::size_t bytes);
    /// Gives back a block that was not handed over.
    void abandon(shm::Offset block) noexcept;
    /// Bytes that fit into a block behind its head.
    static std::byte* room(shm::Offset block) noexcept;

private:
    struct Block {
        shm::Offset offset;
        std::size_t size;
    };
    void collect() noexcept;

    std::deque<Block> handed_out_;
};

/// A Writer's room for one result.
class ResultGrowth final : public Growth {
public:
    explicit ResultGrowth(ResultArena& arena) noexcept : arena_(arena) {}
    std::span<std::byte> grow(std::span<const std::byte> used, std::size_t capacity) override;
    /// The block in use; 0 where the result fitted into the slot. Handed over to the caller.
    shm::Offset take() noexcept { return std::exchange(block_, 0); }
    ~ResultGrowth();

private:
    ResultArena& arena_;
    shm::Offset block_ = 0;
};

}    // namespace multihull::detail
