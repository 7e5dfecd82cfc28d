// A read-only array that may lie in a mapped file: what a function returns, or load() gives, when a big result is not to be copied.
//
// Thread-safe as a const std::vector is. Copies share the elements. Files of Multihull are never changed in place, so the elements
// stay what they are, also when the file is replaced or removed meanwhile. A file that something else cuts short is a SIGBUS to
// who looks behind its end.
#pragma once

#include <multihull/codec.hpp>
#include <multihull/detail/hash_value.hpp>
#include <multihull/detail/memory_store.hpp>

#include <algorithm>
#include <compare>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <memory>
#include <span>
#include <type_traits>
#include <utility>
#include <vector>

namespace multihull {

/// Elements that are kept alive together: by a vector of this process, or by a mapping.
template <class T>
class MappedArray {
    static_assert(detail::kPlain<T> && !std::is_same_v<T, bool>,
                  "multihull: a MappedArray's elements lie in a file as they lie in memory: they must be plain values, "
                  "and not bool (use unsigned char)");

public:
    using value_type = T;
    using const_iterator = const T*;

    MappedArray() = default;
    MappedArray(std::vector<T> elements) {
        auto owner = std::make_shared<const std::vector<T>>(std::move(elements));
        elements_ = *owner;
        owner_ = std::move(owner);
    }
    MappedArray(std::initializer_list<T> elements) : MappedArray(std::vector<T>(elements)) {}
    /// Elements that live as long as the owner does.
    MappedArray(std::shared_ptr<const void> owner, std::span<const T> elements) noexcept
        : owner_(std::move(owner)), elements_(elements) {}

    const T* data() const noexcept { return elements_.data(); }
    std::size_t size() const noexcept { return elements_.size(); }
    bool empty() const noexcept { return elements_.empty(); }
    const T& operator[](std::size_t index) const noexcept { return elements_[index]; }
    const T* begin() const noexcept { return elements_.data(); }
    const T* end() const noexcept { return elements_.data() + elements_.size(); }
    std::span<const T> span() const noexcept { return elements_; }
    operator std::span<const T>() const noexcept { return elements_; }

    bool operator==(const MappedArray& other) const { return std::equal(begin(), end(), other.begin(), other.end()); }

private:
    std::shared_ptr<const void> owner_;
    std::span<const T> elements_;
};

namespace detail {

template <class T>
inline constexpr bool kMappedArray = false;
template <class T>
inline constexpr bool kMappedArray<MappedArray<T>> = true;

// As a vector is encoded, so that a file with the one can be read as the other.
template <class T>
void encode_elements_of(Writer& writer, const MappedArray<T>& array) {
    writer.write_length(array.size());
    writer.write_aligned(array.data(), array.size() * sizeof(T), alignof(T));
}

template <class T>
MappedArray<T> decode_mapped(Reader& reader) {
    const std::size_t count = reader.read_length(sizeof(T));
    if constexpr (alignof(T) > 1) {
        const auto padding = reader.get<std::uint8_t>();
        if (padding >= alignof(T)) throw_damaged("there is more padding than any element needs");
        reader.view(padding);
    }
    const auto bytes = reader.view(count * sizeof(T));
    auto owner = DecodeFrom::owner_of(bytes);
    if (owner != nullptr && reinterpret_cast<std::uintptr_t>(bytes.data()) % alignof(T) == 0) {
        return MappedArray<T>(std::move(owner), {std::launder(reinterpret_cast<const T*>(bytes.data())), count});
    }
    std::vector<T> elements;
    elements.reserve(count);
    for (std::size_t i = 0; i < count; ++i) elements.push_back(load<T>(bytes.data() + i * sizeof(T)));
    return MappedArray<T>(std::move(elements));
}

}    // namespace detail

template <class T>
    requires Hashable<T>
struct ContentHash<MappedArray<T>> {
    static void update(Hasher& hasher, const MappedArray<T>& array) {
        detail::hash_count(hasher, array.size());
        detail::hash_array(hasher, array.data(), array.size());
    }
};

/// Travels to another process as its elements.
template <class T>
struct Codec<MappedArray<T>> {
    static void encode(detail::Writer& writer, const MappedArray<T>& array) {
        detail::encode_elements_of(writer, array);
    }
    static MappedArray<T> decode(detail::Reader& reader) { return detail::decode_mapped<T>(reader); }
};

}    // namespace multihull
