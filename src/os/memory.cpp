#include "os/memory.hpp"

#include "os/fault.hpp"

#include <array>
#include <cerrno>
#include <cstring>
#include <fcntl.h>
#include <string>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#include <utility>
#ifdef __SSE2__
#include <emmintrin.h>
#endif

namespace multihull::os {

Mapping& Mapping::operator=(Mapping&& other) noexcept {
    if (this != &other) {
        reset();
        address_ = std::exchange(other.address_, nullptr);
        size_ = std::exchange(other.size_, 0);
    }
    return *this;
}

void Mapping::reset() noexcept {
    if (address_ != nullptr) ::munmap(std::exchange(address_, nullptr), std::exchange(size_, 0));
}

Fd make_memfd(const char* name, std::size_t size) {
    Fd fd(checked(Call::memfd_create, [&] { return ::memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING); }));
    if (!fd) throw_errno("memfd_create");
    if (checked(Call::ftruncate, [&] { return ::ftruncate(fd.get(), static_cast<off_t>(size)); }) != 0) {
        throw_errno("ftruncate of shared memory");
    }
    ::fcntl(fd.get(), F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL);
    return fd;
}

Fd open_file_of(int pid, int descriptor, std::size_t size, int access) {
    const std::string path = "/proc/" + std::to_string(pid) + "/fd/" + std::to_string(descriptor);
    // Should it be a pipe by now: not to wait for who opens the other end.
    Fd fd(::open(path.c_str(), access | O_CLOEXEC | O_NONBLOCK));
    if (!fd) throw_errno("open of another process's shared memory");
    struct stat status {};
    if (::fstat(fd.get(), &status) != 0) throw_errno("fstat of another process's shared memory");
    const bool fits = S_ISREG(status.st_mode) && static_cast<std::uint64_t>(status.st_size) == size;
    return fits ? std::move(fd) : Fd();
}

Mapping map_shared(const Fd& fd, std::size_t size) {
    void* address = MAP_FAILED;
    if (!fails(Call::mmap)) {
        address = ::mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, fd.get(), 0);
    }
    if (address == MAP_FAILED) throw_errno("mmap of shared memory");
    // A core dump of a worker is about its own memory; the shared reservation would only drown it.
    ::madvise(address, size, MADV_DONTDUMP);
    return Mapping(address, size);
}

Mapping map_anonymous_shared(std::size_t size) {
    void* address = MAP_FAILED;
    if (!fails(Call::mmap)) {
        address = ::mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    }
    if (address == MAP_FAILED) throw_errno("mmap of shared memory");
    return Mapping(address, size);
}

Mapping map_read_only(int fd, std::uint64_t offset, std::size_t size) {
    void* address = MAP_FAILED;
    if (!fails(Call::mmap)) {
        address = ::mmap(nullptr, size, PROT_READ, MAP_SHARED | MAP_NORESERVE, fd, static_cast<off_t>(offset));
    }
    if (address == MAP_FAILED) throw_errno("mmap of shared memory");
    ::madvise(address, size, MADV_DONTDUMP);
    return Mapping(address, size);
}

Mapping map_shared_at(int fd, std::uint64_t address, std::size_t size) noexcept {
    if (fails(Call::mmap)) return {};
    void* const wanted = reinterpret_cast<void*>(address);
    void* const place =
        ::mmap(wanted, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE | MAP_FIXED_NOREPLACE, fd, 0);
    if (place == MAP_FAILED) return {};
    if (place != wanted) {    // a kernel before 4.17 takes the address for a wish
        ::munmap(place, size);
        errno = EEXIST;
        return {};
    }
    ::madvise(place, size, MADV_DONTDUMP);
    return Mapping(place, size);
}

void copy_past_caches(void* to, const void* from, std::size_t size) noexcept {
    auto* place = static_cast<std::byte*>(to);
    const auto* next = static_cast<const std::byte*>(from);
#ifdef __SSE2__
    constexpr std::size_t kLine = 64;
    const std::size_t before = (kLine - reinterpret_cast<std::uintptr_t>(place) % kLine) % kLine;
    if (size >= before + kLine) {
        std::memcpy(place, next, before);
        place += before;
        next += before;
        size -= before;
        for (; size >= kLine; size -= kLine, place += kLine, next += kLine) {
            const auto* const source = reinterpret_cast<const __m128i*>(next);
            auto* const line = reinterpret_cast<__m128i*>(place);
            const __m128i first = _mm_loadu_si128(source);
            const __m128i second = _mm_loadu_si128(source + 1);
            const __m128i third = _mm_loadu_si128(source + 2);
            const __m128i fourth = _mm_loadu_si128(source + 3);
            _mm_stream_si128(line, first);
            _mm_stream_si128(line + 1, second);
            _mm_stream_si128(line + 2, third);
            _mm_stream_si128(line + 3, fourth);
        }
        _mm_sfence();    // these stores wait for no release
    }
#endif
    std::memcpy(place, next, size);
}

void punch_hole(void* address, std::size_t size) noexcept {
    if (size != 0) ::madvise(address, size, MADV_REMOVE);
}

void clear_pages(void* address, std::size_t size) noexcept {
    std::array<unsigned char, 64> there{};
    const std::size_t page = page_size();
    if (size > there.size() * page || ::mincore(address, size, there.data()) != 0) {
        punch_hole(address, size);
        return;
    }
    auto* const begin = static_cast<std::byte*>(address);
    for (std::size_t first = 0, last = 0; first < size; first = last) {
        const bool is_there = (there[first / page] & 1) != 0;
        do last += page;
        while (last < size && ((there[last / page] & 1) != 0) == is_there);
        // Not there, it may be swapped out.
        if (is_there) {
            std::memset(begin + first, 0, last - first);
        } else {
            punch_hole(begin + first, last - first);
        }
    }
}

void populate(void* address, std::size_t size) noexcept {
#ifdef MADV_POPULATE_WRITE
    const std::size_t before = reinterpret_cast<std::uintptr_t>(address) % page_size();
    ::madvise(static_cast<std::byte*>(address) - before, size + before, MADV_POPULATE_WRITE);
#else
    static_cast<void>(address);
    static_cast<void>(size);
#endif
}

std::size_t page_size() noexcept {
    static const auto size = static_cast<std::size_t>(::sysconf(_SC_PAGESIZE));
    return size;
}

}    // namespace multihull::os
