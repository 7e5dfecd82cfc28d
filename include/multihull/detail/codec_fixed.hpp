// Values whose encoding has one size, known to the compiler: stored and loaded without a check for each part.
#pragma once

#include <multihull/detail/codec_bytes.hpp>
#include <multihull/detail/codec_types.hpp>

#include <array>
#include <bit>
#include <cstddef>
#include <cstring>
#include <memory>
#include <type_traits>
#include <utility>

namespace multihull::detail {

template <class T>
consteval std::size_t fixed_size();
template <class T>
consteval std::size_t min_size();

/// How many bytes every value of the type takes; 0 where that depends on the value.
template <class T>
inline constexpr std::size_t kFixedSize = fixed_size<std::remove_cv_t<T>>();
/// How many bytes a value of the type takes at least: never none, so that a length can be checked against the bytes there are.
template <class T>
inline constexpr std::size_t kMinSize = min_size<std::remove_cv_t<T>>();

template <class... Parts>
consteval std::size_t fixed_size_of(TypeList<Parts...>) {
    return ((kFixedSize<Parts> != 0) && ...) ? (kFixedSize<Parts> + ... + 0) : 0;
}
template <class... Parts>
consteval std::size_t min_size_of(TypeList<Parts...>) {
    return (kMinSize<Parts> + ... + 0);
}

template <class... Parts>
consteval bool holds_array(TypeList<Parts...>) {
    return (std::is_array_v<Parts> || ...);
}

template <class T>
consteval std::size_t fixed_size() {
    if constexpr (kKind<T> == Kind::plain) {
        return sizeof(T);
    } else if constexpr (kKind<T> == Kind::empty) {
        return 1;
    } else if constexpr (kKind<T> == Kind::tuple) {
        return fixed_size_of(typename StdType<T>::Parts{});
    } else if constexpr (kKind<T> == Kind::fields) {
        if constexpr (!holds_array(FieldTypes<T>{})) {
            return fixed_size_of(FieldTypes<T>{});
        } else {
            return 0;
        }
    } else {
        return 0;
    }
}

template <class T>
consteval std::size_t min_size() {
    if constexpr (kFixedSize<T> != 0) {
        return kFixedSize<T>;
    } else if constexpr (std::is_array_v<T>) {
        return kMinSize<std::remove_all_extents_t<T>> * (sizeof(T) / sizeof(std::remove_all_extents_t<T>));
    } else if constexpr (kKind<T> == Kind::array) {
        return kMinSize<typename T::value_type> * std::tuple_size_v<T>;
    } else if constexpr (kKind<T> == Kind::tuple) {
        return min_size_of(typename StdType<T>::Parts{});
    } else if constexpr (kKind<T> == Kind::fields) {
        return min_size_of(FieldTypes<T>{});
    } else if constexpr (kKind<T> == Kind::optional || kKind<T> == Kind::unique || kKind<T> == Kind::custom ||
                         kKind<T> == Kind::cereal) {
        return 1;
    } else if constexpr (kKind<T> == Kind::variant) {
        return sizeof(std::uint16_t);
    } else if constexpr (kKind<T> == Kind::shared) {
        return sizeof(std::uint32_t);
    } else {
        return sizeof(std::uint64_t);    // the length of a container
    }
}

/// Stores a value of a fixed size; the place behind it.
template <class T>
std::byte* store(std::byte* place, const T& value) {
    if constexpr (kKind<T> == Kind::plain && std::is_empty_v<T>) {
        std::memset(place, 0, sizeof(T));    // its one byte is nobody's, and may hold anything
        return place + sizeof(T);
    } else if constexpr (kKind<T> == Kind::plain) {
        std::memcpy(place, static_cast<const void*>(std::addressof(value)), sizeof(T));
        return place + sizeof(T);
    } else if constexpr (kKind<T> == Kind::empty) {
        *place = std::byte{0};
        return place + 1;
    } else if constexpr (kKind<T> == Kind::tuple) {
        std::apply([&](const auto&... parts) { ((place = store(place, parts)), ...); }, value);
        return place;
    } else {
        with_fields(value, [&](const auto&... fields) { ((place = store(place, fields)), ...); });
        return place;
    }
}

template <class T>
T load(const std::byte* place);

template <class T, class... Parts>
T load_parts(const std::byte* place, TypeList<Parts...>) {
    const auto next = [&place](std::size_t size) { return std::exchange(place, place + size); };
    return T{load<std::remove_cv_t<Parts>>(next(kFixedSize<Parts>))...};    // in order: the standard says so for braces
}

/// Loads what store() stored.
template <class T>
T load(const std::byte* place) {
    if constexpr (std::is_same_v<T, bool>) {
        if (std::to_integer<unsigned>(*place) > 1) [[unlikely]] {
            throw_damaged("a bool is neither true nor false");
        }
        return *place == std::byte{1};
    } else if constexpr (kKind<T> == Kind::plain) {
        std::array<std::byte, sizeof(T)> bytes;
        std::memcpy(bytes.data(), place, sizeof(T));
        return std::bit_cast<T>(bytes);
    } else if constexpr (kKind<T> == Kind::empty) {
        return T{};
    } else if constexpr (kKind<T> == Kind::tuple) {
        return load_parts<T>(place, typename StdType<T>::Parts{});
    } else {
        return load_parts<T>(place, FieldTypes<T>{});
    }
}

}    // namespace multihull::detail
