// The files in which results are kept: see "Files" in README.md.
#pragma once

#include "os/fd.hpp"

#include <multihull/detail/memory_store.hpp>

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace multihull::detail {

inline constexpr char kEntryMagic[8] = {'\x89', 'M', 'H', 'E', '\r', '\n', '\x1a', '\n'};
inline constexpr std::uint32_t kEntryVersion = 1;

/// The beginning of each file, in the machine's byte order.
struct EntryHeader {
    char magic[8];
    std::uint32_t version;
    std::uint32_t method;    // Compression::Method
    Hash128 key;             // zeros in a file of dump()
    Hash128 type;
    std::uint64_t text_size;      // of the text behind the header, a multiple of kEntryAlignment
    std::uint64_t stored_size;    // of the result behind the text, up to the end of the file
    std::uint64_t raw_size;       // of the result when it is no longer compressed
    std::int64_t created;         // nanoseconds since 1970
    std::int64_t duration;        // nanoseconds
    std::uint64_t text_sum;       // XXH3-64
    std::uint64_t stored_sum;
    std::uint64_t reserved[2];
    std::uint64_t header_sum;    // of everything before it
};
/// A mapped result begins at a multiple of this.
inline constexpr std::size_t kEntryAlignment = 64;
static_assert(sizeof(EntryHeader) == 2 * kEntryAlignment);

/// Why a file can't be used: half a sentence, "its checksum is wrong".
struct DamagedEntry {
    const char* why;
};
/// A file that holds a value of another type.
struct OtherType {
    std::string type;
};

/// What open_entry() has read of a file: everything but the result.
struct OpenEntry {
    EntryHeader header;
    EntryText text;
};

/// Reads and checks what comes before the result. Throws DamagedEntry, OtherType, std::system_error.
OpenEntry open_entry(int file, const Hash128& key, const Hash128& type);
/// The result. Throws DamagedEntry, std::system_error.
EntryBytes read_entry(int file, const EntryHeader& header, std::size_t map_from, bool verify_mapped);

/// What a file consists of.
struct EntryParts {
    std::vector<std::byte> head;    // header and text
    std::vector<std::byte> compressed;
    std::span<const std::byte> result;
};
EntryParts make_entry(const Hash128& key, const Hash128& type, const EntryText& text, std::chrono::nanoseconds duration,
                      std::span<const std::byte> result, const Compression& compress);

EntryInfo info_of(const OpenEntry& entry);

}    // namespace multihull::detail
