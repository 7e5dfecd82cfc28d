// Values to bytes: the recursion behind encode(). See src/codec/README.md for the format.
#pragma once

#include <multihull/detail/codec_bytes.hpp>
#include <multihull/detail/codec_cereal.hpp>
#include <multihull/detail/codec_fixed.hpp>
#include <multihull/detail/codec_travels.hpp>

#include <cstdint>
#include <cstring>
#include <iterator>
#include <memory>
#include <span>
#include <type_traits>
#include <variant>
#include <vector>

namespace multihull::detail {

template <class V>
void encode_value(Writer& writer, V& value);

template <class Range>
void encode_elements(Writer& writer, Range& range, std::size_t count) {
    using Element = std::remove_cv_t<typename Range::value_type>;
    writer.write_length(count);
    if constexpr (kFixedSize<Element> != 0) {
        std::byte* place = writer.claim(count * kFixedSize<Element>);
        for (auto& element : range) {
            place = store(place, element);
        }
    } else {
        const Descent descent(writer);
        for (auto& element : range) {
            encode_value(writer, element);
        }
    }
}

/// Plain elements in one piece of memory, as they are there.
template <class Element>
void encode_contiguous(Writer& writer, std::span<const Element> elements) {
    writer.write_length(elements.size());
    writer.write_aligned(elements.data(), elements.size_bytes(), alignof(Element));
}

template <class A>
void encode_bits(Writer& writer, const std::vector<bool, A>& bits) {
    writer.write_length(bits.size());
    std::byte* const place = writer.claim((bits.size() + 7) / 8);
    if (!bits.empty()) {
        std::memset(place, 0, (bits.size() + 7) / 8);
    }
    for (std::size_t i = 0; i < bits.size(); ++i) {
        place[i / 8] |= static_cast<std::byte>(static_cast<unsigned>(bits[i]) << (i % 8));
    }
}

template <class V>
void encode_variant(Writer& writer, V& value) {
    if (value.valueless_by_exception()) {
        throw_cannot_encode("a std::variant has lost its value to an exception");
    }
    writer.put(static_cast<std::uint16_t>(value.index()));
    std::visit([&](auto& alternative) { encode_value(writer, alternative); }, value);
}

template <class E>
void encode_shared(Writer& writer, const std::shared_ptr<E>& pointer) {
    using Pointee = std::remove_cv_t<E>;
    if (pointer == nullptr) {
        writer.put(std::uint32_t{0});
        return;
    }
    const auto [id, is_new] = begin_shared(writer, pointer, &kTypeTag<Pointee>);
    writer.put(id);
    if (is_new) {
        const Descent descent(writer);
        encode_value(writer, *pointer);
        end_shared(writer, id);
    }
}

template <class T>
void encode_by_cereal(Writer& writer, const T& value) {
    const Descent descent(writer);
    writer.put(kUserMark);
    if (auto* const archive = SpanOutputArchive::running(writer)) {
        archive->save_by_cereal(value);
    } else {
        SpanOutputArchive fresh(writer);
        fresh.save_by_cereal(value);
    }
}

template <class V>
void encode_value(Writer& writer, V& value) {
    using T = std::remove_const_t<V>;
    constexpr Kind kHow = kKind<T>;
    if constexpr (kFixedSize<T> != 0) {
        store(writer.claim(kFixedSize<T>), value);
    } else if constexpr (kHow == Kind::custom) {
        const Descent descent(writer);
        writer.put(kUserMark);
        Codec<T>::encode(writer, value);
    } else if constexpr (kHow == Kind::contiguous) {
        encode_contiguous(writer, std::span<const typename T::value_type>(value.data(), value.size()));
    } else if constexpr (kHow == Kind::bits) {
        encode_bits(writer, value);
    } else if constexpr (kHow == Kind::sequence || kHow == Kind::set || kHow == Kind::map) {
        encode_elements(writer, value, value.size());
    } else if constexpr (kHow == Kind::forward_list) {
        encode_elements(writer, value, static_cast<std::size_t>(std::distance(value.begin(), value.end())));
    } else if constexpr (kHow == Kind::tuple) {
        std::apply([&](auto&... parts) { (encode_value(writer, parts), ...); }, value);
    } else if constexpr (kHow == Kind::array) {
        for (auto& element : value) {
            encode_value(writer, element);
        }
    } else if constexpr (kHow == Kind::optional) {
        writer.put(static_cast<std::uint8_t>(value.has_value()));
        if (value) {
            encode_value(writer, *value);
        }
    } else if constexpr (kHow == Kind::variant) {
        encode_variant(writer, value);
    } else if constexpr (kHow == Kind::unique) {
        const Descent descent(writer);
        writer.put(static_cast<std::uint8_t>(value != nullptr));
        if (value) {
            encode_value(writer, *value);
        }
    } else if constexpr (kHow == Kind::shared) {
        encode_shared(writer, value);
    } else if constexpr (kHow == Kind::path) {
        encode_value(writer, value.native());
    } else if constexpr (kHow == Kind::cereal) {
        encode_by_cereal(writer, value);
    } else {
        static_assert(kHow == Kind::fields);
        with_fields(value, [&](auto&... fields) { (encode_value(writer, fields), ...); });
    }
}

template <class Value>
void SpanOutputArchive::save_one(Value& value) {
    using T = std::remove_cv_t<Value>;
    if constexpr (kCerealWrapper<T>) {
        save_by_cereal(value);
    } else if constexpr (std::is_array_v<T>) {
        for (auto& element : value) {
            save_one(element);
        }
    } else if constexpr (kKind<T> == Kind::cereal || kOnlyByCereal<T>) {
        const Descent descent(writer_);
        save_by_cereal(value);
    } else if constexpr (Travels<T>) {
        encode_value(writer_, value);
    } else {
        require_travels<T>();
    }
}

}    // namespace multihull::detail
