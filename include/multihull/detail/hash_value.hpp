// Values into a Hasher: the recursion behind Hasher::add().
//
// Invariant: for values of one type, equal contents add equal bytes and no content adds the beginning of what another adds, so
// that what stands behind it can't be mistaken for a part of it: whatever varies in number is preceded by how many there are.
#pragma once

#include <multihull/detail/hash_cereal.hpp>
#include <multihull/detail/hash_types.hpp>
#include <multihull/hasher.hpp>

#include <algorithm>
#include <cstdint>
#include <iterator>
#include <limits>
#include <memory>
#include <variant>
#include <vector>

namespace multihull {
namespace detail {

/// Adds what a type's own Codec writes. Throws Error where that names a shared object or a descriptor.
void hash_encoding(Hasher& hasher, void (*encode)(Writer&, const void*), const void* value);

inline void hash_count(Hasher& hasher, std::size_t count) noexcept {
    const std::uint64_t wide = count;
    hasher.bytes(&wide, sizeof wide);
}

template <class T>
void hash_value(Hasher& hasher, const T& value);

template <class Range>
void hash_elements(Hasher& hasher, const Range& range) {
    const HashDescent descent(hasher);
    for (const auto& element : range) {
        hash_value(hasher, element);
    }
}

// Whatever the order of the elements, the same bytes: those of their hashes, sorted.
template <class Container>
void hash_unordered(Hasher& hasher, const Container& container) {
    const HashDescent descent(hasher);
    std::vector<Hash128> hashes;
    hashes.reserve(container.size());
    for (const auto& element : container) {
        Hasher one;
        hash_value(one, element);
        hashes.push_back(one.digest());
    }
    std::sort(hashes.begin(), hashes.end());
    hash_count(hasher, hashes.size());
    hasher.bytes(hashes.data(), hashes.size() * sizeof(Hash128));
}

template <class A>
void hash_bits(Hasher& hasher, const std::vector<bool, A>& bits) {
    hash_count(hasher, bits.size());
    std::uint8_t byte = 0;
    for (std::size_t i = 0; i < bits.size(); ++i) {
        byte = static_cast<std::uint8_t>(byte | static_cast<unsigned>(bits[i]) << (i % 8));
        if (i % 8 == 7 || i + 1 == bits.size()) {
            hasher.bytes(&byte, 1);
            byte = 0;
        }
    }
}

// The x87 format takes ten of its sixteen bytes; the others hold anything.
inline void hash_long_double(Hasher& hasher, const long double& value) noexcept {
    hasher.bytes(&value, std::numeric_limits<long double>::digits == 64 ? 10 : sizeof value);
}

template <class E>
void hash_array(Hasher& hasher, const E* elements, std::size_t count) {
    if constexpr (kHashedAsBytes<E>) {
        hasher.bytes(elements, count * sizeof(E));
    } else {
        for (std::size_t i = 0; i < count; ++i) {
            hash_value(hasher, elements[i]);
        }
    }
}

template <class Pointer>
void hash_pointee(Hasher& hasher, const Pointer& pointer) {
    const HashDescent descent(hasher);
    const std::uint8_t flag = pointer ? 1 : 0;
    hasher.bytes(&flag, 1);
    if (pointer) {
        hash_value(hasher, *pointer);
    }
}

template <class T>
void hash_std(Hasher& hasher, const T& value) {
    constexpr Kind kHow = kKind<T>;
    if constexpr (UnorderedContainer<T>) {
        hash_unordered(hasher, value);
    } else if constexpr (kHow == Kind::bits) {
        hash_bits(hasher, value);
    } else if constexpr (kHow == Kind::contiguous) {
        hash_count(hasher, value.size());
        hash_array(hasher, value.data(), value.size());
    } else if constexpr (kHow == Kind::forward_list) {
        hash_count(hasher, static_cast<std::size_t>(std::distance(value.begin(), value.end())));
        hash_elements(hasher, value);
    } else if constexpr (kHow == Kind::sequence || kHow == Kind::set || kHow == Kind::map) {
        hash_count(hasher, value.size());
        hash_elements(hasher, value);
    } else if constexpr (kHow == Kind::tuple) {
        std::apply([&](const auto&... parts) { (hash_value(hasher, parts), ...); }, value);
    } else if constexpr (kHow == Kind::variant) {
        const std::uint64_t index = value.index();
        hasher.bytes(&index, sizeof index);
        if (!value.valueless_by_exception()) {
            std::visit([&](const auto& alternative) { hash_value(hasher, alternative); }, value);
        }
    } else if constexpr (kHow == Kind::optional || kHow == Kind::unique || kHow == Kind::shared) {
        hash_pointee(hasher, value);
    } else if constexpr (kStdArray<T>) {
        hash_array(hasher, value.data(), value.size());
    } else {
        static_assert(kHow == Kind::empty);
    }
}

template <class T>
void hash_value(Hasher& hasher, const T& value) {
    constexpr Kind kHow = kKind<T>;
    if constexpr (HasContentHash<T>) {
        const HashDescent descent(hasher);
        ContentHash<T>::update(hasher, value);
    } else if constexpr (kHashedAsBytes<T>) {
        hasher.bytes(std::addressof(value), sizeof value);
    } else if constexpr (std::is_array_v<T>) {
        hash_array(hasher, value, std::extent_v<T>);
    } else if constexpr (std::is_arithmetic_v<T>) {
        hash_long_double(hasher, value);
    } else if constexpr (ComplexLike<T>) {
        hash_value(hasher, value.real());
        hash_value(hasher, value.imag());
    } else if constexpr (DurationLike<T>) {
        hash_value(hasher, value.count());
    } else if constexpr (TimePointLike<T>) {
        hash_value(hasher, value.time_since_epoch());
    } else if constexpr (kHow == Kind::custom) {
        const auto encode = [](Writer& writer, const void* it) {
            Codec<T>::encode(writer, *static_cast<const T*>(it));
        };
        hash_encoding(hasher, encode, std::addressof(value));
    } else if constexpr (StdType<T>::kKind != Kind::unknown) {
        hash_std(hasher, value);
    } else if constexpr (kHow == Kind::path) {
        hash_value(hasher, value.native());
    } else if constexpr (kHow == Kind::cereal) {
        const HashDescent descent(hasher);
        HashArchive archive(hasher);
        archive.save_by_cereal(value);
    } else if constexpr (!std::is_empty_v<T>) {
        with_fields(value, [&](const auto&... fields) { (hash_value(hasher, fields), ...); });
    }
}

template <class Value>
void HashArchive::save_one(const Value& value) {
    if constexpr (kCerealWrapper<Value>) {
        save_by_cereal(value);
    } else if constexpr (std::is_array_v<Value>) {
        for (const auto& element : value) {
            save_one(element);
        }
    } else if constexpr (!HasContentHash<Value> && (kKind<Value> == Kind::cereal || kOnlyByCereal<Value>)) {
        const HashDescent descent(hasher_);
        save_by_cereal(value);
    } else if constexpr (Hashable<Value>) {
        hash_value(hasher_, value);
    } else {
        require_hashable<Value>();
    }
}

}    // namespace detail

template <class T>
void Hasher::add(const T& value) {
    if constexpr (!Hashable<T>) {
        detail::require_hashable<T>();
    } else {
        detail::hash_value(*this, value);
    }
}

}    // namespace multihull
