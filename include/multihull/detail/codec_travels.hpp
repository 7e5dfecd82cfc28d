// Which types travel to another process, and the one sentence for each that does not.
#pragma once

#include <multihull/detail/codec_types.hpp>

#include <type_traits>

namespace multihull {
namespace detail {

/// What examine() finds: why the type does not travel, and the part of it that is to blame.
template <Refusal kWhy, class Culprit>
struct Finding {
    static constexpr Refusal kRefusal = kWhy;
    using Blamed = Culprit;
};
using Fine = Finding<Refusal::none, void>;

template <class T>
consteval Refusal refusal_of() {
    if constexpr (std::is_reference_v<T>) {
        return Refusal::reference;
    } else if constexpr (std::is_pointer_v<T>) {
        return std::is_function_v<std::remove_pointer_t<T>> ? Refusal::function_pointer : Refusal::pointer;
    } else if constexpr (std::is_member_pointer_v<T>) {
        return std::is_member_function_pointer_v<T> ? Refusal::function_pointer : Refusal::pointer;
    } else if constexpr (!std::is_class_v<T>) {
        return Refusal::no_way;
    } else if constexpr (StdType<T>::kRefusal != Refusal::none) {
        return StdType<T>::kRefusal;
    } else if constexpr (kClosure<T>) {
        return Refusal::closure;
    } else if constexpr (kForeignView<T>) {
        return Refusal::view;
    } else if constexpr (kIterator<T>) {
        return Refusal::pointer;
    } else if constexpr (kByCereal<T>) {
        return Refusal::no_default;
    } else if constexpr (kCerealWays<T> != 0) {
        return Refusal::half_cereal;
    } else if constexpr (std::is_aggregate_v<T> && kHoldsReference<T>) {
        return Refusal::reference;
    } else {
        return Refusal::no_way;
    }
}

template <class Types, class... Above>
consteval auto examine_all();

// Above: the aggregates around T, because a tree holds trees.
template <class T, class... Above>
consteval auto examine() {
    using Value = std::remove_cv_t<T>;
    constexpr Kind kHow = kKind<Value>;
    if constexpr (kHow == Kind::refused) {
        return Finding<refusal_of<Value>(), Value>{};
    } else if constexpr (std::is_array_v<Value>) {
        return examine<std::remove_all_extents_t<Value>, Above...>();
    } else if constexpr (kHow == Kind::custom || kHow == Kind::cereal || kHow == Kind::path || kHow == Kind::empty) {
        return Fine{};
    } else if constexpr (StdType<Value>::kKind != Kind::unknown) {
        if constexpr (std::is_default_constructible_v<Value> || kHow == Kind::tuple || kHow == Kind::array ||
                      kHow == Kind::plain || kHow == Kind::variant) {
            return examine_all<typename StdType<Value>::Parts, Above...>();
        } else {
            return Finding<Refusal::no_default, Value>{};
        }
    } else if constexpr (kHow == Kind::fields && !(std::is_same_v<Value, Above> || ...)) {
        return examine_all<FieldTypes<Value>, Value, Above...>();
    } else {
        return Fine{};
    }
}

template <class Types, class... Above>
struct ExamineAll;
template <class... Above>
struct ExamineAll<TypeList<>, Above...> : std::type_identity<Fine> {};
template <class First, class... Rest, class... Above>
struct ExamineAll<TypeList<First, Rest...>, Above...> {
    using Here = decltype(examine<First, Above...>());
    using type = typename std::conditional_t<Here::kRefusal == Refusal::none, ExamineAll<TypeList<Rest...>, Above...>,
                                             std::type_identity<Here>>::type;
};

template <class Types, class... Above>
consteval auto examine_all() {
    return typename ExamineAll<Types, Above...>::type{};
}

template <class T>
using Examined = decltype(examine<T>());

template <class T>
consteval bool travels() {
    if constexpr (std::is_array_v<T>) {
        return false;    // no function can return one
    } else {
        return Examined<T>::kRefusal == Refusal::none;
    }
}

// The sentences. A function of its own, so that the compiler names the culprit beside the sentence and then says no more.
template <class Culprit, Refusal kWhy>
consteval void refuse() {
    static_assert(
        kWhy != Refusal::pointer,
        "multihull: this type can't travel to another process: it holds a raw pointer or an iterator, which means "
        "nothing there; send the value it points to");
    static_assert(
        kWhy != Refusal::function_pointer,
        "multihull: this type can't travel to another process: it holds a function pointer; pass the function itself "
        "as what is to be called, or a number that says which one");
    static_assert(
        kWhy != Refusal::reference,
        "multihull: this type can't travel to another process: it holds a reference, which means nothing there; send "
        "the value it refers to");
    static_assert(kWhy != Refusal::view,
                  "multihull: this type can't travel to another process: it is a view of memory that isn't there; send "
                  "std::string instead of std::string_view, std::vector instead of std::span or a range");
    static_assert(
        kWhy != Refusal::function,
        "multihull: this type can't travel to another process: it holds a std::function, which may hold anything; "
        "pass the function itself as what is to be called");
    static_assert(
        kWhy != Refusal::closure,
        "multihull: a closure with captures can't travel to another process: pass what it captures as arguments, or "
        "use multihull::Parallel");
    static_assert(
        kWhy != Refusal::polymorphic,
        "multihull: this type can't travel to another process: it holds a smart pointer to a base class with virtual "
        "functions, and what it points to would be cut down to the base; use std::variant, or specialise "
        "multihull::Codec");
    static_assert(
        kWhy != Refusal::comparator,
        "multihull: this type can't travel to another process: it holds a container whose comparator or hash has a "
        "state of its own; use a class without members instead");
    static_assert(
        kWhy != Refusal::no_default,
        "multihull: this type can't travel to another process: it must be made before it is filled there; give it a "
        "public default constructor, or specialise multihull::Codec");
    static_assert(
        kWhy != Refusal::half_cereal,
        "multihull: this type can't travel to another process: cereal must find exactly one way to save it and one way "
        "to load it: serialize(), or save() and load()");
    static_assert(
        kWhy != Refusal::no_way,
        "multihull: this type can't travel to another process: there is no way to encode it; make it an aggregate, or "
        "give it a cereal serialize() function");
}
template <class Array>
consteval void refuse_array() {
    static_assert(!std::is_array_v<Array>,
                  "multihull: a C array can't travel by itself: use std::array or std::vector");
}

/// Stops the compiler with one sentence unless T travels.
template <class T>
consteval void require_travels() {
    if constexpr (std::is_array_v<T>) {
        refuse_array<T>();
    } else if constexpr (!travels<T>()) {
        using Found = Examined<T>;
        refuse<typename Found::Blamed, Found::kRefusal>();
    }
}

}    // namespace detail

/// A value of this type can be sent to another process and arrives there as an equal one.
template <class T>
concept Travels = detail::travels<T>();

}    // namespace multihull
