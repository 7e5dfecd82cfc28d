#include "pool/result_arena.hpp"

#include "os/fault.hpp"

#include <algorithm>
#include <new>

namespace multihull::detail {

namespace {

// How many blocks a new allocation looks at to find released ones: more come back than go out.
constexpr std::size_t kLooked = 32;

}    // namespace

shm::Offset ResultArena::allocate(std::size_t bytes) {
    collect();
    const std::size_t size = bytes + sizeof(ResultBlock);
    const shm::Offset offset = shm::Heap::instance().allocate(size);
    if (offset == 0) throw std::bad_alloc();
    auto& head = *shm::Region::instance().at<ResultBlock>(offset);
    head.released.store(0, std::memory_order_relaxed);
    head.previous = 0;
    handed_out_.push_back({offset, size});
    os::kill_point(os::KillPoint::block_allocated);
    return offset;
}

void ResultArena::abandon(shm::Offset block) noexcept {
    shm::Region::instance().at<ResultBlock>(block)->released.store(1, std::memory_order_relaxed);
}

std::byte* ResultArena::room(shm::Offset block) noexcept {
    return shm::Region::instance().at(block + sizeof(ResultBlock));
}

void ResultArena::collect() noexcept {
    for (std::size_t n = std::min(kLooked, handed_out_.size()); n > 0; --n) {
        const Block block = handed_out_.front();
        handed_out_.pop_front();
        if (shm::Region::instance().at<ResultBlock>(block.offset)->released.load(std::memory_order_acquire) != 0) {
            shm::Heap::instance().free(block.offset, block.size);
        } else {
            handed_out_.push_back(block);
        }
    }
}

std::span<std::byte> ResultGrowth::grow(std::span<const std::byte> used, std::size_t capacity) {
    const shm::Offset fresh = arena_.allocate(capacity);
    std::byte* const bytes = ResultArena::room(fresh);
    copy_bytes(bytes, used.data(), used.size());
    if (block_ != 0) arena_.abandon(block_);
    block_ = fresh;
    return {bytes, capacity};
}

ResultGrowth::~ResultGrowth() {
    if (block_ != 0) arena_.abandon(block_);
}

}    // namespace multihull::detail
