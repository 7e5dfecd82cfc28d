// Bytes to values: the recursion behind decode(). See "Hostile bytes" in src/codec/README.md.
#pragma once

#include <multihull/detail/codec_bytes.hpp>
#include <multihull/detail/codec_cereal.hpp>
#include <multihull/detail/codec_fixed.hpp>
#include <multihull/detail/codec_travels.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <new>
#include <span>
#include <type_traits>
#include <utility>

namespace multihull::detail {

template <class T>
T decode_value(Reader& reader);

// How many elements to make room for at once: bytes that claim many get no more memory than they take themselves.
template <class Element>
std::size_t sane_capacity(const Reader& reader, std::size_t count) {
    const std::size_t affordable = 4 * reader.remaining() / sizeof(Element) + 16;
    return count < affordable ? count : affordable;
}

/// The bytes of what encode_contiguous() wrote.
template <class Element>
std::span<const std::byte> view_contiguous(Reader& reader) {
    const std::size_t count = reader.read_length(sizeof(Element));
    if constexpr (alignof(Element) > 1) {
        const auto padding = reader.get<std::uint8_t>();
        if (padding >= alignof(Element)) {
            throw_damaged("there is more padding than any element needs");
        }
        reader.view(padding);
    }
    return reader.view(count * sizeof(Element));
}

/// The elements where they are; nullptr where they don't stand as they would in an array.
template <class Element>
const Element* elements_at(std::span<const std::byte> bytes) {
    if (reinterpret_cast<std::uintptr_t>(bytes.data()) % alignof(Element) != 0) return nullptr;
    return std::launder(reinterpret_cast<const Element*>(bytes.data()));
}

// Where the elements stand as they would in an array they are copied in one go; setting them to zero first costs as much again.
template <class T>
T copy_contiguous(std::span<const std::byte> view) {
    using Element = typename T::value_type;
    const auto* const bytes = view.data();
    const std::size_t count = view.size() / sizeof(Element);
    T range;
    if constexpr (std::is_copy_assignable_v<Element> && std::is_copy_constructible_v<Element>) {
        if (const Element* const elements = elements_at<Element>(view)) {
            range.reserve(count);
            if (sizeof(Element) <= kQuickPiece && copies_slowly(range.data(), elements, view.size())) {
                constexpr std::size_t kPiece = (kQuickPiece + sizeof(Element) - 1) / sizeof(Element);
                for (std::size_t done = 0; done < count; done += kPiece) {
                    range.insert(range.end(), elements + done, elements + std::min(count, done + kPiece));
                }
            } else {
                range.assign(elements, elements + count);
            }
            return range;
        }
    }
    if constexpr (std::is_default_constructible_v<Element> && std::is_copy_assignable_v<Element>) {
        range.resize(count);
        copy_bytes(static_cast<void*>(range.data()), bytes, count * sizeof(Element));
    } else {
        range.reserve(count);
        for (std::size_t i = 0; i < count; ++i) {
            range.push_back(load<Element>(bytes + i * sizeof(Element)));
        }
    }
    return range;
}

template <class T>
T decode_bits(Reader& reader) {
    const auto count = reader.get<std::uint64_t>();
    if (count / 8 + (count % 8 != 0 ? 1 : 0) > reader.remaining()) {
        throw_bad_length(count, reader.remaining());
    }
    const auto bytes = reader.view(static_cast<std::size_t>((count + 7) / 8));
    T bits(static_cast<std::size_t>(count));
    for (std::size_t i = 0; i < bits.size(); ++i) {
        bits[i] = (std::to_integer<unsigned>(bytes[i / 8]) >> (i % 8) & 1U) != 0;
    }
    return bits;
}

// Calls add(element) for each, with the elements loaded in one sweep where their size is known.
template <class Element, class Add>
void decode_elements(Reader& reader, std::size_t count, Add add) {
    if constexpr (kFixedSize<Element> != 0) {
        const std::byte* place = reader.view(count * kFixedSize<Element>).data();
        for (std::size_t i = 0; i < count; ++i, place += kFixedSize<Element>) {
            add(load<Element>(place));
        }
    } else {
        const Descent descent(reader);
        for (std::size_t i = 0; i < count; ++i) {
            add(decode_value<Element>(reader));
        }
    }
}

template <class T>
T decode_sequence(Reader& reader) {
    using Element = typename T::value_type;
    const std::size_t count = reader.read_length(kMinSize<Element>);
    T range;
    if constexpr (requires { range.reserve(count); }) {
        range.reserve(sane_capacity<Element>(reader, count));
    }
    decode_elements<Element>(reader, count, [&](Element&& element) { range.push_back(std::move(element)); });
    return range;
}

template <class T>
T decode_forward_list(Reader& reader) {
    using Element = typename T::value_type;
    T list;
    auto last = list.before_begin();
    decode_elements<Element>(reader, reader.read_length(kMinSize<Element>),
                             [&](Element&& element) { last = list.insert_after(last, std::move(element)); });
    return list;
}

template <class T>
T decode_set(Reader& reader) {
    using Key = typename T::key_type;
    const std::size_t count = reader.read_length(kMinSize<Key>);
    T set;
    if constexpr (requires { set.reserve(count); }) {
        set.reserve(sane_capacity<Key>(reader, count));
    }
    decode_elements<Key>(reader, count, [&](Key&& key) { set.emplace_hint(set.end(), std::move(key)); });
    return set;
}

template <class T>
T decode_map(Reader& reader) {
    using Entry = std::pair<typename T::key_type, typename T::mapped_type>;
    const std::size_t count = reader.read_length(kMinSize<Entry>);
    T map;
    if constexpr (requires { map.reserve(count); }) {
        map.reserve(sane_capacity<Entry>(reader, count));
    }
    decode_elements<Entry>(reader, count, [&](Entry&& entry) {
        map.emplace_hint(map.end(), std::move(entry.first), std::move(entry.second));
    });
    return map;
}

template <class T, class... Parts>
T decode_parts(Reader& reader, TypeList<Parts...>) {
    return T{decode_value<std::remove_cv_t<Parts>>(reader)...};    // in order: the standard says so for braces
}

inline bool decode_flag(Reader& reader) {
    const auto flag = reader.get<std::uint8_t>();
    if (flag > 1) [[unlikely]] {
        throw_damaged("a flag is neither yes nor no");
    }
    return flag == 1;
}

template <class Element>
void decode_array_into(Reader& reader, Element* elements, std::size_t count) {
    if constexpr (kPlain<Element> && !std::is_same_v<Element, bool>) {
        reader.read(static_cast<void*>(elements), count * sizeof(Element));
    } else {
        for (std::size_t i = 0; i < count; ++i) {
            if constexpr (std::is_array_v<Element>) {
                decode_array_into(reader, elements[i], std::extent_v<Element>);
            } else {
                elements[i] = decode_value<Element>(reader);
            }
        }
    }
}

template <class T>
T decode_array(Reader& reader) {
    using Element = typename T::value_type;
    if constexpr (std::is_default_constructible_v<T> && std::is_move_assignable_v<Element>) {
        T array{};
        decode_array_into(reader, array.data(), array.size());
        return array;
    } else {
        return [&]<std::size_t... kIndices>(std::index_sequence<kIndices...>) {
            return T{{(static_cast<void>(kIndices), decode_value<Element>(reader))...}};
        }(std::make_index_sequence<std::tuple_size_v<T>>());
    }
}

template <class T, std::size_t... kIndices>
T decode_variant(Reader& reader, std::index_sequence<kIndices...>) {
    const auto index = reader.get<std::uint16_t>();
    if (index >= sizeof...(kIndices)) [[unlikely]] {
        throw_damaged("a std::variant holds none of its alternatives");
    }
    using Make = T (*)(Reader&);
    static constexpr Make kMake[] = {[](Reader& from) -> T {
        return T(std::in_place_index<kIndices>,
                 decode_value<std::remove_cv_t<std::variant_alternative_t<kIndices, T>>>(from));
    }...};
    return kMake[index](reader);
}

template <class T>
T decode_shared(Reader& reader) {
    using Pointee = std::remove_cv_t<typename T::element_type>;
    const auto id = reader.get<std::uint32_t>();
    if (id == 0) {
        return nullptr;
    }
    if (!begin_shared(reader, id)) {
        return std::static_pointer_cast<Pointee>(find_shared(reader, id, &kTypeTag<Pointee>));
    }
    const Descent descent(reader);
    std::shared_ptr<Pointee> pointer(new Pointee(decode_value<Pointee>(reader)));
    end_shared(reader, id, pointer, &kTypeTag<Pointee>);
    return pointer;
}

inline void expect_user_mark(Reader& reader) {
    if (reader.get<std::uint8_t>() != kUserMark) [[unlikely]] {
        throw_damaged("a value of another type stands where this one should begin");
    }
}

template <class T>
T decode_by_cereal(Reader& reader) {
    const Descent descent(reader);
    expect_user_mark(reader);
    T value{};
    try {
        if (auto* const archive = SpanInputArchive::running(reader)) {
            archive->load_by_cereal(value);
        } else {
            SpanInputArchive fresh(reader);
            fresh.load_by_cereal(value);
        }
    } catch (const cereal::Exception& error) {
        throw_damaged(error.what());
    }
    return value;
}

template <class Field>
void decode_field_into(Reader& reader, Field& field) {
    if constexpr (std::is_array_v<Field>) {
        decode_array_into(reader, field, std::extent_v<Field>);
    } else {
        field = decode_value<Field>(reader);
    }
}

template <class T>
T decode_fields(Reader& reader) {
    if constexpr (holds_array(FieldTypes<T>{})) {
        T value{};
        with_fields(value, [&](auto&... fields) { (decode_field_into(reader, fields), ...); });
        return value;
    } else {
        return decode_parts<T>(reader, FieldTypes<T>{});
    }
}

template <class T>
T decode_value(Reader& reader) {
    constexpr Kind kHow = kKind<T>;
    if constexpr (kFixedSize<T> != 0) {
        return load<T>(reader.view(kFixedSize<T>).data());
    } else if constexpr (kHow == Kind::custom) {
        const Descent descent(reader);
        expect_user_mark(reader);
        return Codec<T>::decode(reader);
    } else if constexpr (kHow == Kind::contiguous) {
        return copy_contiguous<T>(view_contiguous<typename T::value_type>(reader));
    } else if constexpr (kHow == Kind::bits) {
        return decode_bits<T>(reader);
    } else if constexpr (kHow == Kind::sequence) {
        return decode_sequence<T>(reader);
    } else if constexpr (kHow == Kind::forward_list) {
        return decode_forward_list<T>(reader);
    } else if constexpr (kHow == Kind::set) {
        return decode_set<T>(reader);
    } else if constexpr (kHow == Kind::map) {
        return decode_map<T>(reader);
    } else if constexpr (kHow == Kind::tuple) {
        return decode_parts<T>(reader, typename StdType<T>::Parts{});
    } else if constexpr (kHow == Kind::array) {
        return decode_array<T>(reader);
    } else if constexpr (kHow == Kind::optional) {
        return decode_flag(reader) ? T(std::in_place, decode_value<std::remove_cv_t<typename T::value_type>>(reader))
                                   : T();
    } else if constexpr (kHow == Kind::variant) {
        return decode_variant<T>(reader, std::make_index_sequence<std::variant_size_v<T>>());
    } else if constexpr (kHow == Kind::unique) {
        using Pointee = std::remove_cv_t<typename T::element_type>;
        const Descent descent(reader);
        return decode_flag(reader) ? T(new Pointee(decode_value<Pointee>(reader))) : T();
    } else if constexpr (kHow == Kind::shared) {
        return decode_shared<T>(reader);
    } else if constexpr (kHow == Kind::path) {
        return T(decode_value<typename T::string_type>(reader));
    } else if constexpr (kHow == Kind::cereal) {
        return decode_by_cereal<T>(reader);
    } else {
        static_assert(kHow == Kind::fields);
        return decode_fields<T>(reader);
    }
}

template <class Value>
void SpanInputArchive::load_one(Value& value) {
    using T = std::remove_cv_t<Value>;
    if constexpr (kCerealWrapper<T>) {
        load_by_cereal(value);
    } else if constexpr (std::is_array_v<T>) {
        for (auto& element : value) {
            load_one(element);
        }
    } else if constexpr (kKind<T> == Kind::cereal || kOnlyByCereal<T>) {
        const Descent descent(reader_);
        load_by_cereal(value);
    } else if constexpr (Travels<T>) {
        value = decode_value<T>(reader_);
    } else {
        require_travels<T>();
    }
}

}    // namespace multihull::detail
