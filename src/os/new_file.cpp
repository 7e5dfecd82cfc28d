#include "os/new_file.hpp"

#include "os/fault.hpp"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <fcntl.h>
#include <functional>
#include <string_view>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>
#include <utility>

namespace multihull::os {

namespace {

constexpr mode_t kMode = 0666;    // less the umask
constexpr std::string_view kMark = ".new";
/// More writers of one name at a time than these get an error.
constexpr int kTemporaryNames = 256;
/// The longest name that fits into a folder with dot, mark and number around it.
constexpr std::size_t kLongestName = 255 - 1 - 4 - 3;

std::string temporary_name(const std::string& name, int number) {
    std::string temporary = ".";
    if (name.size() <= kLongestName) {
        temporary += name;
    } else {
        temporary += name.substr(0, kLongestName - 21) + "-" + std::to_string(std::hash<std::string>()(name));
    }
    temporary += kMark;
    temporary += std::to_string(number);
    return temporary;
}

bool lock_now(int fd) noexcept {
    int status = 0;
    do status = ::flock(fd, LOCK_EX | LOCK_NB);
    while (status != 0 && errno == EINTR);
    return status == 0;
}

// A file without a name is linked through /proc.
bool has_proc() noexcept {
    static const bool has = ::access("/proc/self/fd", X_OK) == 0;
    return has;
}

}    // namespace

bool is_temporary_name(const char* name) noexcept {
    const std::string_view text(name);
    const std::size_t mark = text.rfind(kMark);
    if (!text.starts_with('.') || mark == text.npos || mark + kMark.size() == text.size()) return false;
    const auto number = text.substr(mark + kMark.size());
    return std::all_of(number.begin(), number.end(), [](char c) { return c >= '0' && c <= '9'; });
}

bool sweep_temporary(int folder, const char* name) noexcept {
    const Fd fd(::openat(folder, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC));
    if (!fd) return errno == ENOENT;
    if (!lock_now(fd.get())) return false;
    struct stat held {};
    struct stat named {};
    if (::fstat(fd.get(), &held) != 0) return false;
    if (::fstatat(folder, name, &named, AT_SYMLINK_NOFOLLOW) != 0) return errno == ENOENT;
    if (held.st_ino != named.st_ino || held.st_dev != named.st_dev) return false;
    kill_point(KillPoint::file_sweeping);
    return ::unlinkat(folder, name, 0) == 0;
}

NewFile::NewFile(int folder, std::string name) : folder_(folder), name_(std::move(name)) {
    if (has_proc()) {
        fd_ = Fd(checked(Call::open_nameless,
                         [&] { return ::openat(folder_, ".", O_TMPFILE | O_WRONLY | O_CLOEXEC, kMode); }));
        if (fd_) return;
        // There are many ways to say that there are no such files here; whatever else is wrong, the next call says so too.
    }
    for (int number = 0; number < kTemporaryNames; ++number) {
        const std::string temporary = temporary_name(name_, number);
        if (create_named(temporary)) return;
        if (sweep_temporary(folder_, temporary.c_str()) && create_named(temporary)) return;
    }
    errno = EBUSY;
    throw_errno("making a file");
}

bool NewFile::create_named(const std::string& temporary) {
    Fd fd(checked(Call::create_file, [&] {
        return ::openat(folder_, temporary.c_str(), O_CREAT | O_EXCL | O_WRONLY | O_NOFOLLOW | O_CLOEXEC, kMode);
    }));
    if (!fd) {
        if (errno != EEXIST) throw_errno("making a file");
        return false;
    }
    // Somebody may have taken the file, not yet locked, for a dead writer's.
    struct stat made {};
    if (!lock_now(fd.get()) && errno == EWOULDBLOCK) return false;
    if (::fstat(fd.get(), &made) != 0 || made.st_nlink == 0) return false;
    fd_ = std::move(fd);
    temporary_ = temporary;
    return true;
}

NewFile::~NewFile() {
    if (!temporary_.empty()) ::unlinkat(folder_, temporary_.c_str(), 0);
}

void NewFile::write(std::span<const std::byte> bytes) {
    while (!bytes.empty()) {
        const auto n = checked(Call::write_file, [&] { return ::write(fd_.get(), bytes.data(), bytes.size()); });
        if (n >= 0) {
            bytes = bytes.subspan(static_cast<std::size_t>(n));
        } else if (errno != EINTR) {
            throw_errno("writing a file");
        }
    }
}

void NewFile::sync() {
    if (::fsync(fd_.get()) != 0) throw_errno("writing a file to the disk");
}

bool NewFile::give(const std::string& temporary) {
    const std::string self = "/proc/self/fd/" + std::to_string(fd_.get());
    const int status = checked(Call::name_file, [&] {
        return ::linkat(AT_FDCWD, self.c_str(), folder_, temporary.c_str(), AT_SYMLINK_FOLLOW);
    });
    if (status != 0 && errno != EEXIST) throw_errno("giving a file its name");
    return status == 0;
}

void NewFile::publish() {
    kill_point(KillPoint::file_written);
    if (temporary_.empty()) {
        if (give(name_)) {
            kill_point(KillPoint::file_replaced);
            return;
        }
        lock_now(fd_.get());    // where there are no such locks, what a death leaves is not swept
        for (int number = 0; number < kTemporaryNames && temporary_.empty(); ++number) {
            const std::string temporary = temporary_name(name_, number);
            if (give(temporary) || (sweep_temporary(folder_, temporary.c_str()) && give(temporary))) {
                temporary_ = temporary;
            }
        }
        if (temporary_.empty()) {
            errno = EBUSY;
            throw_errno("giving a file its name");
        }
    }
    kill_point(KillPoint::file_named);
    if (checked(Call::name_file, [&] { return ::renameat(folder_, temporary_.c_str(), folder_, name_.c_str()); }) !=
        0) {
        throw_errno("giving a file its name");
    }
    temporary_.clear();
    kill_point(KillPoint::file_replaced);
}

}    // namespace multihull::os
