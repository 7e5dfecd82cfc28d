#include "manager/object_table.hpp"

#include <algorithm>

namespace multihull::detail {

// The slot that holds the key, or the free one where it belongs. There must be slots.
std::size_t ObjectTable::place(const Object& key, std::size_t hash) const {
    const std::size_t mask = slots_.size() - 1;
    for (std::size_t slot = hash & mask;; slot = (slot + 1) & mask) {
        const std::uint32_t entry = slots_[slot];
        if (entry == 0 || (entry != kGone && hashes_[entry - 1] == hash && keys_[entry - 1] == key)) return slot;
    }
}

std::optional<std::size_t> ObjectTable::find(const Object& key, std::size_t hash) const {
    if (slots_.empty()) return std::nullopt;
    const std::uint32_t entry = slots_[place(key, hash)];
    if (entry == 0) return std::nullopt;
    return entry - 1;
}

void ObjectTable::rebuild(std::size_t capacity) {
    slots_.assign(capacity, 0);
    const std::size_t mask = capacity - 1;
    for (std::size_t i = 0; i < keys_.size(); ++i) {
        if (!gone_.empty() && gone_[i]) continue;
        std::size_t slot = hashes_[i] & mask;
        while (slots_[slot] != 0) slot = (slot + 1) & mask;
        slots_[slot] = static_cast<std::uint32_t>(i + 1);
    }
    taken_slots_ = size();
}

// For one key more. Where most of the places are those of erased keys, as many as there are will do.
void ObjectTable::make_room() {
    if ((taken_slots_ + 1) * 3 <= slots_.size() * 2) return;
    rebuild(std::max<std::size_t>(8, (size() + 1) * 3 > slots_.size() ? slots_.size() * 2 : slots_.size()));
}

void ObjectTable::append(Object key, std::size_t hash) {
    if (keys_.size() >= kGone - 1) {
        throw Error("a dict or set of an Object holds at most 4294967293 keys: use more than one");
    }
    make_room();
    const std::size_t slot = place(key, hash);
    hashes_.push_back(hash);
    try {
        keys_.push_back(std::move(key));
    } catch (...) {
        hashes_.pop_back();
        throw;
    }
    slots_[slot] = static_cast<std::uint32_t>(keys_.size());
    ++taken_slots_;
    if (!gone_.empty()) gone_.push_back(false);
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
    if (slots_.empty()) return false;
    const std::size_t slot = place(key, key.hash());
    if (slots_[slot] == 0) return false;
    const std::size_t index = slots_[slot] - 1;
    if (gone_.empty()) gone_.resize(keys_.size());
    slots_[slot] = kGone;
    gone_[index] = true;
    ++gone_count_;
    // The key itself may be what is erased: it is not looked at any more.
    if (!values_.empty()) values_[index] = Object();
    keys_[index] = Object();
    while (!keys_.empty() && gone_.back()) {
        if (!values_.empty()) values_.pop_back();
        keys_.pop_back();
        hashes_.pop_back();
        gone_.pop_back();
        --gone_count_;
    }
    if (gone_count_ > 16 && gone_count_ > size()) compact();
    return true;
}

void ObjectTable::compact() {
    if (gone_count_ == 0) return;
    std::size_t kept = 0;
    for (std::size_t i = 0; i < keys_.size(); ++i) {
        if (gone_[i]) continue;
        if (kept != i) {
            keys_[kept] = std::move(keys_[i]);
            hashes_[kept] = hashes_[i];
            if (!values_.empty()) values_[kept] = std::move(values_[i]);
        }
        ++kept;
    }
    keys_.resize(kept);
    hashes_.resize(kept);
    if (!values_.empty()) values_.resize(kept);
    gone_.clear();
    gone_count_ = 0;
    rebuild(slots_.size());
}

GappedKeys::GappedKeys(Object object) : object_(std::move(object)) {
    if (object_.table() == nullptr) throw Error("only a dict or a set has keys, not " + object_.repr());
}

ObjectTable& GappedKeys::table() const noexcept { return *object_.table(); }
Object& GappedKeys::whole() {
    table().compact();
    return object_;
}
const Object* GappedKeys::find(const Object& key) const {
    const auto index = table().find(key);
    return index ? &table().values()[*index] : nullptr;
}
bool GappedKeys::contains(const Object& key) const { return table().find(key).has_value(); }
std::size_t GappedKeys::size() const noexcept { return table().size(); }
const Object* GappedKeys::last() const { return table().keys().empty() ? nullptr : &table().keys().back(); }
Object& GappedKeys::operator[](const Object& key) { return table().value_for(key); }
bool GappedKeys::add(Object key) { return table().add(std::move(key)); }
bool GappedKeys::erase(const Object& key) { return table().erase(key); }

ObjectTableBox::ObjectTableBox() : table_(std::make_unique<ObjectTable>()) {}
ObjectTableBox::ObjectTableBox(const ObjectTableBox& other) : table_(std::make_unique<ObjectTable>(*other.table_)) {}
ObjectTableBox::ObjectTableBox(ObjectTableBox&& other) noexcept = default;
ObjectTableBox& ObjectTableBox::operator=(ObjectTableBox other) noexcept {
    table_.swap(other.table_);
    return *this;
}
ObjectTableBox::~ObjectTableBox() = default;

}    // namespace multihull::detail
