// Where sockets listen: text and back.
#pragma once

#include <string>
#include <string_view>
#include <sys/socket.h>
#include <vector>

namespace multihull::detail {

struct SocketAddress {
    sockaddr_storage bytes{};
    socklen_t size = 0;

    int family() const noexcept { return bytes.ss_family; }
    const sockaddr* get() const noexcept { return reinterpret_cast<const sockaddr*>(&bytes); }
    sockaddr* get() noexcept { return reinterpret_cast<sockaddr*>(&bytes); }
    /// The path of a unix socket; empty for others, and for abstract ones.
    std::string path() const;
    /// As addresses are written: `/a/path`, `@name`, `1.2.3.4:5`, `[::1]:5`; empty for a socket without an address.
    std::string to_string() const;
};

/// What the text means: one address, or several where a host has more. Throws Error when it means nothing. Waits for other machines where
/// it names a host.
std::vector<SocketAddress> parse_address(std::string_view text, bool to_listen);
/// Whether there is a name in it that the system must look up.
bool names_a_host(std::string_view text);

/// `@multihull-` and 128 random bits.
std::string random_address();

}    // namespace multihull::detail
