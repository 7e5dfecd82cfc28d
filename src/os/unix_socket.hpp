// Sockets under a name that is no file (Linux's abstract names): gone with the last process that has them open. They keep message
// boundaries.
#pragma once

#include "os/fd.hpp"

#include <optional>
#include <string>
#include <string_view>
#include <sys/types.h>
#include <vector>

namespace multihull::os {

/// A socket that does not block and that nobody can reach yet; its descriptor may be noted before listen_at() makes it known.
Fd make_unix_socket();
/// Throws std::system_error.
void listen_at(const Fd& socket, std::string_view name);
/// The next who connects; empty with errno where nobody waits, or nothing can be done about it now.
Fd accept_now(const Fd& listener) noexcept;
/// Empty with errno where nobody listens there, or too many wait already. Does not block.
Fd connect_now(std::string_view name) noexcept;

struct Peer {
    pid_t pid = 0;
    uid_t uid = 0;
};
/// Who connected, or who listens where this connected to, as the kernel knows it.
std::optional<Peer> peer_of(const Fd& socket) noexcept;

/// The abstract names at which somebody listens that begin so, each once.
std::vector<std::string> names_listened_at(std::string_view prefix);

}    // namespace multihull::os
