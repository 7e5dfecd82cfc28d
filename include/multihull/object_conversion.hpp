// C++ values to Objects and back: how arguments and results of a manager's objects are said to Python.
//
// A bool, numbers, texts, std::byte ranges (bytes), optional (None where empty), pair and tuple (a tuple), ranges (a list), sets, and
// maps (a dict); an Object and a proxy are themselves. Thread-safe.
#pragma once

#include <multihull/object.hpp>

#include <array>
#include <concepts>
#include <cstddef>
#include <map>
#include <optional>
#include <ranges>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <tuple>
#include <type_traits>
#include <unordered_map>
#include <unordered_set>
#include <utility>
#include <vector>

namespace multihull {

namespace detail {

template <class T>
inline constexpr bool kOptional = false;
template <class T>
inline constexpr bool kOptional<std::optional<T>> = true;

template <class T>
concept MapLike = requires {
    typename T::key_type;
    typename T::mapped_type;
};
template <class T>
concept SetLike = !MapLike<T> && requires { typename T::key_type; };

template <class T>
concept TupleLike = !std::ranges::range<T> && requires { std::tuple_size<T>::value; };

template <class T>
concept ByteRange = std::ranges::contiguous_range<T> && std::same_as<std::ranges::range_value_t<T>, std::byte>;

template <class T>
struct FixedArray : std::false_type {};
template <class T, std::size_t kSize>
struct FixedArray<std::array<T, kSize>> : std::true_type {};

[[noreturn]] void throw_wrong_size(std::size_t size, std::size_t wanted);
/// The elements of a list, tuple or set, or the numbers of an array.array. Throws TypeError for anything else.
std::vector<Object> elements_of(const Object& object);

template <class T>
void refuse_conversion() {
    static_assert(!sizeof(T),
                  "multihull: this type has no counterpart among Python's plain types: use numbers, std::string, "
                  "std::optional, std::vector, std::map, std::tuple and the like, or Object");
}

}    // namespace detail

/// The Object that stands for the value.
template <class T>
Object to_object(T&& value) {
    using V = std::remove_cvref_t<T>;
    if constexpr (std::convertible_to<T&&, Object>) {
        return Object(static_cast<Object>(std::forward<T>(value)));
    } else if constexpr (detail::kOptional<V>) {
        return value ? to_object(*std::forward<T>(value)) : Object();
    } else if constexpr (detail::MapLike<V>) {
        Object dict = Object::dict();
        for (auto&& [key, mapped] : value) dict[to_object(key)] = to_object(mapped);
        return dict;
    } else if constexpr (detail::ByteRange<V>) {
        return Object::bytes(std::span<const std::byte>(value));
    } else if constexpr (std::ranges::input_range<V>) {
        std::vector<Object> elements;
        if constexpr (std::ranges::sized_range<V>) elements.reserve(std::ranges::size(value));
        for (auto&& element : value) elements.push_back(to_object(element));
        return detail::SetLike<V> ? Object::set(std::move(elements)) : Object::list(std::move(elements));
    } else if constexpr (detail::TupleLike<V>) {
        return std::apply(
            [](auto&&... parts) {
                std::vector<Object> elements;
                elements.reserve(sizeof...(parts));
                (elements.push_back(to_object(std::forward<decltype(parts)>(parts))), ...);
                return Object::tuple(std::move(elements));
            },
            std::forward<T>(value));
    } else {
        detail::refuse_conversion<V>();
    }
}

/// The value that an Object stands for. Throws TypeError when it stands for none of that type, Error for a number that does not fit.
template <class T>
T from_object(const Object& object);

namespace detail {

template <class Tuple, std::size_t... kIndex>
Tuple tuple_from(const std::vector<Object>& parts, std::index_sequence<kIndex...>) {
    if (parts.size() != sizeof...(kIndex)) throw_wrong_size(parts.size(), sizeof...(kIndex));
    return Tuple(from_object<std::remove_cvref_t<std::tuple_element_t<kIndex, Tuple>>>(parts[kIndex])...);
}

template <class T>
T array_from(const std::vector<Object>& elements) {
    T array{};
    if (elements.size() != array.size()) throw_wrong_size(elements.size(), array.size());
    for (std::size_t i = 0; i < array.size(); ++i) array[i] = from_object<typename T::value_type>(elements[i]);
    return array;
}

}    // namespace detail

template <class T>
T from_object(const Object& object) {
    if constexpr (std::same_as<T, Object>) {
        return object;
    } else if constexpr (std::same_as<T, bool> || detail::ObjectInteger<T> || std::floating_point<T> ||
                         std::same_as<T, std::string>) {
        return object.as<T>();
    } else if constexpr (detail::kOptional<T>) {
        if (object.is_none()) return std::nullopt;
        return from_object<typename T::value_type>(object);
    } else if constexpr (detail::MapLike<T>) {
        T map;
        const auto keys = object.elements();
        const auto values = object.values();
        for (std::size_t i = 0; i < keys.size(); ++i) {
            map.emplace(from_object<typename T::key_type>(keys[i]), from_object<typename T::mapped_type>(values[i]));
        }
        return map;
    } else if constexpr (detail::FixedArray<T>::value) {
        return detail::array_from<T>(detail::elements_of(object));
    } else if constexpr (std::ranges::range<T> && detail::ByteRange<T>) {
        const auto bytes = object.as_bytes();
        return T(bytes.begin(), bytes.end());
    } else if constexpr (std::ranges::range<T> && requires(T range) { typename T::value_type; }) {
        T range;
        for (const Object& element : detail::elements_of(object)) {
            range.insert(range.end(), from_object<typename T::value_type>(element));
        }
        return range;
    } else if constexpr (detail::TupleLike<T>) {
        return detail::tuple_from<T>(detail::elements_of(object), std::make_index_sequence<std::tuple_size_v<T>>());
    } else if constexpr (std::constructible_from<T, const Object&>) {
        return T(object);    // a proxy
    } else {
        detail::refuse_conversion<T>();
    }
}

}    // namespace multihull
