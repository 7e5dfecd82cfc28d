// A client's socket at the server: its handshake, then its requests and answers.
//
// Belongs to one loop, whose thread alone reads; send() and set_timer() are for any thread.
//
// Invariants
// (1) mutex_ guards everything that other threads touch: whether a request is being served, what is still to be sent, the socket's end.
// (2) While a request is served or its answer not sent whole, no other is read: what a client can make us keep is one request, one
//     answer, and less than one buffer more.
// (3) Whoever finds `input_waits_` set when an answer is sent has the loop go on reading.
// (4) A request comes over the socket or in the mailbox; its answer goes where the mailbox says (mailbox.hpp).
#pragma once

#include "channel/handshake.hpp"
#include "manager/mailbox.hpp"
#include "manager/server_session.hpp"
#include "os/clock.hpp"

#include <multihull/file_descriptor.hpp>

#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <vector>

namespace multihull::detail {

class ServerLoop;

class ServerConnection final : public Outlet, public std::enable_shared_from_this<ServerConnection> {
public:
    ServerConnection(ServerLoop& loop, std::uint64_t number, FileDescriptor socket, const std::string& authkey,
                     std::int64_t handshake_deadline);

    // On the loop's thread.
    void on_events(std::uint32_t events);
    void on_time();
    /// An answer was sent from another thread, and there may be something to read.
    void resume();
    /// Its client has rung.
    void look_into_mailbox();
    /// Closes it; a second time does nothing.
    void end();
    std::int64_t deadline() const noexcept { return deadline_; }
    bool shaking_hands() const noexcept { return handshake_.has_value(); }
    int fileno() const noexcept { return handshake_ ? handshake_->fileno() : socket_.fileno(); }

    // On any thread.
    void send(std::string answer) noexcept override;
    void close_when_sent() noexcept override;
    void drop() noexcept override;
    void set_timer(std::int64_t deadline, std::function<void()> function) override;
    std::optional<MailboxPlace> open_mailbox() override;

private:
    void shake_hands();
    void begin_session(FileDescriptor socket);
    void read(bool to_the_end);
    bool is_free(bool input_left);
    bool serve(std::span<const std::byte>& data, bool more_waits);
    void serve_one(std::span<const std::byte> message);
    std::optional<std::span<const std::byte>> next_frame(std::span<const std::byte>& data);
    void stop_reading(bool for_good);
    std::span<std::byte> grow_input();
    void flush();
    void sent() noexcept;
    void take_timer(std::int64_t deadline, std::function<void()> function);

    ServerLoop& loop_;
    const std::uint64_t number_;
    std::optional<SocketHandshake> handshake_;
    std::shared_ptr<Session> session_;
    std::vector<std::byte> input_;    // what has come and was not served; empty most of the time
    std::int64_t served_window_ = -1;
    std::int64_t deadline_ = os::kNever;
    std::function<void()> on_deadline_;
    std::optional<std::uint32_t> mailbox_place_;
    bool is_left_ = false;    // by its client

    std::mutex mutex_;
    FileDescriptor socket_;
    Mailbox* mailbox_ = nullptr;
    bool closed_ = false;
    bool closing_ = false;    // when all is sent
    bool broken_ = false;     // nothing can be sent any more, or nothing understood
    bool busy_ = false;       // a request is served, or its answer not sent whole
    bool serving_ = false;    // the loop's thread is in the middle of it, and looks at the rest of this behind it
    bool input_waits_ = false;
    std::array<std::byte, 12> header_{};
    std::size_t header_size_ = 0;
    std::string output_;
    std::size_t sent_ = 0;    // bytes of header_ and output_
};

}    // namespace multihull::detail
