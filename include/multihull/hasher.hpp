// XXH3's 128-bit hash of a stream of bytes, into which values are put one after another.
//
// Not thread-safe: one Hasher belongs to one thread.
#pragma once

#include <compare>
#include <cstddef>
#include <cstdint>
#include <string>

namespace multihull {

/// 128 bits that stand for a content.
struct Hash128 {
    std::uint64_t high = 0;
    std::uint64_t low = 0;

    /// 32 hexadecimal digits.
    std::string to_string() const;

    auto operator<=>(const Hash128&) const = default;
};

/// Takes bytes and values, and gives their hash. The same on every machine of one byte order.
class Hasher {
public:
    Hasher() noexcept;
    Hasher(const Hasher&) = delete;
    Hasher& operator=(const Hasher&) = delete;
    ~Hasher() = default;

    /// Adds bytes as they are. Their number is not added: do that where it can vary.
    void bytes(const void* data, std::size_t size) noexcept;
    /// Adds a value by its content: see content_hash.hpp, which defines it.
    template <class T>
    void add(const T& value);

    /// The hash of what was added until now.
    Hash128 digest() const noexcept;

private:
    friend class HashDescent;

    alignas(64) std::byte state_[576];
    std::uint32_t depth_ = 0;
};

/// One level deeper into a value, for as long as it lives: a circle of pointers ends in an Error.
class HashDescent {
public:
    explicit HashDescent(Hasher& hasher);
    ~HashDescent() { --hasher_.depth_; }
    HashDescent(const HashDescent&) = delete;
    HashDescent& operator=(const HashDescent&) = delete;

private:
    Hasher& hasher_;
};

/// How a type of one's own is hashed, where its fields can't be looked at: specialise it with
/// `static void update(Hasher& hasher, const T& value)`, which calls `hasher.add(...)` with what the value consists of.
template <class T>
struct ContentHash;

}    // namespace multihull
