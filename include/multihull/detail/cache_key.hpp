// The key of a cached call: the function's name and version, the types, and the content of the arguments.
#pragma once

#include <multihull/content_hash.hpp>
#include <multihull/detail/callable.hpp>
#include <multihull/mapped_array.hpp>

#include <algorithm>
#include <cstddef>
#include <span>
#include <string_view>
#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>

namespace multihull {

template <std::size_t... kPositions>
struct Ignoring {};
/// Leaves arguments out of the key, by their positions from 0, of whatever type they are: a logger, a stream, a pointer.
template <std::size_t... kPositions>
inline constexpr Ignoring<kPositions...> ignoring{};

namespace detail {

/// How a result type is named in keys and files: a MappedArray is kept as a vector is.
template <class T>
struct KeptAs {
    using Type = T;
};
template <class T>
struct KeptAs<MappedArray<T>> {
    using Type = std::vector<T>;
};
template <class T>
const Hash128& kept_signature() {
    return signature_of<typename KeptAs<T>::Type>();
}

// Views are hashed as what they are views of.
template <class E>
void hash_span(Hasher& hasher, std::span<const E> span) {
    hash_count(hasher, span.size());
    hash_array(hasher, span.data(), span.size());
}

template <class P, class A>
void hash_argument(Hasher& hasher, const A& argument) {
    using H = Holder<P>;
    if constexpr (std::is_same_v<A, H>) {
        hash_value(hasher, argument);
    } else if constexpr (std::is_same_v<H, std::string> && std::is_convertible_v<const A&, std::string_view>) {
        const std::string_view text(argument);
        hash_span(hasher, std::span<const char>(text));
    } else if constexpr (kKind<H> == Kind::contiguous && std::is_convertible_v<const A&, std::decay_t<P>> &&
                         !std::is_same_v<std::decay_t<P>, H>) {
        const std::decay_t<P> view = argument;
        hash_span(hasher, std::span<const typename H::value_type>(view.data(), view.size()));
    } else {
        hash_value(hasher, static_cast<const H&>(static_cast<H>(argument)));
    }
}

template <class P>
consteval void require_key_parameter() {
    static_assert(!kLosesChanges<P>,
                  "multihull: the cached function takes a non-const reference: what it changes would be missing when "
                  "the result comes from the cache; take it by value and return it, or leave the argument out of the "
                  "key with multihull::ignoring<position>");
    static_assert(!kWritesThrough<std::remove_cvref_t<P>>,
                  "multihull: the cached function takes a std::span that it can write through: what it changes would "
                  "be missing when the result comes from the cache; take std::span<const T>, or a std::vector by "
                  "value, and return it");
    if constexpr (!kLosesChanges<P> && !kWritesThrough<std::remove_cvref_t<P>>) require_hashable<Holder<P>>();
}

struct IgnoredArgument {};

template <class Value, class Parameters, std::size_t... kIgnored>
struct CacheKey;

template <class Value, class... P, std::size_t... kIgnored>
struct CacheKey<Value, Parameters<P...>, kIgnored...> {
    template <std::size_t kPosition>
    static constexpr bool kInKey = ((kPosition != kIgnored) && ...);
    template <std::size_t kPosition>
    using At = std::tuple_element_t<kPosition, std::tuple<P...>>;
    template <std::size_t kPosition>
    using Hashed = typename std::conditional_t<kInKey<kPosition>, std::type_identity<Holder<At<kPosition>>>,
                                               std::type_identity<IgnoredArgument>>::type;

    static consteval bool check() {
        static_assert(((kIgnored < sizeof...(P)) && ...),
                      "multihull: ignoring<> names an argument that the function does not have; positions begin at 0");
        [&]<std::size_t... kPositions>(std::index_sequence<kPositions...>) {
            (check_one<kPositions>(), ...);
        }(std::index_sequence_for<P...>());
        return true;
    }
    template <std::size_t kPosition>
    static consteval void check_one() {
        if constexpr (kInKey<kPosition>) require_key_parameter<At<kPosition>>();
    }

    static const Hash128& signature() {
        return [&]<std::size_t... kPositions>(std::index_sequence<kPositions...>) -> const Hash128& {
            return signature_of<typename KeptAs<Value>::Type, Hashed<kPositions>...>();
        }(std::index_sequence_for<P...>());
    }

    template <class... A>
    static void add(Hasher& hasher, const std::vector<std::size_t>& ignored, const A&... arguments) {
        const auto all = std::forward_as_tuple(arguments...);
        [&]<std::size_t... kPositions>(std::index_sequence<kPositions...>) {
            (add_one<kPositions>(hasher, ignored, std::get<kPositions>(all)), ...);
        }(std::index_sequence_for<A...>());
    }
    template <std::size_t kPosition, class A>
    static void add_one(Hasher& hasher, const std::vector<std::size_t>& ignored, const A& argument) {
        if constexpr (kInKey<kPosition>) {
            if (std::find(ignored.begin(), ignored.end(), kPosition) == ignored.end()) {
                hash_argument<At<kPosition>>(hasher, argument);
            }
        }
    }
};

}    // namespace detail
}    // namespace multihull
