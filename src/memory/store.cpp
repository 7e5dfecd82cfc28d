#include "memory/entry_file.hpp"
#include "memory/folder.hpp"
#include "os/fd.hpp"
#include "os/new_file.hpp"
#include "process/self.hpp"

#include <multihull/detail/memory_store.hpp>
#include <multihull/error.hpp>
#include <multihull/log.hpp>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <fcntl.h>
#include <map>
#include <mutex>
#include <set>
#include <sys/stat.h>
#include <system_error>
#include <tuple>
#include <unistd.h>

namespace multihull::detail {

namespace {

// The stores that this process has used, kept until its end: a task that comes with a store finds it here. And what was said of
// damaged entries. A forked child has its own, for the parent's may be locked.
struct Registry {
    std::mutex mutex;
    std::set<std::string> said_damaged;
    std::map<std::tuple<std::string, int, int, std::size_t, bool>, std::shared_ptr<Store>> stores;
};

std::atomic<Registry*> the_registry{nullptr};
const ForkChildHook kForgetRegistry([] { the_registry.store(nullptr); });

Registry& registry() {
    Registry* current = the_registry.load(std::memory_order_acquire);
    if (current == nullptr) {
        watch_forks();
        auto* const fresh = new Registry;
        if (the_registry.compare_exchange_strong(current, fresh, std::memory_order_acq_rel)) return *fresh;
        delete fresh;
    }
    return *current;
}

bool may_be_used(const OpenEntry& entry, const EntryPolicy& policy) {
    if (!policy.expires_after && policy.validate == nullptr) return true;
    const EntryInfo info = info_of(entry);
    if (policy.expires_after && info.age > *policy.expires_after) return false;
    return policy.validate == nullptr || policy.validate(info);
}

os::Fd open_file(const std::string& path) {
    return os::Fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK));
}

// So that reduce() knows what was used last, on file systems mounted with noatime too.
void note_use(int file) noexcept {
    const timespec times[2] = {{0, UTIME_NOW}, {0, UTIME_OMIT}};
    ::futimens(file, times);
}

}    // namespace

EncodedEntry::EncodedEntry() : writer_({}, growth_) { writer_.keep_in(named_); }

std::span<const std::byte> EncodedEntry::bytes() const {
    if (!named_.empty()) throw Error("it holds a handle of a shared object, which means nothing on disk");
    return writer_.bytes();
}

std::shared_ptr<Store> Store::open(const std::string& path, const MemoryOptions& options) {
    Registry& known = registry();
    const std::tuple key(path, static_cast<int>(options.compress.method), options.compress.level, options.map_from,
                         options.verify_mapped);
    const std::lock_guard guard(known.mutex);
    if (const auto found = known.stores.find(key); found != known.stores.end()) {
        // Made again where it was removed meanwhile.
        if (::access(found->second->path().c_str(), F_OK) != 0) found->second->prepare_folder(true);
        return found->second;
    }
    auto store = std::make_shared<Store>(path, options);
    known.stores.emplace(key, store);
    return store;
}

Store::Store(std::string path, const MemoryOptions& options) : path_(std::move(path)), options_(options) {
    prepare_folder(true);
}

void Store::prepare_folder(bool say) {
    try {
        make_cache_folder(path_);
    } catch (const std::system_error& error) {
        if (say) report_not_kept(error.what());
    }
}

std::string Store::file_of(const EntryName& name) const {
    return path_ + '/' + name.folder + '/' + name.key.to_string() + kEntrySuffix;
}

std::optional<EntryBytes> Store::find(const EntryName& name, const EntryPolicy& policy, bool say) {
    const os::Fd file = open_file(file_of(name));
    if (!file) {
        if (say && errno != ENOENT && errno != ENOTDIR && errno != ELOOP) {
            report_damaged(name, std::generic_category().message(errno).c_str());
        }
        return std::nullopt;
    }
    try {
        const OpenEntry entry = open_entry(file.get(), name.key, name.type);
        if (!may_be_used(entry, policy)) return std::nullopt;
        EntryBytes bytes = read_entry(file.get(), entry.header, options_.map_from, options_.verify_mapped);
        note_use(file.get());
        return bytes;
    } catch (const DamagedEntry& damage) {
        if (say) report_damaged(name, damage.why);
    } catch (const OtherType&) {
        if (say) report_damaged(name, "it holds a value of another type");
    } catch (const std::system_error& error) {
        if (say) report_damaged(name, error.what());
    }
    return std::nullopt;
}

bool Store::contains(const EntryName& name, const EntryPolicy& policy) {
    const os::Fd file = open_file(file_of(name));
    if (!file) return false;
    try {
        return may_be_used(open_entry(file.get(), name.key, name.type), policy);
    } catch (const DamagedEntry&) {
    } catch (const OtherType&) {
    } catch (const std::system_error&) {}
    return false;
}

bool Store::put(const EntryName& name, const EntryText& text, std::chrono::nanoseconds duration,
                const EncodedEntry& encoded) {
    try {
        const EntryParts parts = make_entry(name.key, name.type, text, duration, encoded.bytes(), options_.compress);
        for (int attempt = 0;; ++attempt) {
            try {
                const os::Fd folder = open_function_folder(path_, name.folder);
                os::NewFile file(folder.get(), name.key.to_string() + kEntrySuffix);
                file.write(parts.head);
                file.write(parts.result);
                file.publish();
                break;
            } catch (const std::system_error& error) {
                // Somebody clears the cache, or has removed its folder.
                if (attempt == 8 || error.code() != std::errc::no_such_file_or_directory) throw;
            }
        }
        Registry& known = registry();
        const std::lock_guard guard(known.mutex);
        known.said_damaged.erase(file_of(name));
        return true;
    } catch (const std::system_error& error) {
        report_not_kept(error.what());
    } catch (const Error& error) {
        report_not_kept(error.what());
    } catch (const std::bad_alloc&) {
        report_not_kept("there is no memory for their encoding");
    }
    return false;
}

void Store::remove(const EntryName& name) {
    if (::unlink(file_of(name).c_str()) == 0 || errno == ENOENT || errno == ENOTDIR) return;
    throw Error("The kept result " + file_of(name) + " can't be removed: " + std::generic_category().message(errno) +
                ". Check who may write to the folder.");
}

void Store::report_damaged(const EntryName& name, const char* why) {
    const std::string file = file_of(name);
    {
        Registry& known = registry();
        const std::lock_guard guard(known.mutex);
        if (!known.said_damaged.insert(file).second) return;
    }
    log(LogLevel::warning, "the kept result " + file + " can't be used (" + why + "): it is computed again");
}

void Store::report_not_kept(const char* why) {
    if (said_not_kept_.exchange(true)) return;
    log(LogLevel::warning, "results can't be kept in " + path_ + " (" + why +
                               "): they are computed each time they are asked for. Make room there, let this user "
                               "write to it, or choose another folder; this is said once");
}

void Store::clear(const std::string* folder) { clear_cache_folder(path_, folder); }

std::size_t Store::reduce(const ReduceLimits& limits) { return reduce_cache_folder(path_, limits); }

}    // namespace multihull::detail
