// The keys of a dict or a set in the order in which they came, with a dict's values beside them, found by their hashes.
//
// Not thread-safe. Invariants
// (1) hashes_[i] is the hash of keys_[i]; no two keys are equal. values_ is empty (a set's) or as long as keys_.
// (2) slots_ has a power of two of places, at most two thirds of them taken: each holds a key's number plus one, at or behind the place
//     that its hash says, with no free one between.
#pragma once

#include <multihull/object.hpp>

#include <cstdint>
#include <optional>

namespace multihull::detail {

class ObjectTable {
public:
    std::size_t size() const noexcept { return keys_.size(); }
    const std::vector<Object>& keys() const noexcept { return keys_; }
    std::vector<Object>& values() noexcept { return values_; }
    std::size_t hash_at(std::size_t index) const noexcept { return hashes_[index]; }

    /// The number of the key. Throws TypeError when it can't be hashed.
    std::optional<std::size_t> find(const Object& key) const { return find(key, key.hash()); }
    std::optional<std::size_t> find(const Object& key, std::size_t hash) const;
    /// Of a set: adds a key unless it is there.
    bool add(Object key);
    /// Of a dict: the value for a key, None for a new one.
    Object& value_for(const Object& key);
    bool erase(const Object& key);

private:
    std::size_t place(const Object& key, std::size_t hash) const;
    void append(Object key, std::size_t hash);
    void rebuild(std::size_t capacity);

    std::vector<Object> keys_;
    std::vector<Object> values_;
    std::vector<std::size_t> hashes_;
    std::vector<std::uint32_t> slots_;
};

}    // namespace multihull::detail
