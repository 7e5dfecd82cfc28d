// How two ends of a connection prove to each other that they know a key, as CPython's multiprocessing does in all its versions.
//
// Both ends send a challenge, random bytes, and answer the other's with a message authentication code of it. An answer of 16 bytes is
// an HMAC-MD5, as up to Python 3.11; later ones name their digest in braces before it. See "Handshake" in README.md.
//
// Not thread-safe. Invariants
// (1) Nothing that comes later is read: the reader takes the bytes of the handshake's frames and no more.
// (2) A frame of more than 256 bytes, or one that is not the next, fails the handshake.
#pragma once

#include <multihull/file_descriptor.hpp>

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace multihull::detail {

/// The protocol alone: frames in, frames out.
class Handshake {
public:
    enum class State { going, done, failed };

    Handshake(std::string key, bool listens);

    /// What to send first.
    std::vector<std::string> begin();
    /// What to send when this frame has come.
    std::vector<std::string> on_frame(std::string_view frame);
    State state() const noexcept { return state_; }
    /// Of a failed one: whether the keys differ, rather than the other side not speaking the protocol.
    bool wrong_key() const noexcept { return wrong_key_; }

private:
    enum class Next { challenge, answer, verdict };

    std::string make_challenge();
    std::optional<std::string> answer_to(std::string_view challenge) const;
    bool right(std::string_view answer) const;
    std::vector<std::string> fail(bool wrong_key, std::vector<std::string> say = {});

    const std::string key_;
    const bool listens_;
    std::string challenge_;
    Next next_;
    State state_ = State::going;
    bool wrong_key_ = false;
};

/// A handshake over a socket, which goes on whenever there is something to read.
class SocketHandshake {
public:
    SocketHandshake(FileDescriptor socket, std::string key, bool listens, std::int64_t deadline);

    /// Reads what is there, without waiting.
    Handshake::State go_on();
    int fileno() const noexcept { return socket_.fileno(); }
    std::int64_t deadline() const noexcept { return deadline_; }
    const char* failure() const noexcept { return failure_; }
    bool wrong_key() const noexcept { return handshake_.wrong_key(); }
    FileDescriptor take_socket() noexcept { return std::move(socket_); }

private:
    bool send(const std::vector<std::string>& frames);
    Handshake::State fail(const char* why) noexcept;

    FileDescriptor socket_;
    Handshake handshake_;
    std::int64_t deadline_;
    std::string frame_;         // with its header, as far as it has come
    std::size_t wanted_ = 4;    // bytes of it
    const char* failure_ = nullptr;
};

}    // namespace multihull::detail
