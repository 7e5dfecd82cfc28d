// Messages that go out and come in bit by bit, as a socket takes and gives them. Knows no Asio.
#pragma once

#include <multihull/connection.hpp>
#include <multihull/detail/message.hpp>

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

namespace multihull::asio::detail {

/// One message on its way out.
class FrameWriter {
public:
    FrameWriter();
    FrameWriter(const FrameWriter&) = delete;
    FrameWriter& operator=(const FrameWriter&) = delete;
    ~FrameWriter();

    /// Before the first go_on().
    multihull::detail::OutgoingMessage& message() noexcept;
    /// Sends what can be sent without waiting, but not too much at once; true when all has gone. Throws EndOfFile or Error, and CodecError for descriptors that can't go
    /// over this socket.
    bool go_on(int socket);
    /// Whether a part has gone and a part has not: nothing else can be sent before the rest.
    bool in_message() const noexcept;

private:
    struct State;
    std::unique_ptr<State> state_;
};

/// One message that comes.
class FrameReader {
public:
    /// A message of more than `longest` bytes is an error.
    explicit FrameReader(std::size_t longest);
    FrameReader(const FrameReader&) = delete;
    FrameReader& operator=(const FrameReader&) = delete;
    ~FrameReader();

    /// Receives what is there, but not too much at once; true when the message is whole. Throws EndOfFile, Error for what is no message, std::bad_alloc.
    bool go_on(int socket);
    /// Whether a part has come and a part has not.
    bool in_message() const noexcept;
    /// When it is whole.
    multihull::detail::IncomingMessage& message() noexcept;

private:
    struct State;
    std::unique_ptr<State> state_;
};

/// A copy of the connection's socket, which is closed with the connection.
FileDescriptor take_socket(multihull::Connection& connection);

}    // namespace multihull::asio::detail
