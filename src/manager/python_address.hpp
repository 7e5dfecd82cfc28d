// Where servers listen, as Python writes it: a str for a unix socket (`\0name` for an abstract one), a (host, port) tuple for TCP.
#pragma once

#include <multihull/object.hpp>

#include <string>
#include <string_view>

namespace multihull::detail {

/// Of an address as Listener has it: `/a/path`, `@name`, `host:port`, `[::1]:port`.
Object address_to_python(std::string_view address);
/// The other way round. Throws TypeError for what is no address.
std::string address_from_python(const Object& address);

}    // namespace multihull::detail
