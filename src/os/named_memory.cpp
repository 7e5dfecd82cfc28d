#include "os/named_memory.hpp"

#include "os/fault.hpp"

#include <cerrno>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/sysinfo.h>
#include <unistd.h>

namespace multihull::os {

namespace {

// shm_open wants the slash, and Python's names come without it.
std::string path_of(const std::string& name) { return "/" + name; }

}    // namespace

Fd create_named(const std::string& name, mode_t mode) noexcept {
    return Fd(::shm_open(path_of(name).c_str(), O_CREAT | O_EXCL | O_RDWR | O_CLOEXEC, mode));
}

Fd open_named(const std::string& name) noexcept { return Fd(::shm_open(path_of(name).c_str(), O_RDWR | O_CLOEXEC, 0)); }

int unlink_named(const std::string& name) noexcept { return ::shm_unlink(path_of(name).c_str()) == 0 ? 0 : errno; }

int reserve_file(const Fd& fd, std::size_t size) noexcept {
    // A /dev/shm without a limit would try, and take the machine down with it.
    struct sysinfo machine {};
    if (::sysinfo(&machine) == 0 && size / machine.mem_unit > machine.totalram + machine.totalswap) return ENOSPC;
    if (checked(Call::ftruncate, [&] { return ::ftruncate(fd.get(), static_cast<off_t>(size)); }) != 0) return errno;
    int error = EINTR;
    while (error == EINTR) error = ::posix_fallocate(fd.get(), 0, static_cast<off_t>(size));
    return error;
}

FileIdentity identity_of(int fd) {
    struct stat status {};
    if (::fstat(fd, &status) != 0) throw_errno("fstat of shared memory");
    return {status.st_dev, status.st_ino, static_cast<std::size_t>(status.st_size)};
}

bool has_sealed_size(const Fd& fd) noexcept {
    const int seals = ::fcntl(fd.get(), F_GET_SEALS);
    return seals >= 0 && (seals & F_SEAL_SHRINK) != 0 && (seals & F_SEAL_GROW) != 0;
}

Fd duplicate(int fd) {
    Fd copy(::fcntl(fd, F_DUPFD_CLOEXEC, 0));
    if (!copy) throw_errno("fcntl(F_DUPFD_CLOEXEC)");
    return copy;
}

std::string random_hex(std::size_t bytes) {
    std::string digits;
    while (bytes-- != 0) {
        unsigned char byte = 0;
        if (::getrandom(&byte, 1, 0) != 1) throw_errno("getrandom");
        digits += "0123456789abcdef"[byte >> 4];
        digits += "0123456789abcdef"[byte & 15];
    }
    return digits;
}

}    // namespace multihull::os
