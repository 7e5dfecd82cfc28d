// What a call's bytes are put into, and what they name with them.
#include "os/memory.hpp"
#include "process/exchange.hpp"
#include "shm/heap.hpp"
#include "shm/region.hpp"

#include <multihull/detail/engine.hpp>
#include <multihull/error.hpp>

#include <algorithm>
#include <iterator>
#include <new>
#include <utility>

namespace multihull::detail {

namespace {

// Of calls that are no task yet, beside the homes of pools.
constexpr std::uint64_t kCallsWithoutTask = 1;
std::atomic<std::uint64_t> next_call{1};

}    // namespace

CallDescriptors::~CallDescriptors() {
    if (any()) forget_descriptors({kCallsWithoutTask, id_});
}

DescriptorTicket CallDescriptors::put(int descriptor) {
    if (!any()) id_ = next_call.fetch_add(1, std::memory_order_relaxed);
    return keep_descriptor(descriptor, {kCallsWithoutTask, id_});
}

int CallDescriptors::take(const DescriptorTicket& ticket) { return withdraw_descriptor(ticket).release(); }

void CallDescriptors::give_to(std::uint64_t pool, std::uint64_t task) noexcept {
    rescope_descriptors({kCallsWithoutTask, std::exchange(id_, 0)}, {pool, task});
}

CallBuffer::CallBuffer() : writer_(first_, room_, &descriptors_) { writer_.keep_in(kept_); }
CallBuffer::CallBuffer(SharedBlock block, std::size_t size)
    : writer_(std::span(block.data(), block.size()), room_, &descriptors_) {
    writer_.keep_in(kept_);
    writer_.claim(size);
    kept_ = std::move(block.kept_);
    room_.block = std::exchange(block.offset_, 0);
    room_.size = block.size_;
}
CallBuffer::CallBuffer(const BorrowedBytes& bytes) : CallBuffer() { borrowed_ = bytes; }
CallBuffer::~CallBuffer() = default;

CallBuffer::Room::~Room() {
    if (block != 0) shm::Heap::instance().free(block, size);
}

std::span<std::byte> CallBuffer::Room::grow(std::span<const std::byte> used, std::size_t capacity) {
    const shm::Offset fresh = shm::Heap::instance().allocate(capacity);
    if (fresh == 0) throw std::bad_alloc();
    std::byte* const bytes = shm::Region::instance().at(fresh);
    copy_bytes(bytes, used.data(), used.size());
    if (block != 0) shm::Heap::instance().free(block, size);
    block = fresh;
    size = capacity;
    return {bytes, capacity};
}

void CallBuffer::Room::copy(std::byte* to, const void* from, std::size_t bytes) {
    // A worker that takes the call at once has it from this processor's cache. Where more waits than caches hold it has not.
    constexpr std::size_t kCached = std::size_t{16} << 20;
    if (shm::Heap::instance().used() > kCached) {
        os::copy_past_caches(to, from, bytes);
    } else {
        copy_bytes(to, from, bytes);
    }
}

SharedBlock::SharedBlock(std::size_t size) : offset_(shm::Heap::instance().allocate(size)), size_(size) {
    if (offset_ == 0) throw std::bad_alloc();
}

SharedBlock SharedBlock::take(CallBuffer& buffer) {
    if (buffer.descriptors_.any()) {
        throw CodecError(
            "the function or the inputs of a map hold a file descriptor, which only one worker could take: use "
            "apply_async() or imap()");
    }
    if (buffer.room_.block != 0) {
        SharedBlock block = adopt(std::exchange(buffer.room_.block, 0), buffer.room_.size);
        block.kept_ = std::move(buffer.kept_);
        return block;
    }
    SharedBlock block(std::max<std::size_t>(buffer.writer_.size(), 1));
    copy_bytes(block.data(), buffer.writer_.bytes().data(), buffer.writer_.size());
    block.kept_ = std::move(buffer.kept_);
    return block;
}

void SharedBlock::give_kept_to(CallBuffer& call) {
    call.kept_.insert(call.kept_.end(), std::make_move_iterator(kept_.begin()), std::make_move_iterator(kept_.end()));
    kept_.clear();
}

SharedBlock::SharedBlock(SharedBlock&& other) noexcept
    : offset_(std::exchange(other.offset_, 0)), size_(other.size_), kept_(std::move(other.kept_)) {}

SharedBlock& SharedBlock::operator=(SharedBlock&& other) noexcept {
    std::swap(offset_, other.offset_);
    std::swap(size_, other.size_);
    std::swap(kept_, other.kept_);
    return *this;
}

SharedBlock::~SharedBlock() {
    if (offset_ != 0 && size_ != 0) shm::Heap::instance().free(offset_, size_);
}

std::byte* SharedBlock::data() const noexcept { return shm::Region::instance().at(offset_); }

}    // namespace multihull::detail
