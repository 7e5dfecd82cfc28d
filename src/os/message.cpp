#include "os/message.hpp"

#include "os/fault.hpp"

#include <cerrno>
#include <sys/socket.h>

namespace multihull::os {

Sent send_message(const Fd& socket, std::span<const std::byte> bytes, std::span<const int> fds, bool block) noexcept {
    iovec part{const_cast<std::byte*>(bytes.data()), bytes.size()};
    ControlMessage control;
    msghdr message{};
    message.msg_iov = &part;
    message.msg_iovlen = 1;
    control.attach(message, fds);
    for (;;) {
        const ssize_t n = checked(Call::sendmsg, [&] {
            return ::sendmsg(socket.get(), &message, MSG_NOSIGNAL | (block ? 0 : MSG_DONTWAIT));
        });
        if (n >= 0) return Sent::yes;
        if (errno == EINTR) continue;
        // Short of memory, or of descriptors in flight: it may go later. Everything else means that nobody is there to read.
        const bool later = errno == EAGAIN || errno == ENOBUFS || errno == ENOMEM || errno == ETOOMANYREFS;
        return later ? Sent::would_block : Sent::gone;
    }
}

Received receive_message(const Fd& socket, std::span<std::byte> bytes, std::vector<Fd>& fds, bool block) {
    iovec part{bytes.data(), bytes.size()};
    ControlMessage control;
    msghdr message{};
    message.msg_iov = &part;
    message.msg_iovlen = 1;
    control.make_room(message);
    ssize_t n = 0;
    do n = ::recvmsg(socket.get(), &message, MSG_CMSG_CLOEXEC | (block ? 0 : MSG_DONTWAIT));
    while (n < 0 && errno == EINTR);
    if (n < 0) return errno == EAGAIN ? Received::would_block : Received::gone;
    fds.clear();
    ControlMessage::take(message, fds);
    return static_cast<std::size_t>(n) == bytes.size() ? Received::yes : Received::gone;
}

}    // namespace multihull::os
