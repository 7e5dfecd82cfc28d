#include "os/unix_socket.hpp"

#include "os/fault.hpp"

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <cstring>
#include <fstream>
#include <sstream>
#include <sys/socket.h>
#include <sys/un.h>

namespace multihull::os {

namespace {

constexpr int kBacklog = 16;

struct Address {
    sockaddr_un where{};
    socklen_t size = 0;

    explicit Address(std::string_view name) {
        where.sun_family = AF_UNIX;
        const std::size_t length = std::min(name.size(), sizeof where.sun_path - 1);
        std::memcpy(where.sun_path + 1, name.data(), length);    // the byte of 0 before it says that it is no file
        size = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + 1 + length);
    }
    const sockaddr* get() const noexcept { return reinterpret_cast<const sockaddr*>(&where); }
};

}    // namespace

Fd make_unix_socket() {
    Fd socket(checked(Call::socket,
                      [] { return ::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0); }));
    if (!socket) throw_errno("socket");
    return socket;
}

void listen_at(const Fd& socket, std::string_view name) {
    const Address address(name);
    if (::bind(socket.get(), address.get(), address.size) != 0) throw_errno("bind");
    if (::listen(socket.get(), kBacklog) != 0) throw_errno("listen");
}

Fd accept_now(const Fd& listener) noexcept {
    return Fd(checked(Call::accept,
                      [&] { return ::accept4(listener.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK); }));
}

Fd connect_now(std::string_view name) noexcept {
    Fd socket(::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    const Address address(name);
    if (socket && ::connect(socket.get(), address.get(), address.size) != 0) socket.reset();
    return socket;
}

std::optional<Peer> peer_of(const Fd& socket) noexcept {
    ucred credentials{};
    socklen_t size = sizeof credentials;
    if (::getsockopt(socket.get(), SOL_SOCKET, SO_PEERCRED, &credentials, &size) != 0) return std::nullopt;
    return Peer{credentials.pid, credentials.uid};
}

std::vector<std::string> names_listened_at(std::string_view prefix) {
    // Num RefCount Protocol Flags Type St Inode @name
    constexpr const char* kListens = "00010000";
    std::vector<std::string> names;
    std::ifstream sockets("/proc/net/unix");
    for (std::string line; std::getline(sockets, line);) {
        std::istringstream words(line);
        std::string number, references, protocol, flags, type, state, inode, name;
        words >> number >> references >> protocol >> flags >> type >> state >> inode >> name;
        if (flags == kListens && name.starts_with('@') && std::string_view(name).substr(1).starts_with(prefix))
            names.push_back(name.substr(1));
    }
    std::ranges::sort(names);
    names.erase(std::unique(names.begin(), names.end()), names.end());
    return names;
}

}    // namespace multihull::os
