// How each type travels to another process; codec_travels.hpp says whether its parts do too.
#pragma once

#include <multihull/detail/codec_bytes.hpp>
#include <multihull/detail/codec_cereal.hpp>
#include <multihull/detail/codec_fields.hpp>

#include <array>
#include <concepts>
#include <deque>
#include <forward_list>
#include <functional>
#include <initializer_list>
#include <iterator>
#include <list>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <system_error>
#include <tuple>
#include <typeindex>
#include <unordered_map>
#include <unordered_set>
#include <variant>
#include <vector>

namespace multihull {

/// How a type of one's own travels, where an aggregate or a cereal function will not do: specialise it with
/// `static void encode(detail::Writer&, const T&)` (or T&, for a type that can only be moved) and `static T decode(detail::Reader&)`.
template <class T>
struct Codec;

namespace detail {

enum class Kind {
    unknown,
    refused,
    plain,         // by memcpy
    custom,        // by a Codec
    contiguous,    // plain elements in one piece of memory
    bits,
    sequence,
    forward_list,
    set,
    map,
    tuple,
    array,
    optional,
    variant,
    unique,
    shared,
    path,
    cereal,
    fields,    // an aggregate, field by field
    empty,
};

enum class Refusal {
    none,
    pointer,
    function_pointer,
    reference,
    view,
    function,
    closure,
    polymorphic,
    comparator,
    no_default,
    half_cereal,
    no_way,
};

template <class T>
consteval auto type_name() {
    constexpr std::string_view kFunction = __PRETTY_FUNCTION__;
    constexpr std::size_t kBegin = kFunction.find("T = ") + 4;
    return kFunction.substr(kBegin, kFunction.rfind(']') - kBegin);
}

// A closure has no name, so compilers make one up: `(lambda at file:1:2)`, or `main()::<lambda(int)>`.
consteval bool names_closure(std::string_view name) {
    if (name.starts_with("(lambda at ")) {
        return true;
    }
    constexpr std::string_view kMark = "<lambda(";
    const std::size_t mark = name.rfind(kMark);
    if (mark == name.npos || (mark != 0 && !name.substr(0, mark).ends_with("::"))) {
        return false;
    }
    int open = 1;
    std::size_t at = mark + kMark.size();
    while (at < name.size() && open != 0) {
        open += name[at] == '(' ? 1 : name[at] == ')' ? -1 : 0;
        ++at;
    }
    return name.substr(at) == ">";
}

template <class T>
inline constexpr bool kClosure = std::is_class_v<T> && names_closure(type_name<T>());

template <class T>
concept HasCodec = requires(Writer& writer, Reader& reader, T& value) {
    Codec<T>::encode(writer, value);
    { Codec<T>::decode(reader) } -> std::same_as<T>;
};

// A path without <filesystem>, which is one of the dearest headers there are.
template <class T>
concept PathLike = std::is_class_v<T> && requires(const T& path) {
    T::preferred_separator;
    { path.native() } -> std::same_as<const typename T::string_type&>;
    T(path.native());
};

template <class T>
inline constexpr bool kIterator = std::is_class_v<T> && std::input_or_output_iterator<T>;

// The standard's types: how each travels, and the types that must travel with it.
template <class T>
struct StdType {
    static constexpr Kind kKind = Kind::unknown;
    static constexpr Refusal kRefusal = Refusal::none;
    using Parts = TypeList<>;
};
template <Kind kHow, class... Types>
struct Made {
    static constexpr Kind kKind = kHow;
    static constexpr Refusal kRefusal = Refusal::none;
    using Parts = TypeList<Types...>;
};
template <Refusal kWhy>
struct NotMade {
    static constexpr Kind kKind = Kind::refused;
    static constexpr Refusal kRefusal = kWhy;
    using Parts = TypeList<>;
};
template <bool kStateless, Kind kHow, class... Types>
using MadeIfStateless = std::conditional_t<kStateless, Made<kHow, Types...>, NotMade<Refusal::comparator>>;

template <class T>
consteval bool is_plain();

/// T goes by memcpy: trivially copyable, nothing in it that says otherwise, and no pointers as far as can be seen.
template <class T>
inline constexpr bool kPlain = is_plain<T>();

template <class E, class A>
struct StdType<std::vector<E, A>> : Made<kPlain<E> ? Kind::contiguous : Kind::sequence, E> {};
template <class A>
struct StdType<std::vector<bool, A>> : Made<Kind::bits> {};
template <class C, class Traits, class A>
struct StdType<std::basic_string<C, Traits, A>> : Made<Kind::contiguous, C> {};
template <class E, class A>
struct StdType<std::deque<E, A>> : Made<Kind::sequence, E> {};
template <class E, class A>
struct StdType<std::list<E, A>> : Made<Kind::sequence, E> {};
template <class E, class A>
struct StdType<std::forward_list<E, A>> : Made<Kind::forward_list, E> {};
template <class K, class C, class A>
struct StdType<std::set<K, C, A>> : MadeIfStateless<std::is_empty_v<C>, Kind::set, K> {};
template <class K, class C, class A>
struct StdType<std::multiset<K, C, A>> : MadeIfStateless<std::is_empty_v<C>, Kind::set, K> {};
template <class K, class H, class P, class A>
struct StdType<std::unordered_set<K, H, P, A>>
    : MadeIfStateless<std::is_empty_v<H> && std::is_empty_v<P>, Kind::set, K> {};
template <class K, class H, class P, class A>
struct StdType<std::unordered_multiset<K, H, P, A>>
    : MadeIfStateless<std::is_empty_v<H> && std::is_empty_v<P>, Kind::set, K> {};
template <class K, class V, class C, class A>
struct StdType<std::map<K, V, C, A>> : MadeIfStateless<std::is_empty_v<C>, Kind::map, K, V> {};
template <class K, class V, class C, class A>
struct StdType<std::multimap<K, V, C, A>> : MadeIfStateless<std::is_empty_v<C>, Kind::map, K, V> {};
template <class K, class V, class H, class P, class A>
struct StdType<std::unordered_map<K, V, H, P, A>>
    : MadeIfStateless<std::is_empty_v<H> && std::is_empty_v<P>, Kind::map, K, V> {};
template <class K, class V, class H, class P, class A>
struct StdType<std::unordered_multimap<K, V, H, P, A>>
    : MadeIfStateless<std::is_empty_v<H> && std::is_empty_v<P>, Kind::map, K, V> {};
template <class A, class B>
struct StdType<std::pair<A, B>> : Made<Kind::tuple, A, B> {};
template <class... Types>
struct StdType<std::tuple<Types...>> : Made<sizeof...(Types) == 0 ? Kind::empty : Kind::tuple, Types...> {};
template <class E, std::size_t kSize>
struct StdType<std::array<E, kSize>> : Made<kPlain<E> || kSize == 0 ? Kind::plain : Kind::array, E> {};
template <class E>
struct StdType<std::optional<E>> : Made<Kind::optional, E> {};
template <class... Types>
struct StdType<std::variant<Types...>> : Made<Kind::variant, Types...> {};

template <class E>
inline constexpr bool kSliced = std::is_polymorphic_v<E> && !std::is_final_v<E>;
template <class E, Kind kHow>
using Pointer = std::conditional_t<kSliced<E>, NotMade<Refusal::polymorphic>,
                                   std::conditional_t<std::is_array_v<E> || std::is_void_v<E>, NotMade<Refusal::no_way>,
                                                      Made<kHow, std::remove_cv_t<E>>>>;
template <class E>
struct StdType<std::unique_ptr<E>> : Pointer<E, Kind::unique> {};
template <class E>
struct StdType<std::shared_ptr<E>> : Pointer<E, Kind::shared> {};

template <class C, class Traits>
struct StdType<std::basic_string_view<C, Traits>> : NotMade<Refusal::view> {};
template <class E, std::size_t kExtent>
struct StdType<std::span<E, kExtent>> : NotMade<Refusal::view> {};
template <class E>
struct StdType<std::initializer_list<E>> : NotMade<Refusal::view> {};
template <class E>
struct StdType<std::reference_wrapper<E>> : NotMade<Refusal::reference> {};
template <class Signature>
struct StdType<std::function<Signature>> : NotMade<Refusal::function> {};
template <>
struct StdType<std::type_index> : NotMade<Refusal::pointer> {};
template <>
struct StdType<std::error_condition> : NotMade<Refusal::pointer> {};

// Views of the standard's other than a generated range look at memory of this process.
template <class T>
inline constexpr bool kForeignView =
    type_name<T>().starts_with("std::ranges::") && !type_name<T>().starts_with("std::ranges::iota_view<");

template <class T>
consteval Kind kind_of_class();

template <class T>
consteval Kind kind_of() {
    if constexpr (std::is_array_v<T>) {
        return kPlain<std::remove_all_extents_t<T>> ? Kind::plain : Kind::array;
    } else if constexpr (std::is_class_v<T> || std::is_union_v<T>) {
        return kind_of_class<T>();
    } else if constexpr (std::is_pointer_v<T> || std::is_member_pointer_v<T> || !std::is_object_v<T>) {
        return Kind::refused;
    } else {
        return Kind::plain;
    }
}

template <class Types>
inline constexpr bool kAllPlain = false;
template <class... Types>
inline constexpr bool kAllPlain<TypeList<Types...>> = (kPlain<Types> && ...);

template <class T>
consteval Kind kind_of_aggregate() {
    if constexpr (kHoldsReference<T>) {
        return Kind::refused;
    } else if constexpr (kFieldCount<T> != kUnknownFields) {
        if constexpr (std::is_trivially_copyable_v<T> && std::is_move_constructible_v<T>) {
            return kAllPlain<FieldTypes<T>> ? Kind::plain : Kind::fields;
        } else {
            return Kind::fields;
        }
    } else {
        // Too big or too unusual to look inside, but a copy of its bytes is a copy of it.
        return std::is_trivially_copyable_v<T> && std::is_move_constructible_v<T> ? Kind::plain : Kind::refused;
    }
}

template <class T>
consteval Kind kind_of_class() {
    if constexpr (HasCodec<T>) {
        return Kind::custom;
    } else if constexpr (StdType<T>::kKind != Kind::unknown) {
        return StdType<T>::kKind;
    } else if constexpr (PathLike<T>) {
        return Kind::path;
    } else if constexpr (std::is_union_v<T>) {
        return std::is_trivially_copyable_v<T> ? Kind::plain : Kind::refused;
    } else if constexpr (std::is_empty_v<T> && kClosure<T>) {
        return std::is_default_constructible_v<T> ? Kind::empty : Kind::refused;
    } else if constexpr (kClosure<T> || kForeignView<T> || kIterator<T>) {
        return Kind::refused;
    } else if constexpr (kByCereal<T>) {
        return std::is_default_constructible_v<T> ? Kind::cereal : Kind::refused;
    } else if constexpr (kCerealWays<T> != 0) {
        return Kind::refused;
    } else if constexpr (std::is_empty_v<T> && std::is_default_constructible_v<T> && std::is_move_constructible_v<T>) {
        return std::is_trivially_copyable_v<T> ? Kind::plain : Kind::empty;
    } else if constexpr (std::is_aggregate_v<T>) {
        return kind_of_aggregate<T>();
    } else {
        return std::is_trivially_copyable_v<T> && std::is_move_constructible_v<T> ? Kind::plain : Kind::refused;
    }
}

template <class T>
inline constexpr Kind kKind = kind_of<std::remove_cv_t<T>>();

template <class T>
consteval bool is_plain() {
    return kKind<T> == Kind::plain;
}

// cereal's own wrappers, which only cereal knows what to do with.
template <class T>
inline constexpr bool kCerealWrapper = type_name<T>().starts_with("cereal::");

// Types that can't be made by decode() but can be filled in place, such as those of cereal/types/queue.hpp.
template <class T>
consteval bool is_only_by_cereal() {
    if constexpr (std::is_class_v<T> && kKind<T> == Kind::refused) {
        return kByCereal<T>;
    } else {
        return false;
    }
}
template <class T>
inline constexpr bool kOnlyByCereal = is_only_by_cereal<T>();

}    // namespace detail
}    // namespace multihull
