// The folder behind a Memory, without templates: entries as bytes. See src/memory/README.md for files, locks and kill points.
//
// Safe for any number of threads and processes on one folder.
#pragma once

#include <multihull/codec.hpp>
#include <multihull/hasher.hpp>
#include <multihull/memory_options.hpp>

#include <atomic>
#include <chrono>
#include <cstddef>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

namespace multihull::detail {

/// The bytes of a result as they lie in memory, read or mapped, and what keeps them there.
struct EntryBytes {
    std::shared_ptr<const void> owner;
    std::span<const std::byte> bytes;
};

/// Which file of a store.
struct EntryName {
    std::string folder;    // of the function
    Hash128 key;
    Hash128 type;    // signature of the result's type
};

/// What a file says beside the result.
struct EntryText {
    std::string function;
    std::string version;
    std::string arguments;
    std::string type;    // for people
};

/// Which entries may be used.
struct EntryPolicy {
    std::optional<std::chrono::nanoseconds> expires_after;
    bool (*validate)(const EntryInfo&) = nullptr;
};

/// A result as bytes, to be kept.
class EncodedEntry {
public:
    EncodedEntry();
    Writer& writer() noexcept { return writer_; }
    /// Throws Error where they name a shared object, which means nothing on disk.
    std::span<const std::byte> bytes() const;

private:
    VectorGrowth growth_;
    std::vector<std::shared_ptr<const void>> named_;
    Writer writer_;
};

class Store {
public:
    /// The store in a folder, which is made if need be. Throws Error where the folder is somebody else's.
    static std::shared_ptr<Store> open(const std::string& path, const MemoryOptions& options);

    Store(std::string path, const MemoryOptions& options);

    const std::string& path() const noexcept { return path_; }
    const MemoryOptions& options() const noexcept { return options_; }
    /// The folder's name for a function's.
    static std::string folder_of(const std::string& function);

    /// The entry, whole and checked, or nothing. With `say`, says in the log why it can't be used if it is damaged.
    std::optional<EntryBytes> find(const EntryName& name, const EntryPolicy& policy, bool say);
    /// Whether there is an entry to be used, as far as its header tells.
    bool contains(const EntryName& name, const EntryPolicy& policy);
    /// Keeps a result; false where that can't be done, which is said once.
    bool put(const EntryName& name, const EntryText& text, std::chrono::nanoseconds duration,
             const EncodedEntry& entry);
    /// Removes an entry, if it is there. Throws Error where it can't be removed.
    void remove(const EntryName& name);
    void report_damaged(const EntryName& name, const char* why);
    /// Says once that results are not kept, and why.
    void report_not_kept(const char* why);

    /// Removes all entries, of one function or of all.
    void clear(const std::string* folder);
    /// How many entries were removed.
    std::size_t reduce(const ReduceLimits& limits);

    std::string file_of(const EntryName& name) const;
    std::string lock_file() const { return path_ + "/.locks"; }

private:
    void prepare_folder(bool say);

    const std::string path_;
    const MemoryOptions options_;
    std::atomic<bool> said_not_kept_{false};
};

/// Held while a missing result is computed: by one thread of one process for a key. Ends with its owner, however that ends.
class ComputeLock {
public:
    /// Waits until nobody else holds it.
    ComputeLock(const Store& store, const Hash128& key);
    ~ComputeLock();
    ComputeLock(const ComputeLock&) = delete;
    ComputeLock& operator=(const ComputeLock&) = delete;

private:
    std::pair<std::uint64_t, Hash128> key_;
    int file_ = -1;
    bool held_ = false;
    bool file_held_ = false;
    std::uint32_t generation_;
};

/// What decode() of a MappedArray looks into, for as long as it lives: see EntryBytes::owner.
class DecodeFrom {
public:
    explicit DecodeFrom(const EntryBytes& entry) noexcept;
    ~DecodeFrom();
    DecodeFrom(const DecodeFrom&) = delete;
    DecodeFrom& operator=(const DecodeFrom&) = delete;

    /// What keeps these bytes of the entry that is being decoded; null for bytes of something else.
    static std::shared_ptr<const void> owner_of(std::span<const std::byte> bytes) noexcept;

private:
    const EntryBytes* entry_;
    const DecodeFrom* outer_;
};

void dump_entry(const std::string& path, const Hash128& type, std::string_view type_name, const EncodedEntry& entry,
                const DumpOptions& options);
EntryBytes load_entry(const std::string& path, const Hash128& type, std::string_view type_name,
                      const LoadOptions& options);
[[noreturn]] void throw_load_damaged(const std::string& path, const char* why);
[[noreturn]] void throw_shelved_gone(const std::string& function);
[[noreturn]] void throw_bad_ignore(const std::string& function, std::size_t position, std::size_t arguments);
/// Stores and options on their way to another process.
void encode_store(Writer& writer, const Store& store);
std::shared_ptr<Store> decode_store(Reader& reader);
void encode_options(Writer& writer, const CacheOptions& options);
CacheOptions decode_options(Reader& reader);

std::string absolute_path(const std::string& path);
void check_name(const std::string& function);

}    // namespace multihull::detail
