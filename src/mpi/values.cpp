#include "mpi/values.hpp"

#include "mpi/broadcast.hpp"
#include "mpi/world.hpp"
#include "shm/region.hpp"

#include <multihull/detail/mpi_value.hpp>
#include <multihull/error.hpp>

#include <algorithm>
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

ValueBytes::ValueBytes(multihull::detail::SharedBlock block, std::size_t size)
    : block_(std::move(block)), size_(size) {}

ValueBytes::ValueBytes(std::size_t size) : block_(std::max<std::size_t>(size, 1)), size_(size) {}

Values::Values() : table_(sizeof(ValueTable)) {
    new (table_.data()) ValueTable{};
    shm::Region::instance().header().broadcast_values.store(table_.offset(), std::memory_order_release);
}

Values::~Values() { shm::Region::instance().header().broadcast_values.store(0, std::memory_order_release); }

bool Values::try_add(std::uint64_t number, ValuePtr value) {
    for (ValueEntry& entry : *table()) {
        if (entry.number.load(std::memory_order_relaxed) != 0) continue;
        entry.offset = value->offset();
        entry.size = value->bytes().size();
        values_.emplace(number, std::move(value));
        entry.number.store(number, std::memory_order_release);
        return true;
    }
    return false;
}

void Values::remove(std::uint64_t number) noexcept {
    for (ValueEntry& entry : *table()) {
        if (entry.number.load(std::memory_order_relaxed) == number) entry.number.store(0, std::memory_order_release);
    }
    values_.erase(number);
}

ValuePtr Values::find(std::uint64_t number) const {
    const auto place = values_.find(number);
    return place == values_.end() ? nullptr : place->second;
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

// Ends a handle's number: of rank 0's own, the value is forgotten with the last one. Known by its type among whatever else a call keeps.
struct EndNumber {
    bool owns = false;
    void operator()(const std::uint64_t* number) const noexcept {
        if (owns) mpi::World::forget_value(*number);
        delete number;
    }
};

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
    const std::uint64_t number = mpi::World::current().broadcasts().send(SharedBlock::take(value), size);
    return {new std::uint64_t(number), EndNumber{true}};
}

std::shared_ptr<const std::uint64_t> broadcast_number(std::uint64_t number) {
    return {new std::uint64_t(number), EndNumber{}};
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

std::vector<std::uint64_t> mpi::values_in(std::span<const std::shared_ptr<const void>> kept) {
    std::vector<std::uint64_t> numbers;
    for (const auto& named : kept) {
        if (std::get_deleter<detail::EndNumber>(named) == nullptr) continue;
        const std::uint64_t number = *static_cast<const std::uint64_t*>(named.get());
        if (std::find(numbers.begin(), numbers.end(), number) == numbers.end()) numbers.push_back(number);
    }
    return numbers;
}

}    // namespace multihull
