// Results to the bytes of an entry and back.
#pragma once

#include <multihull/codec.hpp>
#include <multihull/detail/memory_store.hpp>
#include <multihull/mapped_array.hpp>

namespace multihull::detail {

template <class T>
void encode_entry(EncodedEntry& entry, const T& value) {
    if constexpr (kMappedArray<T>) {
        encode_elements_of(entry.writer(), value);
    } else {
        encode(entry.writer(), value);
    }
}

template <class T>
T decode_value_of_entry(Reader& reader) {
    if constexpr (kMappedArray<T>) {
        return decode_mapped<typename T::value_type>(reader);
    } else {
        return decode<T>(reader);
    }
}

/// Throws CodecError where the bytes are not those of such a value.
template <class T>
T decode_entry(const EntryBytes& entry) {
    const DecodeFrom scope(entry);
    Reader reader(entry.bytes);
    T value = decode_value_of_entry<T>(reader);
    reader.expect_end();
    return value;
}

}    // namespace multihull::detail
