#include "channel/address.hpp"

#include "os/fd.hpp"

#include <multihull/error.hpp>

#include <algorithm>
#include <charconv>
#include <cstdio>
#include <cstring>
#include <memory>
#include <netdb.h>
#include <netinet/in.h>
#include <optional>
#include <sys/random.h>
#include <sys/un.h>
#include <utility>

namespace multihull::detail {

namespace {

SocketAddress unix_address(std::string_view path, std::string_view shown) {
    SocketAddress address;
    auto& place = reinterpret_cast<sockaddr_un&>(address.bytes);
    // A path is followed by a zero, the name of an abstract socket is not.
    const bool abstract = path.front() == '\0';
    if (path.size() + (abstract ? 0 : 1) > sizeof place.sun_path) {
        throw Error("the address \"" + std::string(shown) +
                    "\" is too long for a unix socket, which has 107 bytes for it");
    }
    place.sun_family = AF_UNIX;
    std::memcpy(place.sun_path, path.data(), path.size());
    address.size = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + path.size() + (abstract ? 0 : 1));
    return address;
}

struct HostAndPort {
    std::string host;
    std::string port;
};

/// Nothing for the address of a unix socket, abstract or not.
std::optional<HostAndPort> host_and_port(std::string_view text) {
    const std::size_t colon = text.rfind(':');
    if (text.empty() || text.front() == '@' || text.find('\0') != text.npos || text.find('/') != text.npos ||
        colon == text.npos) {
        return std::nullopt;
    }
    std::string_view host = text.substr(0, colon);
    if (host.size() >= 2 && host.front() == '[' && host.back() == ']') host = host.substr(1, host.size() - 2);
    return HostAndPort{std::string(host), std::string(text.substr(colon + 1))};
}

using AddressList = std::unique_ptr<addrinfo, void (*)(addrinfo*)>;

/// What the system knows of them, and 0 or an error of getaddrinfo().
std::pair<AddressList, int> look_up(const HostAndPort& where, int flags) {
    addrinfo hints{};
    hints.ai_socktype = SOCK_STREAM;
    hints.ai_flags = AI_NUMERICSERV | flags;
    addrinfo* found = nullptr;
    const int error =
        ::getaddrinfo(where.host.empty() ? nullptr : where.host.c_str(), where.port.c_str(), &hints, &found);
    return {AddressList(found,
                        [](addrinfo* list) {
                            if (list != nullptr) ::freeaddrinfo(list);
                        }),
            error};
}

std::vector<SocketAddress> tcp_addresses(const HostAndPort& where, std::string_view shown, bool to_listen) {
    const auto [found, error] = look_up(where, to_listen ? AI_PASSIVE : 0);
    if (error != 0) {
        throw Error("the address \"" + std::string(shown) + "\" means nothing here (" + ::gai_strerror(error) +
                    "): write a host that this machine knows, and a port from 0 to 65535");
    }
    std::vector<SocketAddress> addresses;
    for (const addrinfo* entry = found.get(); entry != nullptr; entry = entry->ai_next) {
        SocketAddress address;
        std::memcpy(&address.bytes, entry->ai_addr, entry->ai_addrlen);
        address.size = entry->ai_addrlen;
        addresses.push_back(address);
    }
    return addresses;
}

}    // namespace

std::string SocketAddress::path() const {
    if (family() != AF_UNIX) return {};
    const auto& place = reinterpret_cast<const sockaddr_un&>(bytes);
    const std::size_t length = size - std::min<std::size_t>(size, offsetof(sockaddr_un, sun_path));
    if (length == 0 || place.sun_path[0] == '\0') return {};
    return {place.sun_path, ::strnlen(place.sun_path, length)};
}

std::string SocketAddress::to_string() const {
    if (family() == AF_UNIX) {
        const auto& place = reinterpret_cast<const sockaddr_un&>(bytes);
        const std::size_t length = size - std::min<std::size_t>(size, offsetof(sockaddr_un, sun_path));
        if (length == 0) return {};
        if (place.sun_path[0] != '\0') return path();
        return "@" + std::string(place.sun_path + 1, length - 1);
    }
    char host[NI_MAXHOST];
    char port[NI_MAXSERV];
    if (::getnameinfo(get(), size, host, sizeof host, port, sizeof port, NI_NUMERICHOST | NI_NUMERICSERV) != 0)
        return {};
    return family() == AF_INET6 ? "[" + std::string(host) + "]:" + port : std::string(host) + ":" + port;
}

std::vector<SocketAddress> parse_address(std::string_view text, bool to_listen) {
    if (text.empty()) throw Error("an empty address leads nowhere: write a path, @name or host:port");
    if (text.front() == '@' || text.front() == '\0') {
        return {unix_address(std::string(1, '\0') + std::string(text.substr(1)), text)};
    }
    if (text.find('\0') != text.npos) throw Error("an address holds a zero byte where no path and no host has one");
    const auto where = host_and_port(text);
    if (!where) return {unix_address(text, text)};
    const char* const port_end = where->port.data() + where->port.size();
    unsigned number = 0;
    const auto [end, error] = std::from_chars(where->port.data(), port_end, number);
    if (error != std::errc() || end != port_end || number > 65535) {
        throw Error("the address \"" + std::string(text) + "\" has no port from 0 to 65535 behind its last colon");
    }
    return tcp_addresses(*where, text, to_listen);
}

bool names_a_host(std::string_view text) {
    const auto where = host_and_port(text);
    return where && look_up(*where, AI_NUMERICHOST).second == EAI_NONAME;
}

std::string random_address() {
    std::uint64_t bits[2];
    if (::getrandom(bits, sizeof bits, 0) != sizeof bits) os::throw_errno("getrandom");
    char name[64];
    std::snprintf(name, sizeof name, "@multihull-%016llx%016llx", static_cast<unsigned long long>(bits[0]),
                  static_cast<unsigned long long>(bits[1]));
    return name;
}

}    // namespace multihull::detail
