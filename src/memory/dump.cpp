// dump() and load(): a value in a file of the user's, of the same format as the entries of a cache.
#include "memory/entry_file.hpp"
#include "os/fd.hpp"
#include "os/new_file.hpp"

#include <multihull/detail/memory_store.hpp>
#include <multihull/error.hpp>

#include <cerrno>
#include <climits>
#include <cstdlib>
#include <fcntl.h>
#include <string_view>
#include <system_error>
#include <unistd.h>

namespace multihull::detail {

namespace {

constexpr Hash128 kNoKey{};

thread_local const DecodeFrom* decoding = nullptr;

}    // namespace

DecodeFrom::DecodeFrom(const EntryBytes& entry) noexcept : entry_(&entry), outer_(decoding) { decoding = this; }
DecodeFrom::~DecodeFrom() { decoding = outer_; }

std::shared_ptr<const void> DecodeFrom::owner_of(std::span<const std::byte> bytes) noexcept {
    if (decoding == nullptr) return nullptr;
    const auto whole = decoding->entry_->bytes;
    const std::less_equal<> no_later;
    const bool inside =
        no_later(whole.data(), bytes.data()) && no_later(bytes.data() + bytes.size(), whole.data() + whole.size());
    return inside ? decoding->entry_->owner : nullptr;
}

void dump_entry(const std::string& path, const Hash128& type, std::string_view type_name, const EncodedEntry& entry,
                const DumpOptions& options) {
    const std::size_t slash = path.rfind('/');
    const std::string folder_name = slash == path.npos ? "." : slash == 0 ? "/" : path.substr(0, slash);
    const std::string name = slash == path.npos ? path : path.substr(slash + 1);
    try {
        if (name.empty() || name == "." || name == "..") {
            throw std::system_error(EISDIR, std::generic_category(), "making a file");
        }
        const EntryParts parts = make_entry(kNoKey, type, EntryText{{}, {}, {}, std::string(type_name)}, {},
                                            entry.bytes(), options.compress);
        const os::Fd folder(::open(folder_name.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
        if (!folder) os::throw_errno("opening the folder");
        os::NewFile file(folder.get(), name);
        file.write(parts.head);
        file.write(parts.result);
        if (options.sync) file.sync();
        file.publish();
        if (options.sync && ::fsync(folder.get()) != 0) os::throw_errno("writing the folder to the disk");
    } catch (const std::system_error& error) {
        throw Error("A value can't be dumped to " + path + " (" + error.what() +
                    "). Check that the folder exists, that this user may write to it, and that there is room.");
    } catch (const Error& error) {
        throw Error("A value can't be dumped to " + path + ": " + error.what() + ".");
    }
}

EntryBytes load_entry(const std::string& path, const Hash128& type, std::string_view type_name,
                      const LoadOptions& options) {
    const os::Fd file(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
    if (!file) {
        throw Error("A value can't be loaded from " + path + ": " + std::generic_category().message(errno) +
                    ". Check the path, and that this user may read it.");
    }
    try {
        const OpenEntry entry = open_entry(file.get(), kNoKey, type);
        return read_entry(file.get(), entry.header, options.map_from, options.verify_mapped);
    } catch (const DamagedEntry& damage) {
        throw_load_damaged(path, damage.why);
    } catch (const OtherType& other) {
        throw Error("A value can't be loaded from " + path + ": it holds a " + other.type + ", not a " +
                    std::string(type_name) +
                    ", or one whose fields have changed since. Load it as what was dumped, or dump it again.");
    } catch (const std::system_error& error) {
        throw Error("A value can't be loaded from " + path + " (" + error.what() + ").");
    }
}

void throw_load_damaged(const std::string& path, const char* why) {
    throw Error("A value can't be loaded from " + path + ": " + why +
                ". It is damaged, or was never written by multihull::dump(); dump it again.");
}

void throw_shelved_gone(const std::string& function) {
    throw Error("A shelved result of \"" + function +
                "\" is gone: it was cleared, evicted or damaged since it was computed. Call the function again.");
}

void throw_bad_ignore(const std::string& function, std::size_t position, std::size_t arguments) {
    throw Error("The cached function \"" + function + "\" ignores its argument " + std::to_string(position) +
                ", but is called with " + std::to_string(arguments) +
                ". Positions begin at 0: put the right ones into CacheOptions::ignore.");
}

void check_name(const std::string& function) {
    if (function.empty()) {
        throw Error("A cached function has no name. Give it one of its own: results are found by it.");
    }
}

std::string absolute_path(const std::string& path) {
    if (path.empty())
        throw Error("A Memory has no folder: its path is empty. Name the folder that results are kept in.");
    std::string absolute = path;
    if (!path.starts_with('/')) {
        const std::unique_ptr<char, void (*)(void*)> here(::getcwd(nullptr, 0), std::free);
        if (here != nullptr) absolute = std::string(here.get()) + '/' + path;
    }
    while (absolute.size() > 1 && absolute.ends_with('/')) absolute.pop_back();
    return absolute;
}

}    // namespace multihull::detail
