// A value in a file, whole and checked: in the format in which a Memory keeps results (src/memory/README.md).
//
// Thread-safe, and safe across processes: who loads while others dump finds one of the values, whole. A dump that is killed leaves
// the file that was there.
#pragma once

#include <multihull/detail/cache_key.hpp>
#include <multihull/detail/entry_value.hpp>
#include <multihull/detail/memory_store.hpp>
#include <multihull/error.hpp>
#include <multihull/mapped_array.hpp>
#include <multihull/memory_options.hpp>

#include <string>

namespace multihull {

/// Writes a value to a file, which is whole or not there, whoever dies meanwhile. Throws Error.
template <class T>
void dump(const T& value, const std::string& path, const DumpOptions& options = {}) {
    detail::require_travels<T>();
    detail::EncodedEntry entry;
    detail::encode_entry(entry, value);
    detail::dump_entry(path, detail::kept_signature<T>(), detail::type_name<T>(), entry, options);
}

/// The value that dump() wrote. A std::vector of plain values can be loaded as a MappedArray, and the other way round. Throws
/// Error where the file can't be read, is damaged, or holds something else.
template <class T>
T load(const std::string& path, const LoadOptions& options = {}) {
    detail::require_travels<T>();
    const detail::EntryBytes entry =
        detail::load_entry(path, detail::kept_signature<T>(), detail::type_name<T>(), options);
    try {
        return detail::decode_entry<T>(entry);
    } catch (const CodecError& error) {
        detail::throw_load_damaged(path, error.what());
    }
}

}    // namespace multihull
