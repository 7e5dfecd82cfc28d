// Fixed-size messages with descriptors beside them, over a socket pair that keeps message boundaries.
#pragma once

#include "os/control_message.hpp"
#include "os/fd.hpp"

#include <cstddef>
#include <span>
#include <vector>

namespace multihull::os {

enum class Sent { yes, would_block, gone };

/// Sends one whole message with up to kMaxDescriptorsBeside descriptors.
Sent send_message(const Fd& socket, std::span<const std::byte> bytes, std::span<const int> fds, bool block) noexcept;

enum class Received { yes, would_block, gone };

/// Receives one message of exactly `bytes.size()`; descriptors that came with it are put into `fds`.
Received receive_message(const Fd& socket, std::span<std::byte> bytes, std::vector<Fd>& fds, bool block);

}    // namespace multihull::os
