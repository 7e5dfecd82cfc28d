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
#include <sys/random.h>
#include <sys/un.h>

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

std::vector<SocketAddress> tcp_addresses(std::string host, const std::string& port, std::string_view shown,
                                         bool to_listen) {
    if (host.size() >= 2 && host.front() == '[' && host.back() == ']') host = host.substr(1, host.size() - 2);
    addrinfo hints{};
    hints.ai_socktype = SOCK_STREAM;
    hints.ai_flags = AI_NUMERICSERV | (to_listen ? AI_PASSIVE : 0);
    addrinfo* found = nullptr;
    const int error = ::getaddrinfo(host.empty() ? nullptr : host.c_str(), port.c_str(), &hints, &found);
    const std::unique_ptr<addrinfo, void (*)(addrinfo*)> all(found, [](addrinfo* list) {
        if (list != nullptr) ::freeaddrinfo(list);
    });
    if (error != 0) {
        throw Error("the address \"" + std::string(shown) + "\" means nothing here (" + ::gai_strerror(error) +
                    "): write a host that this machine knows, and a port from 0 to 65535");
    }
    std::vector<SocketAddress> addresses;
    for (const addrinfo* entry = found; entry != nullptr; entry = entry->ai_next) {
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
    const std::size_t colon = text.rfind(':');
    if (text.find('/') != text.npos || colon == text.npos) return {unix_address(text, text)};
    const std::string_view port = text.substr(colon + 1);
    unsigned number = 0;
    const auto [end, error] = std::from_chars(port.data(), port.data() + port.size(), number);
    if (error != std::errc() || end != port.data() + port.size() || number > 65535) {
        throw Error("the address \"" + std::string(text) + "\" has no port from 0 to 65535 behind its last colon");
    }
    return tcp_addresses(std::string(text.substr(0, colon)), std::string(port), text, to_listen);
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
