#include "os/stream.hpp"

#include "os/clock.hpp"
#include "os/control_message.hpp"
#include "os/fault.hpp"
#include "os/poll.hpp"

#include <algorithm>
#include <array>
#include <cerrno>
#include <ctime>
#include <sys/socket.h>

namespace multihull::os {

namespace {

bool would_block(int error) { return error == EAGAIN || error == EWOULDBLOCK; }
// Too many descriptors on their way, or no memory for a moment: it may go later.
bool short_of_something(int error) { return error == ENOBUFS || error == ENOMEM || error == ETOOMANYREFS; }
bool peer_gone(int error) { return error == EPIPE || error == ECONNRESET || error == ENOTCONN || error == ETIMEDOUT; }

constexpr std::int64_t kShortagePauseNs = 1'000'000;
constexpr int kShortageTries = 2000;

}    // namespace

Streamed send_all(int socket, std::span<const std::byte> first, std::span<const std::byte> second,
                  std::span<const int> fds, std::int64_t deadline_ns) noexcept {
    ControlMessage control;
    std::array<iovec, 2> parts{
        {{const_cast<std::byte*>(first.data()), first.size()}, {const_cast<std::byte*>(second.data()), second.size()}}};
    msghdr message{};
    message.msg_iov = parts.data();
    message.msg_iovlen = parts.size();
    control.attach(message, fds);
    const int flags = MSG_NOSIGNAL | (deadline_ns == kNever ? 0 : MSG_DONTWAIT);
    const std::size_t total = first.size() + second.size();
    Streamed result;
    int shortages = 0;
    while (result.bytes < total) {
        const ssize_t n = checked(Call::sendmsg, [&] { return ::sendmsg(socket, &message, flags); });
        if (n < 0) {
            if (errno == EINTR) continue;
            if (would_block(errno)) {
                if (!wait_writable(socket, deadline_ns)) return {result.bytes, StreamEnd::timeout};
                continue;
            }
            if (short_of_something(errno) && shortages++ < kShortageTries) {
                if (now_ns() >= deadline_ns) return {result.bytes, StreamEnd::timeout};
                const timespec pause{0, kShortagePauseNs};
                ::nanosleep(&pause, nullptr);
                continue;
            }
            return {result.bytes, peer_gone(errno) ? StreamEnd::closed : StreamEnd::failed};
        }
        result.bytes += static_cast<std::size_t>(n);
        // The descriptors went with the first byte.
        message.msg_control = nullptr;
        message.msg_controllen = 0;
        auto gone = static_cast<std::size_t>(n);
        for (iovec& part : parts) {
            const std::size_t here = std::min(gone, part.iov_len);
            part.iov_base = static_cast<char*>(part.iov_base) + here;
            part.iov_len -= here;
            gone -= here;
        }
    }
    return result;
}

Streamed receive_all(int socket, std::span<std::byte> room, std::vector<Fd>* fds, std::int64_t deadline_ns) {
    ControlMessage control;
    const int flags = MSG_CMSG_CLOEXEC | (deadline_ns == kNever ? MSG_WAITALL : MSG_DONTWAIT);
    Streamed result;
    while (result.bytes < room.size()) {
        iovec part{room.data() + result.bytes, room.size() - result.bytes};
        msghdr message{};
        message.msg_iov = &part;
        message.msg_iovlen = 1;
        if (fds != nullptr) control.make_room(message);
        const ssize_t n = ::recvmsg(socket, &message, flags);
        if (n < 0) {
            if (errno == EINTR) continue;
            if (would_block(errno)) {
                if (!wait_readable(socket, deadline_ns)) return {result.bytes, StreamEnd::timeout};
                continue;
            }
            return {result.bytes, peer_gone(errno) ? StreamEnd::closed : StreamEnd::failed};
        }
        if (fds != nullptr) ControlMessage::take(message, *fds);
        if (n == 0) return {result.bytes, StreamEnd::closed};
        result.bytes += static_cast<std::size_t>(n);
    }
    return result;
}

Streamed receive_some(int socket, std::span<std::byte> room) noexcept {
    for (;;) {
        const ssize_t n = ::recv(socket, room.data(), room.size(), MSG_DONTWAIT);
        if (n > 0) return {static_cast<std::size_t>(n), StreamEnd::none};
        if (n == 0) return {0, StreamEnd::closed};
        if (errno == EINTR) continue;
        if (would_block(errno)) return {0, StreamEnd::timeout};
        return {0, peer_gone(errno) ? StreamEnd::closed : StreamEnd::failed};
    }
}

}    // namespace multihull::os
