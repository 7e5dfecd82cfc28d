// Which types can be hashed by their content, and the one sentence for each that can't.
#pragma once

#include <multihull/codec.hpp>
#include <multihull/hasher.hpp>

#include <array>
#include <cstddef>
#include <type_traits>

namespace multihull {
namespace detail {

template <class T>
concept HasContentHash = requires(Hasher& hasher, const std::remove_cv_t<T>& value) {
    ContentHash<std::remove_cv_t<T>>::update(hasher, value);
};

// Classes of the standard's whose parts are private, and known all the same.
template <class T>
concept ComplexLike = std::is_class_v<T> && requires(const T& value) {
    requires std::is_floating_point_v<typename T::value_type>;
    { value.real() } -> std::same_as<typename T::value_type>;
    { value.imag() } -> std::same_as<typename T::value_type>;
    requires sizeof(T) == 2 * sizeof(typename T::value_type);
};
template <class T>
concept DurationLike = std::is_class_v<T> && requires(const T& value) {
    typename T::period;
    { value.count() } -> std::same_as<typename T::rep>;
};
template <class T>
concept TimePointLike = std::is_class_v<T> && requires(const T& value) {
    typename T::clock;
    { value.time_since_epoch() } -> std::same_as<typename T::duration>;
};

template <class T>
inline constexpr bool kStdArray = false;
template <class E, std::size_t kSize>
inline constexpr bool kStdArray<std::array<E, kSize>> = true;

template <class T>
concept UnorderedContainer = requires {
    typename T::hasher;
    typename T::key_equal;
};

/// An aggregate whose fields can be looked at one by one.
template <class T>
consteval bool has_known_fields() {
    if constexpr (std::is_class_v<T> && std::is_aggregate_v<T> && !std::is_empty_v<T> &&
                  StdType<T>::kKind == Kind::unknown) {
        return !kHoldsReference<T> && kFieldCount<T> != kUnknownFields;
    } else {
        return false;
    }
}

template <class T>
consteval bool hashed_as_bytes();
/// All bytes of a T are part of its value: they are hashed in one go, also those of many in a row.
template <class T>
inline constexpr bool kHashedAsBytes = hashed_as_bytes<std::remove_cv_t<T>>();

template <class... Fields>
consteval bool fills_with_bytes(std::size_t size, TypeList<Fields...>) {
    return (kHashedAsBytes<Fields> && ...) && (sizeof(Fields) + ... + 0) == size;
}

template <class T>
consteval bool hashed_as_bytes() {
    if constexpr (HasContentHash<T>) {
        return false;
    } else if constexpr (std::is_array_v<T>) {
        return kHashedAsBytes<std::remove_all_extents_t<T>>;
    } else if constexpr (std::is_arithmetic_v<T> || std::is_enum_v<T>) {
        return std::has_unique_object_representations_v<T> || std::is_same_v<T, float> || std::is_same_v<T, double>;
    } else if constexpr (kKind<T> != Kind::plain || std::is_empty_v<T>) {
        return false;
    } else if constexpr (kStdArray<T>) {
        return kHashedAsBytes<typename T::value_type> &&
               sizeof(T) == std::tuple_size_v<T> * sizeof(typename T::value_type);
    } else if constexpr (has_known_fields<T>()) {
        return fills_with_bytes(sizeof(T), FieldTypes<T>{});
    } else {
        return std::has_unique_object_representations_v<T>;
    }
}

template <class Types, class... Above>
struct ExamineHashAll;

// Above: the aggregates around T, because a tree holds trees.
template <class T, class... Above>
consteval auto examine_hash() {
    using Value = std::remove_cv_t<T>;
    constexpr Kind kHow = kKind<Value>;
    if constexpr (HasContentHash<Value>) {
        return Fine{};
    } else if constexpr (kHow == Kind::refused) {
        return Finding<refusal_of<Value>(), Value>{};
    } else if constexpr (std::is_array_v<Value>) {
        return examine_hash<std::remove_all_extents_t<Value>, Above...>();
    } else if constexpr (kHashedAsBytes<Value> || std::is_arithmetic_v<Value> || ComplexLike<Value> ||
                         DurationLike<Value> || TimePointLike<Value> || kHow == Kind::custom || kHow == Kind::cereal ||
                         kHow == Kind::path || kHow == Kind::empty || std::is_empty_v<Value>) {
        return Fine{};
    } else if constexpr (StdType<Value>::kKind != Kind::unknown) {
        return typename ExamineHashAll<typename StdType<Value>::Parts, Above...>::type{};
    } else if constexpr (has_known_fields<Value>()) {
        if constexpr ((std::is_same_v<Value, Above> || ...)) {
            return Fine{};
        } else {
            return typename ExamineHashAll<FieldTypes<Value>, Value, Above...>::type{};
        }
    } else {
        return Finding<Refusal::no_way, Value>{};
    }
}

template <class... Above>
struct ExamineHashAll<TypeList<>, Above...> : std::type_identity<Fine> {};
template <class First, class... Rest, class... Above>
struct ExamineHashAll<TypeList<First, Rest...>, Above...> {
    using Here = decltype(examine_hash<First, Above...>());
    using type =
        typename std::conditional_t<Here::kRefusal == Refusal::none, ExamineHashAll<TypeList<Rest...>, Above...>,
                                    std::type_identity<Here>>::type;
};

template <class T>
using HashExamined = decltype(examine_hash<T>());

// The sentences. A function of its own, so that the compiler names the culprit beside the sentence and then says no more.
template <class Culprit, Refusal kWhy>
consteval void refuse_hash() {
    static_assert(
        kWhy != Refusal::pointer && kWhy != Refusal::function_pointer && kWhy != Refusal::reference &&
            kWhy != Refusal::view,
        "multihull: this type can't be hashed for a cache key: it holds a pointer, a reference or a view, which says "
        "where a value is and not what it is; take the value, or leave the argument out of the key with "
        "multihull::ignoring<position>");
    static_assert(
        kWhy != Refusal::closure && kWhy != Refusal::function,
        "multihull: a closure with captures can't be hashed for a cache key: nobody can look at what it captures; pass "
        "that as arguments, or make it a struct with fields and an operator()");
    static_assert(
        kWhy == Refusal::none || kWhy == Refusal::pointer || kWhy == Refusal::function_pointer ||
            kWhy == Refusal::reference || kWhy == Refusal::view || kWhy == Refusal::closure ||
            kWhy == Refusal::function,
        "multihull: this type can't be hashed for a cache key: nobody can look into it, and its bytes are not its "
        "value; make it an aggregate, give it a cereal serialize() or a multihull::ContentHash, or leave the argument "
        "out of the key with multihull::ignoring<position>");
}

/// Stops the compiler with one sentence unless T can be hashed.
template <class T>
consteval void require_hashable() {
    using Found = HashExamined<T>;
    if constexpr (Found::kRefusal != Refusal::none) {
        refuse_hash<typename Found::Blamed, Found::kRefusal>();
    }
}

}    // namespace detail

/// A value of this type has a content hash.
template <class T>
concept Hashable = detail::HashExamined<T>::kRefusal == detail::Refusal::none;

}    // namespace multihull
