#include "os/fd.hpp"

#include "os/fault.hpp"

#include <cerrno>
#include <fcntl.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <system_error>
#include <unistd.h>

namespace multihull::os {

void Fd::reset() noexcept {
    if (fd_ >= 0) ::close(std::exchange(fd_, -1));
}

int Fd::above_streams(int fd) noexcept {
    const int higher = ::fcntl(fd, F_DUPFD_CLOEXEC, STDERR_FILENO + 1);
    if (higher < 0) return fd;    // none left: as good as it gets
    ::close(fd);
    return higher;
}

void throw_errno(const char* what) { throw std::system_error(errno, std::generic_category(), what); }

Fd make_eventfd() {
    Fd fd(checked(Call::eventfd, [] { return ::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK); }));
    if (!fd) throw_errno("eventfd");
    return fd;
}

void signal_eventfd(const Fd& fd) noexcept {
    const std::uint64_t one = 1;
    // A full counter (EAGAIN) has already woken its reader, so every answer is fine here.
    [[maybe_unused]] const auto ignored = ::write(fd.get(), &one, sizeof one);
}

void drain_eventfd(const Fd& fd) noexcept {
    std::uint64_t count = 0;
    [[maybe_unused]] const auto ignored = ::read(fd.get(), &count, sizeof count);
}

FdPair make_pipe() {
    int ends[2];
    if (checked(Call::pipe, [&] { return ::pipe2(ends, O_CLOEXEC); }) != 0) throw_errno("pipe2");
    FdPair pair{Fd(ends[0]), Fd(ends[1])};
    if (::fcntl(pair.first.get(), F_SETFL, O_NONBLOCK) != 0) throw_errno("fcntl");
    return pair;
}

FdPair make_socket_pair() {
    int ends[2];
    if (checked(Call::socketpair, [&] { return ::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends); }) != 0) {
        throw_errno("socketpair");
    }
    return {Fd(ends[0]), Fd(ends[1])};
}

bool read_available(const Fd& fd, std::span<char> buffer, std::size_t& got) noexcept {
    got = 0;
    ssize_t n = 0;
    do n = ::read(fd.get(), buffer.data(), buffer.size());
    while (n < 0 && errno == EINTR);
    if (n > 0) got = static_cast<std::size_t>(n);
    return n > 0 || (n < 0 && errno == EAGAIN);
}

bool writable(int fd) noexcept {
    pollfd entry{fd, POLLOUT, 0};
    return ::poll(&entry, 1, 0) == 1 && (entry.revents & (POLLOUT | POLLERR | POLLNVAL)) != 0;
}

bool write_all(int fd, std::span<const char> bytes) noexcept {
    while (!bytes.empty()) {
        const ssize_t n = ::write(fd, bytes.data(), bytes.size());
        if (n >= 0) {
            bytes = bytes.subspan(static_cast<std::size_t>(n));
        } else if (errno == EAGAIN) {
            pollfd entry{fd, POLLOUT, 0};
            ::poll(&entry, 1, -1);
        } else if (errno != EINTR) {
            return false;
        }
    }
    return true;
}

}    // namespace multihull::os
