// The memory of a queue's big messages: blocks that are lent to processes, change hands with the message, and are used again.
#include "channel/queue_parts.hpp"
#include "os/fault.hpp"

#include <multihull/detail/queue_core.hpp>

#include <algorithm>
#include <bit>
#include <new>

namespace multihull {

namespace channel {

namespace {

void free_block_locked(QueueData& data, std::uint32_t index) {
    Block& block = *block_at(data, index);
    block.next = data.free_blocks[block.size_class];
    block.state.store(Block::free, std::memory_order_relaxed);
    os::kill_point(os::KillPoint::block_freed);
    data.free_blocks[block.size_class] = index + 1;
}

// After an owner of block_lock has died: the states are the truth, everything else follows from them.
void repair_blocks(QueueData& data) {
    data.free_blocks.fill(0);
    for (std::uint32_t i = 0; i < data.block_count.load(std::memory_order_relaxed); ++i) {
        const Block& block = *block_at(data, i);
        if (block.state.load(std::memory_order_relaxed) == Block::free) free_block_locked(data, i);
        const std::uint64_t end = block.place + (std::uint64_t{1} << block.size_class);
        if (block.place >= data.carve_begin && end <= data.carve_end) data.carve_at = std::max(data.carve_at, end);
    }
}

class HoldBlocks : Hold {
public:
    HoldBlocks(QueueData& data, shm::ThreadId self) noexcept : Hold(data, data.block_lock, self, repair_blocks) {}
};

}    // namespace

void recover_blocks(QueueData& data, std::uint32_t number) {
    if (data.blocks == 0) return;
    const HoldBlocks hold(data, shm::kRecoverer);
    for (std::uint32_t i = 0; i < data.block_count.load(std::memory_order_relaxed); ++i) {
        if (block_at(data, i)->state.load(std::memory_order_relaxed) == (Block::loaned | number << 8)) {
            free_block_locked(data, i);
        }
    }
}

}    // namespace channel

namespace detail {

using channel::Block;
using channel::QueueData;

namespace {

// One more block of that size, for who has none to use again; its index and 1, or 0 where there is no memory for it. Under block_lock.
std::uint32_t make_block(const SharedObject& object, QueueData& data, shm::ThreadId self, std::uint32_t size_class) {
    if (data.blocks == 0) {
        data.blocks = shm::try_claim_for(object, sizeof(Block) * channel::kMaxBlocks);
        if (data.blocks == 0) return 0;
    }
    const std::uint32_t index = data.block_count.load(std::memory_order_relaxed);
    if (index == channel::kMaxBlocks) return 0;
    const std::size_t capacity = std::size_t{1} << size_class;
    shm::Offset place = 0;
    if (capacity >= shm::kExtentSize) {
        place = shm::try_claim_for(object, capacity);
        if (place == 0) return 0;
    } else {
        if (data.carve_end - data.carve_at < capacity) {
            const shm::Offset extent = shm::try_claim_for(object, shm::kExtentSize);
            if (extent == 0) return 0;
            data.carve_end = 0;    // nothing can be cut off until all three are there
            channel::in_order();
            data.carve_begin = extent;
            data.carve_at = extent;
            channel::in_order();
            data.carve_end = extent + shm::kExtentSize;
        }
        place = data.carve_at;
    }
    Block& block = *channel::block_at(data, index);
    block.place = place;
    block.size_class = size_class;
    block.state.store(Block::loaned | (self & shm::kNumberMask) << 8, std::memory_order_relaxed);
    data.block_count.store(index + 1, std::memory_order_release);
    os::kill_point(os::KillPoint::block_loaned);
    channel::in_order();
    if (capacity < shm::kExtentSize) data.carve_at = place + capacity;
    return index + 1;
}

// A block of that size, this process's own; its index and 1, or 0 where there is no memory for it.
std::uint32_t take_block(const SharedObject& object, QueueData& data, shm::ThreadId self, std::uint32_t size_class) {
    const channel::HoldBlocks hold(data, self);
    const std::uint32_t first = data.free_blocks[size_class];
    if (first == 0) return make_block(object, data, self, size_class);
    Block& block = *channel::block_at(data, first - 1);
    block.state.store(Block::loaned | (self & shm::kNumberMask) << 8, std::memory_order_relaxed);
    os::kill_point(os::KillPoint::block_loaned);
    data.free_blocks[size_class] = block.next;
    return first;
}

}    // namespace

QueueBlock QueueCore::loan(std::size_t size) const {
    auto& data = channel::data_of(object_->head());
    const shm::ThreadId self = shm::this_thread();
    const auto size_class = std::max(channel::kMinBlockClass,
                                     static_cast<std::uint32_t>(std::bit_width(std::max<std::size_t>(size, 1) - 1)));
    if (size_class >= channel::kBlockClasses) throw std::bad_alloc();
    std::uint32_t block = 0;
    channel::with_memory([&] { return (block = take_block(*object_, data, self, size_class)) != 0; });
    std::byte* const place = shm::Region::instance().at(channel::block_at(data, block - 1)->place);
    return {object_, block - 1, {place, std::size_t{1} << size_class}};
}

QueueBlock::~QueueBlock() {
    if (queue_ == nullptr) return;
    auto& data = channel::data_of(queue_->head());
    const shm::ThreadId self = shm::this_thread();
    const channel::HoldBlocks hold(data, self);
    // A forked child's copy is not the child's to give back.
    auto& state = channel::block_at(data, index_)->state;
    if (state.load(std::memory_order_relaxed) == (Block::loaned | (self & shm::kNumberMask) << 8)) {
        channel::free_block_locked(data, index_);
    }
}

std::span<std::byte> QueueWriter::grow(std::span<const std::byte> used, std::size_t capacity) {
    QueueBlock fresh = core_.loan(capacity);
    copy_bytes(fresh.bytes().data(), used.data(), used.size());
    block_ = std::move(fresh);
    return block_.bytes();
}

}    // namespace detail

}    // namespace multihull
