#include "os/message.hpp"

#include "os/fault.hpp"

#include <cerrno>
#include <cstring>
#include <sys/socket.h>

namespace multihull::os {

Sent send_message(const Fd& socket, std::span<const std::byte> bytes, std::span<const int> fds, bool block) noexcept {
    iovec part{const_cast<std::byte*>(bytes.data()), bytes.size()};
    alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int) * kMaxMessageFds)];
    msghdr message{};
    message.msg_iov = &part;
    message.msg_iovlen = 1;
    if (!fds.empty()) {
        message.msg_control = control;
        message.msg_controllen = CMSG_SPACE(sizeof(int) * fds.size());
        std::memset(control, 0, message.msg_controllen);
        cmsghdr* header = CMSG_FIRSTHDR(&message);
        header->cmsg_level = SOL_SOCKET;
        header->cmsg_type = SCM_RIGHTS;
        header->cmsg_len = CMSG_LEN(sizeof(int) * fds.size());
        std::memcpy(CMSG_DATA(header), fds.data(), sizeof(int) * fds.size());
    }
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
    alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int) * kMaxMessageFds)];
    msghdr message{};
    message.msg_iov = &part;
    message.msg_iovlen = 1;
    message.msg_control = control;
    message.msg_controllen = sizeof control;
    ssize_t n = 0;
    do n = ::recvmsg(socket.get(), &message, MSG_CMSG_CLOEXEC | (block ? 0 : MSG_DONTWAIT));
    while (n < 0 && errno == EINTR);
    if (n < 0) return errno == EAGAIN ? Received::would_block : Received::gone;
    fds.clear();
    for (cmsghdr* header = CMSG_FIRSTHDR(&message); header != nullptr; header = CMSG_NXTHDR(&message, header)) {
        if (header->cmsg_level != SOL_SOCKET || header->cmsg_type != SCM_RIGHTS) continue;
        const std::size_t count = (header->cmsg_len - CMSG_LEN(0)) / sizeof(int);
        for (std::size_t i = 0; i < count; ++i) {
            int fd = -1;
            std::memcpy(&fd, CMSG_DATA(header) + i * sizeof(int), sizeof fd);
            fds.emplace_back(fd);
        }
    }
    return static_cast<std::size_t>(n) == bytes.size() ? Received::yes : Received::gone;
}

}    // namespace multihull::os
