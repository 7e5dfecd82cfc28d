// Anonymous shared memory: a sealed memfd and its mapping.
#pragma once

#include "os/fd.hpp"

#include <cstddef>
#include <cstdint>

namespace multihull::os {

/// A mapping that unmaps itself.
class Mapping {
public:
    Mapping() = default;
    Mapping(void* address, std::size_t size) noexcept : address_(address), size_(size) {}
    Mapping(Mapping&& other) noexcept
        : address_(std::exchange(other.address_, nullptr)), size_(std::exchange(other.size_, 0)) {}
    Mapping& operator=(Mapping&& other) noexcept;
    ~Mapping() { reset(); }

    std::byte* data() const noexcept { return static_cast<std::byte*>(address_); }
    std::size_t size() const noexcept { return size_; }
    explicit operator bool() const noexcept { return address_ != nullptr; }
    void reset() noexcept;

private:
    void* address_ = nullptr;
    std::size_t size_ = 0;
};

/// A memfd of a fixed size: sealed, so that no process can shrink it and make the others fault. Takes no memory until touched.
Fd make_memfd(const char* name, std::size_t size);
/// The file of so many bytes that another process of this user has open under a number. Throws std::system_error where this process may not;
/// empty where something else is there by now.
Fd open_file_of(int pid, int descriptor, std::size_t size, int access);
/// Maps a descriptor shared, readable and writable, without reserving swap, left out of core dumps.
Mapping map_shared(const Fd& fd, std::size_t size);
/// Shared memory of this process and what it forks, without a file. Throws std::system_error.
Mapping map_anonymous_shared(std::size_t size);
/// Maps a part of a descriptor, from a page's beginning on, for reading only. Throws std::system_error.
Mapping map_read_only(int fd, std::uint64_t offset, std::size_t size);
/// The same as map_shared at an address where nothing may lie yet; empty with errno (EEXIST where something does).
Mapping map_shared_at(int fd, std::uint64_t address, std::size_t size) noexcept;
/// Gives the pages of a range of shared memory back to the system; they read as zeros afterwards.
void punch_hole(void* address, std::size_t size) noexcept;
/// Has whole pages of shared memory, at most 64, read as zeros and keeps those that are there, for who uses them again soon: on a virtual
/// machine the first touch of a new page can take 20 us.
void clear_pages(void* address, std::size_t size) noexcept;
/// Touches the pages of a range ahead for writing, where the kernel can (Linux 5.14).
void populate(void* address, std::size_t size) noexcept;

/// Copies many bytes that are read later, by another processor: past the caches of this one, which would fetch what is overwritten, perhaps
/// from the cache of whoever read it last.
void copy_past_caches(void* to, const void* from, std::size_t size) noexcept;

std::size_t page_size() noexcept;

}    // namespace multihull::os
