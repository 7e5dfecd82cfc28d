// How the parameters of a function travel: by the value that each is made from.
#pragma once

#include <multihull/detail/codec_decode.hpp>
#include <multihull/detail/codec_encode.hpp>
#include <multihull/detail/codec_travels.hpp>

#include <concepts>
#include <cstddef>
#include <functional>
#include <memory>
#include <ranges>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
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

/// The argument for a std::span<const E>, or a view of a text of E, where the call is run: the elements are read where the bytes of the
/// call have them, for as long as those live, or from a copy where they don't stand there as in an array.
template <class E>
class SpanHolder {
public:
    static SpanHolder decode(Reader& reader) {
        const auto bytes = view_contiguous<E>(reader);
        SpanHolder holder;
        if (const E* const elements = elements_at<E>(bytes)) {
            holder.elements_ = {elements, bytes.size() / sizeof(E)};
        } else {
            holder.copy_ = copy_contiguous<std::vector<E>>(bytes);
            holder.elements_ = holder.copy_;
        }
        return holder;
    }
    SpanHolder(SpanHolder&&) noexcept = default;    // a vector that is moved keeps its elements where they are
    SpanHolder& operator=(SpanHolder&&) noexcept = default;

    operator std::span<const E>() const noexcept { return elements_; }
    template <class Traits>
    operator std::basic_string_view<E, Traits>() const noexcept {
        return {elements_.data(), elements_.size()};
    }

private:
    SpanHolder() = default;

    std::vector<E> copy_;
    std::span<const E> elements_;
};

template <class P>
struct ViewedElement {};
template <class E>
    requires(kKind<std::vector<E>> == Kind::contiguous)
struct ViewedElement<std::span<const E>> {
    using Type = E;
};
template <class C, class Traits>
struct ViewedElement<std::basic_string_view<C, Traits>> {
    using Type = C;
};

/// A parameter that looks at plain elements in one piece.
template <class P>
inline constexpr bool kViewsElements = requires { typename ViewedElement<std::decay_t<P>>::Type; };

/// What an argument is where the call is run: read there from what its Holder was written as.
template <class P>
struct ArrivedAs {
    using Type = Holder<P>;
    static Type decode(Reader& reader) { return decode_value<Type>(reader); }
};
template <class P>
    requires kViewsElements<P>
struct ArrivedAs<P> {
    using Type = SpanHolder<typename ViewedElement<std::decay_t<P>>::Type>;
    static Type decode(Reader& reader) { return Type::decode(reader); }
};

/// What an argument looks at, or is, stays where it is while a call is written.
template <class Arg>
inline constexpr bool kStaysMeanwhile = std::is_lvalue_reference_v<Arg> || std::ranges::borrowed_range<Arg>;

/// An argument that is written from where it is, as its Holder would be, and need not be copied into one.
template <class P, class Arg>
concept WrittenInPlace = kStaysMeanwhile<Arg> && kKind<Holder<P>> == Kind::contiguous &&
                         (std::same_as<std::remove_cvref_t<Arg>, Holder<P>> ||
                          (kViewsElements<P> && std::is_convertible_v<Arg, std::decay_t<P>>));

template <class T>
struct ReferredBy {};
template <class T>
struct ReferredBy<std::reference_wrapper<const T>> {
    using Type = T;
};

/// Elements that stay the caller's, who said by std::cref() that they stay as they are until the task has ended.
template <class E>
struct LentElements {
    template <class C>
    LentElements(std::reference_wrapper<const C> owner) : elements(owner.get()) {}
    std::span<const E> elements;
};
template <class T>
inline constexpr bool kLentElements = false;
template <class E>
inline constexpr bool kLentElements<LentElements<E>> = true;

/// An argument by std::cref() that need not be copied at all before the call is run.
template <class P, class Arg>
concept LentInPlace = kKind<Holder<P>> == Kind::contiguous &&
                      std::same_as<typename ReferredBy<std::remove_cvref_t<Arg>>::Type, Holder<P>>;

/// An argument that is to be copied, even if it is one by std::cref(); else moved.
template <class Arg>
decltype(auto) not_lent(Arg& argument) {
    if constexpr (requires { typename ReferredBy<Arg>::Type; }) {
        return argument.get();
    } else {
        return std::move(argument);
    }
}

/// An argument until it is written.
template <class P, class Arg>
struct Leaving {
    using Type = Holder<P>;
};
template <class P, class Arg>
    requires WrittenInPlace<P, Arg>
struct Leaving<P, Arg> {
    // A literal is a text as a std::string_view sees it, without the zero behind it.
    using Type =
        std::conditional_t<kViewsElements<P>, std::decay_t<P>, std::span<const typename Holder<P>::value_type>>;
};
template <class P, class Arg>
    requires LentInPlace<P, Arg>
struct Leaving<P, Arg> {
    using Type = LentElements<typename Holder<P>::value_type>;
};

/// Bytes of a call that were left where they are: they belong at `position`, counted with all that are left out before them.
struct LentBytes {
    std::size_t position = 0;
    std::span<const std::byte> bytes;
    std::shared_ptr<const void> owner;    // none where they are the caller's
};

/// Fewer than so many bytes are copied.
inline constexpr std::size_t kWorthLending = std::size_t{64} << 10;

/// Writes elements, which are left out and noted in `lent`.
template <class E>
void write_around(Writer& writer, std::span<const E> elements, std::shared_ptr<const void> owner,
                  std::vector<LentBytes>& lent) {
    std::size_t elsewhere = 0;
    for (const LentBytes& piece : lent) elsewhere += piece.bytes.size();
    writer.write_length(elements.size());
    writer.write_padding(alignof(E), elsewhere);
    lent.push_back({writer.size() + elsewhere, std::as_bytes(elements), std::move(owner)});
}

/// Writes a holder, but for many elements in one piece: those are moved into `lent`.
template <class H>
void encode_around(Writer& writer, H& holder, std::vector<LentBytes>& lent) {
    if constexpr (kKind<H> == Kind::contiguous) {
        using Element = typename H::value_type;
        if (holder.size() * sizeof(Element) >= kWorthLending) {
            const auto owner = std::make_shared<const H>(std::move(holder));
            write_around(writer, std::span<const Element>(owner->data(), owner->size()), owner, lent);
            return;
        }
    }
    encode_value(writer, holder);
}

template <class E>
void encode_around(Writer& writer, LentElements<E>& part, std::vector<LentBytes>& lent) {
    if (part.elements.size_bytes() >= kWorthLending) {
        write_around(writer, part.elements, nullptr, lent);
    } else {
        encode_contiguous(writer, part.elements);
    }
}

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
