#include "manager/object_table.hpp"

#include <algorithm>
#include <limits>

namespace multihull::detail {

// The slot that holds the key, or the free one where it belongs. There must be slots.
std::size_t ObjectTable::place(const Object& key, std::size_t hash) const {
    const std::size_t mask = slots_.size() - 1;
    for (std::size_t slot = hash & mask;; slot = (slot + 1) & mask) {
        const std::uint32_t entry = slots_[slot];
        if (entry == 0 || (hashes_[entry - 1] == hash && keys_[entry - 1] == key)) return slot;
    }
}

std::optional<std::size_t> ObjectTable::find(const Object& key, std::size_t hash) const {
    if (slots_.empty()) return std::nullopt;
    const std::uint32_t entry = slots_[place(key, hash)];
    if (entry == 0) return std::nullopt;
    return entry - 1;
}

void ObjectTable::rebuild(std::size_t capacity) {
    std::vector<std::uint32_t> slots(capacity);
    const std::size_t mask = capacity - 1;
    for (std::size_t i = 0; i < keys_.size(); ++i) {
        std::size_t slot = hashes_[i] & mask;
        while (slots[slot] != 0) slot = (slot + 1) & mask;
        slots[slot] = static_cast<std::uint32_t>(i + 1);
    }
    slots_ = std::move(slots);
}

void ObjectTable::append(Object key, std::size_t hash) {
    if (keys_.size() >= std::numeric_limits<std::uint32_t>::max() - 1) {
        throw Error("a dict or set of an Object holds at most 4294967294 keys: use more than one");
    }
    if ((keys_.size() + 1) * 3 > slots_.size() * 2) rebuild(std::max<std::size_t>(8, slots_.size() * 2));
    const std::size_t slot = place(key, hash);
    hashes_.push_back(hash);
    try {
        keys_.push_back(std::move(key));
    } catch (...) {
        hashes_.pop_back();
        throw;
    }
    slots_[slot] = static_cast<std::uint32_t>(keys_.size());
}

bool ObjectTable::add(Object key) {
    const std::size_t hash = key.hash();
    if (find(key, hash)) return false;
    append(std::move(key), hash);
    return true;
}

Object& ObjectTable::value_for(const Object& key) {
    const std::size_t hash = key.hash();
    if (const auto index = find(key, hash)) return values_[*index];
    values_.reserve(values_.size() + 1 > values_.capacity() ? 2 * values_.size() + 4 : values_.capacity());
    append(key, hash);
    return values_.emplace_back();
}

bool ObjectTable::erase(const Object& key) {
    const auto index = find(key);
    if (!index) return false;
    const auto at = static_cast<std::ptrdiff_t>(*index);
    // The key itself may be what is erased: it is not looked at any more.
    if (!values_.empty()) values_.erase(values_.begin() + at);
    keys_.erase(keys_.begin() + at);
    hashes_.erase(hashes_.begin() + at);
    rebuild(slots_.size());
    return true;
}

ObjectTableBox::ObjectTableBox() : table_(std::make_unique<ObjectTable>()) {}
ObjectTableBox::ObjectTableBox(const ObjectTableBox& other) : table_(std::make_unique<ObjectTable>(*other.table_)) {}
ObjectTableBox::ObjectTableBox(ObjectTableBox&& other) noexcept = default;
ObjectTableBox& ObjectTableBox::operator=(ObjectTableBox other) noexcept {
    table_.swap(other.table_);
    return *this;
}
ObjectTableBox::~ObjectTableBox() = default;

}    // namespace multihull::detail
