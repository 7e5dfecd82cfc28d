#include "shm/heap.hpp"

#include <algorithm>
#include <atomic>
#include <bit>

namespace multihull::shm {

namespace {

// Never destroyed: futures kept in static objects give blocks back until the very end of the program.
std::atomic<Heap*> the_heap{nullptr};

constexpr std::size_t round_up(std::size_t value, std::size_t unit) { return (value + unit - 1) / unit * unit; }

}    // namespace

Heap& Heap::instance() {
    Heap* heap = the_heap.load(std::memory_order_acquire);
    if (heap != nullptr) return *heap;
    auto* fresh = new Heap;
    if (the_heap.compare_exchange_strong(heap, fresh, std::memory_order_acq_rel)) return *fresh;
    delete fresh;
    return *heap;
}

void Heap::after_fork() noexcept {
    // The copy of the parent's bookkeeping is left alone: its mutex may be held by a thread that does not exist here.
    the_heap.store(nullptr, std::memory_order_release);
}

std::size_t Heap::class_of(std::size_t bytes) noexcept {
    std::size_t index = 0;
    while (class_size(index) < bytes) ++index;
    return index;
}

// 64, 128, 192, 256, 384, 512, 768, ...: at most a third of a block is slack.
std::size_t Heap::class_size(std::size_t index) noexcept {
    if (index == 0) return kUnit;
    const std::size_t power = std::size_t{128} << ((index - 1) / 2);
    return index % 2 == 0 ? power / 2 * 3 : power;
}

Offset Heap::allocate(std::size_t bytes) {
    bytes = std::max(bytes, kUnit);
    const std::lock_guard guard(mutex_);
    if (bytes > kSlab) {
        const std::size_t size = round_up(bytes, os::page_size());
        const Offset block = allocate_range(size);
        if (block != 0) used_ += size;
        return block;
    }
    const std::size_t index = class_of(bytes);
    const std::size_t size = class_size(index);
    auto& blocks = free_blocks_[index];
    if (blocks.empty()) {
        const Offset slab = allocate_range(kSlab);
        if (slab == 0) return 0;
        // Lowest address last, so that the blocks are handed out in the order of the pages they touch.
        for (std::size_t n = kSlab / size; n-- > 0;) blocks.push_back(slab + n * size);
    }
    const Offset block = blocks.back();
    blocks.pop_back();
    used_ += size;
    return block;
}

void Heap::free(Offset block, std::size_t bytes) noexcept {
    // A forked child that drops copies of its parent's objects must not hand their memory out again.
    if (block == 0 || !Region::instance().owns(block)) return;
    bytes = std::max(bytes, kUnit);
    const std::lock_guard guard(mutex_);
    if (bytes > kSlab) {
        const std::size_t size = round_up(bytes, os::page_size());
        used_ -= size;
        free_range(block, size);
        return;
    }
    const std::size_t index = class_of(bytes);
    used_ -= class_size(index);
    free_blocks_[index].push_back(block);
}

Offset Heap::allocate_range(std::size_t bytes) {
    auto fit = ranges_by_size_.lower_bound({bytes, 0});
    if (fit == ranges_by_size_.end()) {
        const std::size_t size = round_up(bytes, kExtentSize);
        const Offset extents = Region::instance().claim_extents(size);
        if (extents == 0) return 0;
        held_ += size;
        insert_range(extents, size);    // however big: it is taken at once
        fit = ranges_by_size_.lower_bound({bytes, 0});
    }
    const auto [size, begin] = *fit;
    ranges_by_size_.erase(fit);
    free_ranges_.erase(begin);
    idle_ -= bytes;
    if (size > bytes) {
        free_ranges_.emplace(begin + bytes, size - bytes);
        ranges_by_size_.emplace(size - bytes, begin + bytes);
    }
    return begin;
}

void Heap::free_range(Offset begin, std::size_t bytes) {
    const auto [merged, size] = insert_range(begin, bytes);
    if (idle_ > kKeep) trim(merged, size);
}

std::pair<Offset, std::size_t> Heap::insert_range(Offset begin, std::size_t bytes) {
    idle_ += bytes;
    auto next = free_ranges_.lower_bound(begin);
    if (next != free_ranges_.end() && next->first == begin + bytes) {
        bytes += next->second;
        ranges_by_size_.erase({next->second, next->first});
        next = free_ranges_.erase(next);
    }
    if (next != free_ranges_.begin()) {
        const auto previous = std::prev(next);
        if (previous->first + previous->second == begin) {
            begin = previous->first;
            bytes += previous->second;
            ranges_by_size_.erase({previous->second, previous->first});
            free_ranges_.erase(previous);
        }
    }
    free_ranges_.emplace(begin, bytes);
    ranges_by_size_.emplace(bytes, begin);
    return {begin, bytes};
}

void Heap::trim(Offset begin, std::size_t bytes) {
    const Offset origin = Region::instance().extents_begin();
    const Offset first = origin + round_up(begin - origin, kExtentSize);
    const Offset last = origin + (begin + bytes - origin) / kExtentSize * kExtentSize;
    if (first >= last) return;
    const std::size_t size = last - first;
    free_ranges_.erase(begin);
    ranges_by_size_.erase({bytes, begin});
    if (first > begin) {
        free_ranges_.emplace(begin, first - begin);
        ranges_by_size_.emplace(first - begin, begin);
    }
    if (begin + bytes > last) {
        free_ranges_.emplace(last, begin + bytes - last);
        ranges_by_size_.emplace(begin + bytes - last, last);
    }
    idle_ -= size;
    held_ -= size;
    Region::instance().release_extents(first, size);
}

std::size_t Heap::used() const noexcept {
    const std::lock_guard guard(mutex_);
    return used_;
}

std::size_t Heap::held() const noexcept {
    const std::lock_guard guard(mutex_);
    return held_;
}

}    // namespace multihull::shm
