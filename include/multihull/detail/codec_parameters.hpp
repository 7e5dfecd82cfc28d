// How the parameters of a function travel: by the value that each is made from.
#pragma once

#include <multihull/detail/codec_travels.hpp>

#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

namespace multihull::detail {

template <class T>
struct HolderOf {
    using Type = T;
};
template <class C, class Traits>
struct HolderOf<std::basic_string_view<C, Traits>> {
    using Type = std::basic_string<C, Traits>;
};
template <>
struct HolderOf<const char*> {
    using Type = std::string;
};
template <class E, std::size_t kExtent>
struct HolderOf<std::span<const E, kExtent>> {
    using Type = std::vector<E>;
};

/// What holds an argument for a parameter of type P while it travels: a view's text or elements, anything else by value.
template <class P>
using Holder = typename HolderOf<std::decay_t<P>>::Type;

template <class P>
inline constexpr bool kWritesThrough = false;
template <class E, std::size_t kExtent>
inline constexpr bool kWritesThrough<std::span<E, kExtent>> = !std::is_const_v<E>;

template <class P>
inline constexpr bool kLosesChanges = std::is_lvalue_reference_v<P> && !std::is_const_v<std::remove_reference_t<P>>;

/// A function can be called in another process with such a parameter.
template <class P>
concept Parameter = !kLosesChanges<P> && !kWritesThrough<std::remove_cvref_t<P>> && travels<Holder<P>>();

template <class P>
consteval void refuse_lost_changes() {
    static_assert(
        !kLosesChanges<P>,
        "multihull: the function takes a non-const reference: what it changes would be lost in the other process; take "
        "it by value and return it");
    static_assert(
        !kWritesThrough<std::remove_cvref_t<P>>,
        "multihull: the function takes a std::span that it can write through: what it changes would be lost in the "
        "other process; take std::span<const T>, or a std::vector by value, and return it");
}

/// Stops the compiler with one sentence where what the function does to its parameter would be lost; see require_travels() for
/// the rest.
template <class P>
consteval void require_parameter() {
    refuse_lost_changes<P>();
}

}    // namespace multihull::detail
