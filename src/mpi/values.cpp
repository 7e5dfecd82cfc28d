#include "mpi/values.hpp"

#include "mpi/world.hpp"
#include "shm/region.hpp"

#include <multihull/detail/mpi_value.hpp>
#include <multihull/error.hpp>

#include <array>
#include <atomic>
#include <new>
#include <utility>

namespace multihull {

namespace mpi {

namespace {

struct ValueEntry {
    std::atomic<std::uint64_t> number;
    std::uint64_t offset;
    std::uint64_t size;
};
using ValueTable = std::array<ValueEntry, 1024>;

ValueTable* table() noexcept {
    auto& region = shm::Region::instance();
    const shm::Offset place = region.header().broadcast_values.load(std::memory_order_acquire);
    return place == 0 ? nullptr : region.at<ValueTable>(place);
}

}    // namespace

Values::Values() : table_(sizeof(ValueTable)) {
    new (table_.data()) ValueTable{};
    shm::Region::instance().header().broadcast_values.store(table_.offset(), std::memory_order_release);
}

Values::~Values() { shm::Region::instance().header().broadcast_values.store(0, std::memory_order_release); }

void Values::add(std::uint64_t number, multihull::detail::SharedBlock block, std::size_t size) {
    const std::lock_guard guard(mutex_);
    for (ValueEntry& entry : *table()) {
        if (entry.number.load(std::memory_order_relaxed) != 0) continue;
        entry.offset = block.offset();
        entry.size = size;
        entry.number.store(number, std::memory_order_release);
        blocks_.emplace(number, std::move(block));
        return;
    }
    throw Error("1024 values are broadcast already: drop handles of those that are not needed any more");
}

void Values::remove(std::uint64_t number) noexcept {
    const std::lock_guard guard(mutex_);
    for (ValueEntry& entry : *table()) {
        if (entry.number.load(std::memory_order_relaxed) == number) entry.number.store(0, std::memory_order_release);
    }
    blocks_.erase(number);
}

std::optional<std::span<const std::byte>> find_value(std::uint64_t number) noexcept {
    ValueTable* const entries = table();
    if (entries == nullptr || number == 0) return std::nullopt;
    for (const ValueEntry& entry : *entries) {
        if (entry.number.load(std::memory_order_acquire) != number) continue;
        return std::span<const std::byte>(shm::Region::instance().at(entry.offset), entry.size);
    }
    return std::nullopt;
}

}    // namespace mpi

namespace detail {

namespace {

// What this process has decoded; left behind, never destroyed, as tasks may run until the process ends.
struct Decoded {
    std::mutex mutex;
    std::map<std::uint64_t, std::shared_ptr<const void>> values;
};
Decoded& decoded() {
    static auto* const instance = new Decoded;
    return *instance;
}

}    // namespace

std::shared_ptr<const std::uint64_t> broadcast_bytes(CallBuffer& value) {
    const std::size_t size = value.writer().size();
    const std::uint64_t number = mpi::World::current().broadcast(SharedBlock::take(value), size);
    return {new std::uint64_t(number), [](const std::uint64_t* own) {
                mpi::World::forget_value(*own);
                delete own;
            }};
}

std::shared_ptr<const void> broadcast_here(std::uint64_t number, std::shared_ptr<const void> (*decode)(Reader&)) {
    Decoded& all = decoded();
    const std::lock_guard guard(all.mutex);
    if (const auto known = all.values.find(number); known != all.values.end()) return known->second;
    const auto bytes = mpi::find_value(number);
    if (!bytes) throw ObjectGone("a broadcast value was looked for that exists no more: keep a handle of it on rank 0");
    std::erase_if(all.values, [](const auto& entry) { return !mpi::find_value(entry.first); });
    Reader reader(*bytes, Reader::FromAfar{});
    return all.values.emplace(number, decode(reader)).first->second;
}

}    // namespace detail

}    // namespace multihull
