// The fields of an aggregate, as references.
//
// Boost.PFR does the binding. It is told how many fields there are, because its own count takes each element of a C array for
// a field and stops the compiler at a base class, where a type that can't travel must get its one sentence instead.
#pragma once

#include <boost/pfr/core.hpp>

#include <algorithm>
#include <cstddef>
#include <type_traits>
#include <utility>

namespace multihull::detail {

/// The most fields that an aggregate may have.
inline constexpr std::size_t kMaxFields = 100;
/// The most values in braces that are tried: one for each field and one for each element of a C array.
inline constexpr std::size_t kMaxInitializers = 1024;
/// An aggregate whose fields can't be told apart: too many of them, a base class, or a field that nothing initializes.
inline constexpr std::size_t kUnknownFields = static_cast<std::size_t>(-1);

// Stand-ins in `T{...}`, never evaluated: a value of any type, and one of a base class. Defined all the same, because clang asks for it
// where the type is known in one file only.
struct AnyValue {
    std::size_t ignored;
    template <class Field>
    operator Field() const noexcept {
        __builtin_unreachable();
    }
};
template <class Derived>
struct AnyBase {
    template <class Base>
        requires(std::is_base_of_v<Base, Derived> && !std::is_same_v<Base, Derived>)
    operator Base() const noexcept {
        __builtin_unreachable();
    }
};

template <class T, std::size_t... kIndices>
consteval bool takes_values(std::index_sequence<kIndices...>) {
    return requires { T{AnyValue{kIndices}...}; };
}
template <class T, std::size_t kCount>
inline constexpr bool kTakesValues = takes_values<T>(std::make_index_sequence<kCount>());

/// A field that must be given and can't be changed: a reference, short of a constant of a class without a default.
template <class T>
inline constexpr bool kHoldsReference =
    !kTakesValues<T, 0> && !std::is_copy_assignable_v<T> && !std::is_move_assignable_v<T>;

// Whether the field that the initializer at kBefore begins is over when `{}` and kAfter more values follow.
template <class T, std::size_t... kBefore, std::size_t... kAfter>
consteval bool takes_braces(std::index_sequence<kBefore...>, std::index_sequence<kAfter...>) {
    return requires { T{AnyValue{kBefore}..., {}, AnyValue{kAfter}...}; };
}
template <class T, std::size_t kBefore, std::size_t kAfter>
inline constexpr bool kTakesBraces =
    takes_braces<T>(std::make_index_sequence<kBefore>(), std::make_index_sequence<kAfter>());

template <class T, std::size_t kCount>
consteval bool has_base() {
    return []<std::size_t... kIndices>(std::index_sequence<kIndices...>) {
        return requires { T{AnyBase<T>{}, AnyValue{kIndices}...}; };
    }(std::make_index_sequence < kCount == 0 ? 0 : kCount - 1 > ());
}

// T{} is valid, so T takes any number of values up to the one looked for, which is in [kLow, kHigh).
template <class T, std::size_t kLow, std::size_t kHigh>
consteval std::size_t bisect_initializers() {
    if constexpr (kHigh - kLow <= 1) {
        return kLow;
    } else if constexpr (constexpr std::size_t kMiddle = kLow + (kHigh - kLow) / 2; kTakesValues<T, kMiddle>) {
        return bisect_initializers<T, kMiddle, kHigh>();
    } else {
        return bisect_initializers<T, kLow, kMiddle>();
    }
}
template <class T, std::size_t kLow = 0>
consteval std::size_t count_from_none() {
    constexpr std::size_t kNext = kLow == 0 ? 4 : 2 * kLow;
    if constexpr (kNext > 2 * kMaxInitializers) {
        return kUnknownFields;
    } else if constexpr (kTakesValues<T, kNext>) {
        return count_from_none<T, kNext>();
    } else {
        return bisect_initializers<T, kLow, kNext>();
    }
}
// T{} is not valid: a field must be given, so there is a first count that works and a last one.
template <class T, std::size_t kTry, bool kSeen = false>
consteval std::size_t count_one_by_one() {
    if constexpr (kTry > kMaxFields + 1) {
        return kUnknownFields;
    } else if constexpr (kTakesValues<T, kTry>) {
        return count_one_by_one<T, kTry + 1, true>();
    } else if constexpr (kSeen) {
        return kTry - 1;
    } else {
        return count_one_by_one<T, kTry + 1>();
    }
}

// How many values the field that begins at kBefore takes without braces: one, or as many as a C array has elements.
template <class T, std::size_t kBefore, std::size_t kTotal, std::size_t kLow, std::size_t kHigh>
consteval std::size_t bisect_braces() {
    if constexpr (kHigh - kLow <= 1) {
        return kTotal - kBefore - kLow;
    } else if constexpr (constexpr std::size_t kMiddle = kLow + (kHigh - kLow) / 2; kTakesBraces<T, kBefore, kMiddle>) {
        return bisect_braces<T, kBefore, kTotal, kMiddle, kHigh>();
    } else {
        return bisect_braces<T, kBefore, kTotal, kLow, kMiddle>();
    }
}
template <class T, std::size_t kBefore, std::size_t kTotal>
consteval std::size_t values_of_field() {
    constexpr std::size_t kAfter = kTotal - kBefore - 1;
    if constexpr (kAfter == 0 || kTakesBraces<T, kBefore, kAfter> || !kTakesBraces<T, kBefore, 0>) {
        return 1;
    } else {
        return bisect_braces<T, kBefore, kTotal, 0, kAfter>();
    }
}
template <class T, std::size_t kTotal, std::size_t kBefore = 0, std::size_t kFields = 0>
consteval std::size_t fold_arrays() {
    if constexpr (kBefore >= kTotal) {
        return kFields;
    } else if constexpr (kFields >= kMaxFields) {
        return kUnknownFields;
    } else {
        return fold_arrays<T, kTotal, kBefore + values_of_field<T, kBefore, kTotal>(), kFields + 1>();
    }
}

template <class T>
consteval std::size_t count_initializers() {
    if constexpr (kTakesValues<T, 0>) {
        return count_from_none<T>();
    } else {
        return count_one_by_one<T, 1>();
    }
}
template <class T>
consteval std::size_t count_fields() {
    constexpr std::size_t kTotal = count_initializers<T>();
    if constexpr (kTotal == kUnknownFields || kTotal > kMaxInitializers) {
        return kUnknownFields;
    } else if constexpr (has_base<T, kTotal>()) {
        return kUnknownFields;
    } else {
        return fold_arrays<T, kTotal>();
    }
}

/// How many fields the aggregate has, a C array being one; kUnknownFields where that can't be told.
template <class T>
inline constexpr std::size_t kFieldCount = count_fields<T>();

/// Calls function(field...) with references to all fields.
template <class T, class Function>
constexpr decltype(auto) with_fields(T& value, Function&& function) {
    constexpr std::size_t kCount = kFieldCount<std::remove_cv_t<T>>;
    auto fields = boost::pfr::detail::tie_as_tuple(value, boost::pfr::detail::size_t_<kCount>{});
    return [&]<std::size_t... kIndices>(std::index_sequence<kIndices...>) -> decltype(auto) {
        return function(boost::pfr::detail::sequence_tuple::get<kIndices>(fields)...);
    }(std::make_index_sequence<kCount>());
}

template <class... Types>
struct TypeList {};

struct ListTypes {
    template <class... Fields>
    constexpr TypeList<std::remove_cv_t<Fields>...> operator()(Fields&...) const {
        return {};
    }
};

/// TypeList of the types of the fields, without const.
template <class T>
using FieldTypes = decltype(with_fields(std::declval<T&>(), ListTypes{}));

}    // namespace multihull::detail
