// What listeners and clients do with their sockets alike.
#pragma once

#include <multihull/connection.hpp>
#include <multihull/file_descriptor.hpp>

namespace multihull::detail {

/// A stream socket; `flags` beside SOCK_CLOEXEC. Throws Error when the system has no descriptors left.
FileDescriptor make_socket(int family, int flags);
/// Small messages are not kept back to be sent with later ones.
void send_at_once(int socket) noexcept;
Connection connection_over(FileDescriptor socket, bool python);

}    // namespace multihull::detail
