#include "channel/frame.hpp"

#include "os/process.hpp"

#include <multihull/connection.hpp>
#include <multihull/error.hpp>

#include <cerrno>
#include <string>

namespace multihull::channel {

namespace {

// Frames up to this size say it in 4 bytes.
constexpr std::uint64_t kLongestShort = 0x7fffffff;

void put_big_endian(std::byte* out, std::uint64_t value, int bytes) noexcept {
    for (int i = bytes - 1; i >= 0; --i, value >>= 8) out[i] = static_cast<std::byte>(value);
}

std::uint64_t get_big_endian(const std::byte* in, int bytes) noexcept {
    std::uint64_t value = 0;
    for (int i = 0; i < bytes; ++i) value = value << 8 | std::to_integer<std::uint64_t>(in[i]);
    return value;
}

}    // namespace

FrameHeader::FrameHeader(std::uint64_t length) noexcept {
    if (length <= kLongestShort) {
        put_big_endian(bytes_.data(), length, 4);
    } else {
        put_big_endian(bytes_.data(), 0xffffffff, 4);
        put_big_endian(bytes_.data() + 4, length, 8);
        size_ = kLongHeader;
    }
}

std::optional<std::uint64_t> short_length(std::span<const std::byte, kShortHeader> bytes) {
    const std::uint64_t length = get_big_endian(bytes.data(), 4);
    if (length <= kLongestShort) return length;
    if (length == 0xffffffff) return std::nullopt;
    throw Error(
        "what came over a connection is no message of this protocol (a length below zero): the connection is closed");
}

std::uint64_t long_length(std::span<const std::byte, kLongHeader - kShortHeader> bytes) noexcept {
    return get_big_endian(bytes.data(), 8);
}

void throw_stream_end(os::StreamEnd end, const char* doing, bool in_message) {
    switch (end) {
        case os::StreamEnd::timeout:
            throw WaitTimeout(in_message ? std::string("the time set for ") + doing +
                                               " ran out in the middle of a message: the connection is closed"
                                         : std::string("the time set for ") + doing + " ran out");
        case os::StreamEnd::failed:
            throw Error(std::string("a connection failed while ") + doing + " (" + os::errno_text(errno) +
                        "): make a new one");
        case os::StreamEnd::closed:
        case os::StreamEnd::none:
            break;
    }
    throw EndOfFile(
        in_message ? std::string("the other end of a connection was closed in the middle of a message, while ") + doing
                   : std::string("the other end of a connection is closed: there was nothing more while ") + doing);
}

}    // namespace multihull::channel
