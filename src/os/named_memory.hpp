// Shared memory with a name (POSIX shm_open), which lives in /dev/shm until somebody unlinks it.
#pragma once

#include "os/fd.hpp"

#include <cstddef>
#include <cstdint>
#include <string>
#include <sys/types.h>

namespace multihull::os {

/// Makes a segment that did not exist; empty with errno (EEXIST where it does) when it can't be made.
Fd create_named(const std::string& name, mode_t mode) noexcept;
/// Opens a segment for reading and writing; empty with errno when it can't be opened.
Fd open_named(const std::string& name) noexcept;
/// Takes the name away; 0 or errno.
int unlink_named(const std::string& name) noexcept;

/// Sets the size of a file and has the system set memory for all of it aside, so that no later touch can fail; 0 or errno.
int reserve_file(const Fd& fd, std::size_t size) noexcept;

/// What tells a file from every other, and how big it is now.
struct FileIdentity {
    std::uint64_t device = 0;
    std::uint64_t inode = 0;
    std::size_t size = 0;

    bool same_file(const FileIdentity& other) const noexcept { return device == other.device && inode == other.inode; }
};
/// Throws std::system_error where the descriptor is none of a file.
FileIdentity identity_of(int fd);

/// Whether a descriptor is a memfd whose size is sealed.
bool has_sealed_size(const Fd& fd) noexcept;
/// Another descriptor of the same open file; throws std::system_error.
Fd duplicate(int fd);

/// Random hexadecimal digits, `bytes` times two of them.
std::string random_hex(std::size_t bytes);

}    // namespace multihull::os
