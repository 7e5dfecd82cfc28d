// A Writer's room in shared memory: what does not fit where it began continues in a block of this process's heap.
#pragma once

#include "shm/heap.hpp"

#include <multihull/codec.hpp>

#include <algorithm>
#include <cstring>
#include <new>
#include <utility>

namespace multihull::shm {

class HeapGrowth final : public detail::Growth {
public:
    HeapGrowth() = default;
    HeapGrowth(const HeapGrowth&) = delete;
    HeapGrowth& operator=(const HeapGrowth&) = delete;
    ~HeapGrowth() {
        if (block_ != 0) Heap::instance().free(block_, size_);
    }

    std::span<std::byte> grow(std::span<const std::byte> used, std::size_t capacity) override {
        const Offset block = Heap::instance().allocate(capacity);
        if (block == 0) throw std::bad_alloc();
        std::byte* const bytes = Region::instance().at(block);
        detail::copy_bytes(bytes, used.data(), used.size());
        if (block_ != 0) Heap::instance().free(block_, size_);
        block_ = block;
        size_ = capacity;
        return {bytes, capacity};
    }

    /// The block in use, 0 where everything fitted into the first room; the caller takes it over, with its size.
    std::pair<Offset, std::size_t> take() noexcept { return {std::exchange(block_, 0), std::exchange(size_, 0)}; }

private:
    Offset block_ = 0;
    std::size_t size_ = 0;
};

}    // namespace multihull::shm
