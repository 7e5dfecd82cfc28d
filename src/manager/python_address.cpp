#include "manager/python_address.hpp"

#include <multihull/error.hpp>

#include <charconv>

namespace multihull::detail {

Object address_to_python(std::string_view address) {
    if (address.starts_with('@')) return std::string(1, '\0') + std::string(address.substr(1));
    const std::size_t colon = address.rfind(':');
    if (address.find('/') != std::string_view::npos || colon == std::string_view::npos) return Object(address);
    std::string_view host = address.substr(0, colon);
    if (host.starts_with('[') && host.ends_with(']')) host = host.substr(1, host.size() - 2);
    const std::string_view digits = address.substr(colon + 1);
    unsigned port = 0;
    std::from_chars(digits.data(), digits.data() + digits.size(), port);
    return Object::tuple({Object(host), Object(port)});
}

std::string address_from_python(const Object& address) {
    if (address.type() == Object::Type::str) {
        const std::string& path = address.as_str();
        return path.starts_with('\0') ? "@" + path.substr(1) : path;
    }
    if (address.type() != Object::Type::tuple || address.size() != 2) {
        throw TypeError("what should be the address of a manager is " + address.repr());
    }
    const std::string& host = address.at(0).as_str();
    const bool is_ipv6 = host.find(':') != std::string::npos;
    return (is_ipv6 ? "[" + host + "]" : host) + ":" + std::to_string(address.at(1).as_int());
}

}    // namespace multihull::detail
