// Descriptors that travel beside the bytes of a unix socket (SCM_RIGHTS).
#pragma once

#include "os/fd.hpp"

#include <cstddef>
#include <span>
#include <sys/socket.h>
#include <vector>

namespace multihull::os {

/// How many descriptors the kernel lets travel at once.
inline constexpr std::size_t kMaxDescriptorsBeside = 253;

/// The room for them, which a message must not outlive.
class ControlMessage {
public:
    /// Sends these with the message; up to kMaxDescriptorsBeside.
    void attach(msghdr& message, std::span<const int> descriptors) noexcept;
    /// Lets the message bring some.
    void make_room(msghdr& message) noexcept;
    /// Appends those that came with it.
    static void take(msghdr& message, std::vector<Fd>& descriptors);

private:
    alignas(cmsghdr) char bytes_[CMSG_SPACE(sizeof(int) * kMaxDescriptorsBeside)];
};

}    // namespace multihull::os
