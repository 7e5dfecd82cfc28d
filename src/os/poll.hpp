// Waiting for one descriptor.
#pragma once

#include <cstdint>

namespace multihull::os {

/// Waits until the descriptor is readable (a pidfd: until its process has ended), or an error be seen; false when the deadline passed.
bool wait_readable(int fd, std::int64_t deadline_ns) noexcept;
/// The same for writing.
bool wait_writable(int fd, std::int64_t deadline_ns) noexcept;

}    // namespace multihull::os
