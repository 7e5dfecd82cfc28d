// What a stranger may send to a Connection, and to either side of its handshake. The first byte says what is fed, the others are
// what comes through the socket before it is closed. What may come of it: messages, and then EndOfFile or another Error; and no more
// memory than the bytes are worth.
#include "channel/handshake.hpp"
#include "fuzz/fuzz.hpp"

#include <multihull/connection.hpp>
#include <multihull/object.hpp>

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <sys/socket.h>
#include <unistd.h>
#include <vector>

namespace {

using multihull::Connection;
using multihull::FileDescriptor;
using multihull::detail::Handshake;
using multihull::detail::SocketHandshake;

// A message's memory starts at 64 KiB. Values take more than their bytes, as the codec's own fuzzer knows.
constexpr std::size_t kFixed = std::size_t{512} << 10;
constexpr std::size_t kBytesPerByte = 512;

// A socket that has these bytes to read, and then an end.
FileDescriptor filled_socket(std::span<const std::uint8_t> bytes) {
    std::array<int, 2> ends{};
    fuzz::require(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends.data()) == 0, "no socket");
    FileDescriptor near(ends[0]);
    const FileDescriptor far(ends[1]);
    fuzz::require(::write(far.fileno(), bytes.data(), bytes.size()) == static_cast<ssize_t>(bytes.size()),
                  "a full socket");
    ::shutdown(near.fileno(), SHUT_WR);
    return near;
}

// Receives until it can't; each message within its bound.
template <class Receive>
void receive_all(std::span<const std::uint8_t> bytes, Receive receive) {
    Connection connection(filled_socket(bytes));
    for (std::size_t messages = 0; messages <= bytes.size(); ++messages) {
        const fuzz::Allocations allocations;
        bool over = false;
        try {
            receive(connection);
        } catch (const multihull::CodecError&) {
            // The message came whole, and the next may be a better one.
        } catch (const multihull::BufferTooShort&) {
        } catch (const multihull::Error&) {
            over = true;
        }
        fuzz::require(allocations.bytes() <= kFixed + kBytesPerByte * bytes.size(), "receiving took too much memory");
        if (over) return;
        fuzz::require(!connection.closed(), "a closed connection had a message");
    }
    fuzz::require(false, "there were more messages than bytes");
}

void shake_hands(std::span<const std::uint8_t> bytes, bool listens) {
    Handshake handshake("secret", listens);
    handshake.begin();
    // Each frame behind a byte that says how long it is.
    while (!bytes.empty() && handshake.state() == Handshake::State::going) {
        const std::size_t size = std::min<std::size_t>(bytes[0], bytes.size() - 1);
        handshake.on_frame({reinterpret_cast<const char*>(bytes.data()) + 1, size});
        bytes = bytes.subspan(1 + size);
    }
    // Nobody guesses a message authentication code of forty random bytes.
    fuzz::require(handshake.state() != Handshake::State::done, "a stranger was let in");
}

void shake_hands_on_socket(std::span<const std::uint8_t> bytes, bool listens) {
    SocketHandshake handshake(filled_socket(bytes), "secret", listens, INT64_MAX);
    for (std::size_t steps = 0; handshake.go_on() == Handshake::State::going; ++steps) {
        fuzz::require(steps <= bytes.size(), "a handshake does not end at the end of the stream");
    }
}

}    // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    if (size == 0) return 0;
    const std::span bytes(data + 1, size - 1);
    switch (data[0] % 8) {
        case 0:
            receive_all(bytes, [](Connection& connection) { connection.recv_bytes(); });
            break;
        case 1:
            receive_all(bytes, [](Connection& connection) { connection.recv_bytes(100); });
            break;
        case 2:
            receive_all(bytes, [](Connection& connection) {
                std::array<std::byte, 20> room{};
                connection.recv_bytes_into(room);
            });
            break;
        case 3:
            receive_all(bytes, [](Connection& connection) { connection.recv<std::vector<std::string>>(); });
            break;
        case 4:
            receive_all(bytes, [python = (data[0] & 8) != 0](Connection& connection) {
                connection.set_python(python);
                connection.recv<multihull::Object>();
            });
            break;
        case 5:
            receive_all(bytes, [](Connection& connection) { connection.recv<multihull::FileDescriptor>(); });
            break;
        case 6:
            shake_hands(bytes, (data[0] & 8) != 0);
            break;
        default:
            shake_hands_on_socket(bytes, (data[0] & 8) != 0);
            break;
    }
    return 0;
}
