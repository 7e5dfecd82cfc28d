// A file descriptor that closes itself, and the few kinds of descriptors that the library makes. All are close-on-exec.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <utility>

namespace multihull::os {

class Fd {
public:
    Fd() = default;
    /// Takes over a descriptor, under a higher number where it has a standard stream's: a program that closed one of those and
    /// puts a file there later would otherwise overwrite it.
    explicit Fd(int fd) noexcept : fd_(fd < 0 || fd > 2 ? fd : above_streams(fd)) {}
    Fd(Fd&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
    Fd& operator=(Fd&& other) noexcept {
        if (this != &other) {
            reset();
            fd_ = std::exchange(other.fd_, -1);
        }
        return *this;
    }
    ~Fd() { reset(); }

    int get() const noexcept { return fd_; }
    explicit operator bool() const noexcept { return fd_ >= 0; }
    int release() noexcept { return std::exchange(fd_, -1); }
    void reset() noexcept;

private:
    static int above_streams(int fd) noexcept;

    int fd_ = -1;
};

/// Throws std::system_error with errno and what was tried.
[[noreturn]] void throw_errno(const char* what);

Fd make_eventfd();
void signal_eventfd(const Fd& fd) noexcept;
void drain_eventfd(const Fd& fd) noexcept;

struct FdPair {
    Fd first;     ///< Of a pipe: the end to read from.
    Fd second;    ///< Of a pipe: the end to write to.
};

/// A pipe whose reading end does not block.
FdPair make_pipe();
/// A pair of connected sockets that keep message boundaries.
FdPair make_socket_pair();

/// Appends what can be read without waiting to `out`, up to `limit` bytes; false at end of file.
bool read_available(const Fd& fd, std::span<char> buffer, std::size_t& got) noexcept;

/// Whether a write of up to PIPE_BUF bytes to the descriptor would not wait now.
bool writable(int fd) noexcept;

/// Writes everything, waiting as long as it takes; false on an error.
bool write_all(int fd, std::span<const char> bytes) noexcept;

}    // namespace multihull::os
