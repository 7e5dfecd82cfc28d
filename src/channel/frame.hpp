// The frames of a Connection: the length of a message in front of it, as CPython's multiprocessing.connection writes it.
#pragma once

#include "os/stream.hpp"

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>

namespace multihull::channel {

/// What is sent before a message of that many bytes.
class FrameHeader {
public:
    explicit FrameHeader(std::uint64_t length) noexcept;
    std::span<const std::byte> bytes() const noexcept { return std::span(bytes_).first(size_); }

private:
    std::array<std::byte, 12> bytes_{};
    std::size_t size_ = 4;
};

inline constexpr std::size_t kShortHeader = 4;
inline constexpr std::size_t kLongHeader = 12;

/// The length that the first bytes of a header say; empty where it follows in 8 more. Throws Error for what is no header.
std::optional<std::uint64_t> short_length(std::span<const std::byte, kShortHeader> bytes);
std::uint64_t long_length(std::span<const std::byte, kLongHeader - kShortHeader> bytes) noexcept;

/// Throws what the end of a stream means to who was `doing` something, between messages or in one.
[[noreturn]] void throw_stream_end(os::StreamEnd end, const char* doing, bool in_message);

}    // namespace multihull::channel
