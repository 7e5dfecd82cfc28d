// One thread of one process at a time computes a missing result: a table for the threads of a process, and a byte of the store's
// lock file, locked by fcntl, for the processes.
//
// Why fcntl's locks and not flock's or those of open files: they belong to the process, so they end with it even where a child that
// it forked goes on with copies of its descriptors. Their one trap, that any close() of the file drops them, is avoided by never
// closing it; and if somebody else's code did, two would compute the same.
#include "os/fault.hpp"
#include "os/fd.hpp"
#include "process/self.hpp"

#include <multihull/detail/memory_store.hpp>

#include <atomic>
#include <cerrno>
#include <condition_variable>
#include <cstdint>
#include <fcntl.h>
#include <map>
#include <mutex>
#include <sys/stat.h>
#include <thread>
#include <unistd.h>

namespace multihull::detail {

namespace {

struct LockFile {
    std::uint64_t device;
    std::uint64_t inode;
    auto operator<=>(const LockFile&) const = default;
};

// Leaked: locks are held until the process ends. A forked child has a table of its own, for the parent's may be locked, and holds
// none of its parent's locks.
struct Table {
    std::mutex mutex;
    std::condition_variable released;
    std::map<LockFile, int> files;    // never closed
    std::map<std::pair<std::uint64_t, Hash128>, std::thread::id> held;
};

std::atomic<Table*> the_table{nullptr};
const ForkChildHook kForgetTable([] { the_table.store(nullptr); });

Table& table() {
    Table* current = the_table.load(std::memory_order_acquire);
    if (current == nullptr) {
        watch_forks();
        auto* const fresh = new Table;
        if (the_table.compare_exchange_strong(current, fresh, std::memory_order_acq_rel)) return *fresh;
        delete fresh;
    }
    return *current;
}

std::optional<LockFile> identity(const struct stat& status) { return LockFile{status.st_dev, status.st_ino}; }

// The one descriptor that this process has of the file; -1 where it can't be had.
int open_once(Table& locks, const std::string& path) {
    struct stat status {};
    const std::lock_guard guard(locks.mutex);
    if (::stat(path.c_str(), &status) == 0) {
        if (const auto found = locks.files.find(*identity(status)); found != locks.files.end()) return found->second;
    }
    os::Fd fd(os::checked(os::Call::lock_file, [&] {
        return ::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, 0666);
    }));
    if (!fd || ::fstat(fd.get(), &status) != 0 || !S_ISREG(status.st_mode)) {
        fd.release();    // closing it could drop what is held of it
        return -1;
    }
    return locks.files.emplace(*identity(status), fd.release()).first->second;
}

bool lock_byte(int file, const Hash128& key, short type) noexcept {
    struct flock byte {};
    byte.l_type = type;
    byte.l_whence = SEEK_SET;
    byte.l_start = static_cast<off_t>(key.low >> 2);
    byte.l_len = 1;
    int status = 0;
    // Deadlock, as the kernel sees it, too many locks, a file system without them: then there is no lock, and two may compute the same.
    do status = os::checked(os::Call::lock_file, [&] { return ::fcntl(file, F_SETLKW, &byte); });
    while (status != 0 && errno == EINTR);
    return status == 0;
}

}    // namespace

ComputeLock::ComputeLock(const Store& store, const Hash128& key) : generation_(fork_generation()) {
    Table& locks = table();
    file_ = open_once(locks, store.lock_file());
    key_ = {file_ >= 0 ? static_cast<std::uint64_t>(file_) : std::hash<std::string>()(store.path()), key};
    {
        std::unique_lock guard(locks.mutex);
        for (;;) {
            const auto [place, free] = locks.held.try_emplace(key_, std::this_thread::get_id());
            if (free) break;
            // A function that calls itself for the same result, which must not wait for itself.
            if (place->second == std::this_thread::get_id()) return;
            locks.released.wait(guard);
        }
        held_ = true;
    }
    if (file_ >= 0) file_held_ = lock_byte(file_, key, F_WRLCK);
    os::kill_point(os::KillPoint::result_locked);
}

ComputeLock::~ComputeLock() {
    // In a child that the function forked, and that came back from it, nothing is held.
    if (!held_ || generation_ != fork_generation()) return;
    if (file_held_) lock_byte(file_, key_.second, F_UNLCK);
    Table& locks = table();
    {
        const std::lock_guard guard(locks.mutex);
        locks.held.erase(key_);
    }
    locks.released.notify_all();
}

}    // namespace multihull::detail
