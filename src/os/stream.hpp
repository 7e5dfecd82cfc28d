// Bytes over a stream socket, all of them or until the deadline, with descriptors beside the first.
//
// A peer's death is an answer, never SIGPIPE. Interrupted calls go on.
#pragma once

#include "os/control_message.hpp"
#include "os/fd.hpp"

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace multihull::os {

enum class StreamEnd {
    none,       ///< All bytes have gone or come.
    closed,     ///< The other side is gone.
    timeout,    ///< The deadline passed.
    failed,     ///< Something else: errno says what.
};

struct Streamed {
    std::size_t bytes = 0;    ///< How many have gone or come.
    StreamEnd end = StreamEnd::none;
};

/// Sends both parts, one behind the other.
Streamed send_all(int socket, std::span<const std::byte> first, std::span<const std::byte> second,
                  std::span<const int> fds, std::int64_t deadline_ns) noexcept;
/// Receives exactly room.size() bytes. Descriptors that come along are put into `fds`, or closed where there is none.
Streamed receive_all(int socket, std::span<std::byte> room, std::vector<Fd>* fds, std::int64_t deadline_ns);

/// Receives what is there, up to room.size() bytes, without waiting: `timeout` where there is nothing.
Streamed receive_some(int socket, std::span<std::byte> room) noexcept;

}    // namespace multihull::os
