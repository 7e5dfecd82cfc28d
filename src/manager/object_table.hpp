// The keys of a dict or a set in the order in which they came, with a dict's values beside them, found by their hashes.
//
// Not thread-safe. Invariants
// (1) hashes_[i] is the hash of keys_[i]; no two keys are equal. values_ is empty (a set's) or as long as keys_.
// (2) slots_ has a power of two of places, at most two thirds of them taken: each holds a key's number plus one, at or behind the place
//     that its hash says, with no free one between. kGone stands where an erased key's number was.
// (3) gone_[i] says that key i was erased, and both it and its value are None then; it is empty, or as long as keys_. The last key is
//     never gone. Only who erases sees any of this: see compact().
#pragma once

#include <multihull/object.hpp>

#include <cstdint>
#include <optional>

namespace multihull::detail {

class ObjectTable {
public:
    std::size_t size() const noexcept { return keys_.size() - gone_count_; }
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
    /// Leaves a gap among keys() and values(), unless it is the last one, until compact(); now and then does that itself, so that each
    /// of many erasures costs the same however many keys there are.
    bool erase(const Object& key);
    /// Closes the gaps. What is asked for keys() and values() must have none.
    void compact();

private:
    static constexpr std::uint32_t kGone = 0xffffffff;

    std::size_t place(const Object& key, std::size_t hash) const;
    void append(Object key, std::size_t hash);
    void make_room();
    void rebuild(std::size_t capacity);

    std::vector<Object> keys_;
    std::vector<Object> values_;
    std::vector<std::size_t> hashes_;
    std::vector<std::uint32_t> slots_;
    std::size_t taken_slots_ = 0;    // those of kGone among them
    std::vector<bool> gone_;
    std::size_t gone_count_ = 0;
};

/// A dict or a set from which keys are erased one by one, without a look at all the others each time.
class GappedKeys {
public:
    /// Throws Error when it is neither.
    explicit GappedKeys(Object object);

    /// The dict or set itself, with no gaps: may cost as much as a copy.
    Object& whole();
    /// The value of a dict's key; null where there is no such key.
    const Object* find(const Object& key) const;
    bool contains(const Object& key) const;
    std::size_t size() const noexcept;
    /// The newest key; null when there is none.
    const Object* last() const;
    Object& operator[](const Object& key);
    bool add(Object key);
    bool erase(const Object& key);

private:
    ObjectTable& table() const noexcept;

    Object object_;
};

}    // namespace multihull::detail
