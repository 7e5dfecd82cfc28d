// How results are kept on disk, and what is known of one that is.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace multihull {

/// How the bytes of a file are compressed.
struct Compression {
    enum class Method : std::uint8_t { none, zstd };

    Method method = Method::none;
    int level = 3;

    bool operator==(const Compression&) const = default;
};
/// `{.compress = zstd()}`: levels 1 (quick) to 19 (small), negative ones quicker still.
constexpr Compression zstd(int level = 3) noexcept { return {Compression::Method::zstd, level}; }

/// For all functions of a Memory.
struct MemoryOptions {
    /// Results that become no smaller are kept as they are. What is compressed can't be mapped.
    Compression compress = {};
    /// Files of at least so many bytes are mapped into memory instead of read: a MappedArray in them costs no copy. SIZE_MAX: none.
    std::size_t map_from = std::size_t{1} << 20;
    /// Whether the checksum of a mapped file is checked too, which reads it through once.
    bool verify_mapped = true;

    bool operator==(const MemoryOptions&) const = default;
};

/// What is known of a kept result, for a validation function.
struct EntryInfo {
    std::string_view function;                        ///< The name that it was cached under.
    std::string_view version;                         ///< CacheOptions::version.
    std::string_view arguments;                       ///< As text, `3.5, "abc"`; cut after some 200 characters.
    std::chrono::system_clock::time_point created;    ///< When it was computed.
    std::chrono::nanoseconds age;                     ///< Since then.
    std::chrono::nanoseconds duration;                ///< How long computing it took.
    std::size_t bytes;                                ///< Of its file.
};

/// For one function.
struct CacheOptions {
    /// Part of the key: change it when the function computes something else than before.
    std::string version = {};
    /// Positions, from 0, of arguments that don't change the result, such as a number of workers. See also `ignoring`.
    std::vector<std::size_t> ignore = {};
    /// Results older than this are computed again.
    std::optional<std::chrono::nanoseconds> expires_after = std::nullopt;
    /// A function, or a lambda without captures, that says of a result whether it may still be used.
    bool (*validate)(const EntryInfo&) = nullptr;
    /// Whether callers of the same missing result, in whichever process, wait for the first of them instead of computing it too. A
    /// function that waits for another thread or process to compute the same result again would wait for itself: not for those.
    bool compute_once = true;
};

/// What reduce_size() leaves: what was used least recently goes first.
struct ReduceLimits {
    std::optional<std::size_t> bytes = std::nullopt;               ///< Of all files together.
    std::optional<std::size_t> items = std::nullopt;               ///< How many results.
    std::optional<std::chrono::nanoseconds> age = std::nullopt;    ///< Since a result was last used.
};

/// For dump().
struct DumpOptions {
    Compression compress = {};
    /// Waits until the file is on the disk, so that it survives a loss of power too.
    bool sync = false;
};

/// For load(): as in MemoryOptions.
struct LoadOptions {
    std::size_t map_from = std::size_t{1} << 20;
    bool verify_mapped = true;
};

}    // namespace multihull
