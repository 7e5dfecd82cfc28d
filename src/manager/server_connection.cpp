#include "manager/server_connection.hpp"

#include "manager/server_loop.hpp"
#include "os/stream.hpp"

#include <multihull/log.hpp>

#include <algorithm>
#include <cstring>
#include <sys/epoll.h>
#include <utility>

namespace multihull::detail {

namespace {

constexpr std::uint32_t kLongestShortFrame = 0x7fffffff;
constexpr std::size_t kFirstRoom = std::size_t{64} << 10;

std::uint64_t big_endian(std::span<const std::byte> bytes) noexcept {
    std::uint64_t number = 0;
    for (const std::byte byte : bytes) number = number << 8 | std::to_integer<std::uint64_t>(byte);
    return number;
}

std::size_t write_header(std::array<std::byte, 12>& header, std::uint64_t length) noexcept {
    const auto put = [&](std::size_t at, std::uint64_t number, std::size_t size) {
        for (std::size_t i = 0; i < size; ++i) header[at + i] = static_cast<std::byte>(number >> (8 * (size - 1 - i)));
    };
    if (length <= kLongestShortFrame) {
        put(0, length, 4);
        return 4;
    }
    put(0, 0xffffffff, 4);
    put(4, length, 8);
    return 12;
}

}    // namespace

ServerConnection::ServerConnection(ServerLoop& loop, std::uint64_t number, FileDescriptor socket,
                                   const std::string& authkey, std::int64_t handshake_deadline)
    : loop_(loop), number_(number), handshake_(std::in_place, std::move(socket), authkey, true, handshake_deadline) {}

void ServerConnection::on_events(std::uint32_t events) {
    if (handshake_) return shake_hands();
    if ((events & EPOLLOUT) != 0) flush();
    const bool gone = (events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR)) != 0;
    if (gone || (events & EPOLLIN) != 0) read(gone);
}

void ServerConnection::on_time() {
    if (handshake_) {
        loop_.turn_away(handshake_->fileno(), "it did not prove in time that it knows the key");
        return end();
    }
    deadline_ = os::kNever;
    if (const auto function = std::exchange(on_deadline_, nullptr)) function();
}

void ServerConnection::shake_hands() {
    switch (handshake_->go_on()) {
        case Handshake::State::going:
            return;
        case Handshake::State::failed:
            loop_.turn_away(handshake_->fileno(), handshake_->failure());
            return end();
        case Handshake::State::done:
            begin_session(handshake_->take_socket());
            return read(false);
    }
}

void ServerConnection::begin_session(FileDescriptor socket) {
    handshake_.reset();
    loop_.hands_shaken(number_);
    take_timer(os::kNever, nullptr);
    auto process = loop_.process_behind(socket.fileno());
    {
        const std::lock_guard guard(mutex_);
        socket_ = std::move(socket);
    }
    session_ = std::make_shared<Session>(loop_.core(), number_, std::move(process), weak_from_this());
}

void ServerConnection::end() {
    FileDescriptor socket;
    {
        const std::lock_guard guard(mutex_);
        if (std::exchange(closed_, true)) return;
        socket = std::move(socket_);
        mailbox_ = nullptr;
        output_ = {};
    }
    if (mailbox_place_) loop_.mailboxes().close(*mailbox_place_, is_left_);
    take_timer(os::kNever, nullptr);
    if (session_) session_->on_end();
    loop_.forget(number_);    // the last reference may be our caller's
}

// Whether the next request may be read; if not, what is left is read when the present one is answered.
bool ServerConnection::is_free(bool input_left) {
    const std::lock_guard guard(mutex_);
    serving_ = false;
    input_waits_ = busy_ && input_left;
    return !busy_ && !closed_ && !closing_ && !broken_;
}

void ServerConnection::stop_reading(bool for_good) {
    {
        const std::lock_guard guard(mutex_);
        for_good |= broken_ || (closing_ && !busy_);
    }
    if (for_good) end();
}

// `to_the_end`: the other side will send no more, and waits for nothing.
void ServerConnection::read(bool to_the_end) {
    const auto self = shared_from_this();
    if (!is_free(true)) return stop_reading(to_the_end);
    if (!input_.empty()) {
        std::span<const std::byte> data(input_);
        const bool free = serve(data, true);
        input_.erase(input_.begin(), input_.end() - static_cast<std::ptrdiff_t>(data.size()));
        if (!free) return stop_reading(to_the_end);
    }
    for (;;) {
        const std::size_t had = input_.size();
        const std::span<std::byte> room = had == 0 ? loop_.buffer() : grow_input();
        const os::Streamed got = os::receive_some(socket_.fileno(), room);
        if (had != 0) input_.resize(had + got.bytes);
        if (got.end == os::StreamEnd::timeout) return;
        if (got.end != os::StreamEnd::none) {
            is_left_ = true;
            return end();
        }
        const bool more_waits = got.bytes == room.size();
        std::span<const std::byte> data = had == 0 ? room.first(got.bytes) : std::span<std::byte>(input_);
        const bool free = serve(data, more_waits);
        if (had == 0) {
            input_.assign(data.begin(), data.end());
        } else {
            input_.erase(input_.begin(), input_.end() - static_cast<std::ptrdiff_t>(data.size()));
            if (input_.empty()) input_ = {};    // 10,000 clients may once have sent something big
        }
        if (!free) return stop_reading(to_the_end);
        // Fewer bytes than there was room for: more of them will be an event.
        if (!more_waits && !to_the_end) return;
    }
}

// Serves whole requests, and leaves the rest in `data`; false when the next one has to wait.
bool ServerConnection::serve(std::span<const std::byte>& data, bool more_waits) {
    while (const auto frame = next_frame(data)) {
        serve_one(*frame);
        if (!is_free(more_waits || !data.empty())) return false;
    }
    const std::lock_guard guard(mutex_);
    return !broken_;
}

void ServerConnection::serve_one(std::span<const std::byte> message) {
    if (std::exchange(served_window_, loop_.window()) != loop_.window()) loop_.count_served();
    {
        const std::lock_guard guard(mutex_);
        busy_ = true;
        serving_ = true;
    }
    session_->on_message(message);
}

std::optional<MailboxPlace> ServerConnection::open_mailbox() {
    if (!mailbox_place_) mailbox_place_ = loop_.mailboxes().open(number_);
    if (!mailbox_place_) return std::nullopt;
    const std::lock_guard guard(mutex_);
    mailbox_ = &loop_.mailboxes().at(*mailbox_place_);
    return MailboxPlace{loop_.mailboxes().name(), *mailbox_place_};
}

void ServerConnection::look_into_mailbox() {
    if (!mailbox_place_) return;
    const auto self = shared_from_this();
    if (!is_free(true)) return stop_reading(false);
    const auto message = loop_.mailboxes().at(*mailbox_place_).take(loop_.buffer());
    if (!message) return;
    serve_one(*message);
    if (!is_free(false)) stop_reading(false);
}

void ServerConnection::resume() {
    read(false);
    look_into_mailbox();
}

std::optional<std::span<const std::byte>> ServerConnection::next_frame(std::span<const std::byte>& data) {
    if (data.size() < 4) return std::nullopt;
    std::size_t header = 4;
    std::uint64_t length = big_endian(data.first(4));
    if (length == 0xffffffff) {
        if (data.size() < 12) return std::nullopt;
        header = 12;
        length = big_endian(data.subspan(4, 8));
    }
    if (length > loop_.core()->largest_message) {
        loop_.turn_away(socket_.fileno(), "its message is too long");
        const std::lock_guard guard(mutex_);
        broken_ = true;
        return std::nullopt;
    }
    if (data.size() - header < length) return std::nullopt;
    const auto frame = data.subspan(header, length);
    data = data.subspan(header + length);
    return frame;
}

// Room behind the beginning of a frame: the frame's own size says how much, but a client must send half of what it makes us allocate.
std::span<std::byte> ServerConnection::grow_input() {
    const std::size_t had = input_.size();
    input_.resize(std::max(kFirstRoom, 2 * had));
    return std::span(input_).subspan(had);
}

void ServerConnection::send(std::string answer) noexcept {
    const std::lock_guard guard(mutex_);
    if (closed_ || broken_) return;
    if (mailbox_ != nullptr && mailbox_->answer(std::as_bytes(std::span(answer)))) {
        sent();
        if (!serving_ && (closing_ || input_waits_)) loop_.resume(number_);
        return;
    }
    output_ = std::move(answer);
    header_size_ = write_header(header_, output_.size());
    const os::Streamed gone = os::send_all(socket_.fileno(), std::span(header_).first(header_size_),
                                           std::as_bytes(std::span(output_)), {}, 0);
    sent_ = gone.bytes;
    if (gone.end == os::StreamEnd::none) {
        sent();
    } else if (gone.end != os::StreamEnd::timeout) {
        broken_ = true;
    }
    if (!serving_ && (broken_ || (!busy_ && (closing_ || input_waits_)))) loop_.resume(number_);
}

void ServerConnection::sent() noexcept {
    busy_ = false;
    if (output_.capacity() > kFirstRoom) output_ = {};
}

void ServerConnection::flush() {
    const std::lock_guard guard(mutex_);
    if (!busy_ || serving_ || output_.empty() || sent_ == header_size_ + output_.size()) return;
    const std::size_t of_header = std::min(sent_, header_size_);
    const std::size_t of_body = sent_ - of_header;
    const os::Streamed gone = os::send_all(socket_.fileno(), std::span(header_).first(header_size_).subspan(of_header),
                                           std::as_bytes(std::span(output_)).subspan(of_body), {}, 0);
    sent_ += gone.bytes;
    if (gone.end == os::StreamEnd::none) {
        sent();
    } else if (gone.end != os::StreamEnd::timeout) {
        broken_ = true;
    }
    if (broken_ || (!busy_ && (closing_ || input_waits_))) loop_.resume(number_);
}

void ServerConnection::close_when_sent() noexcept {
    const std::lock_guard guard(mutex_);
    closing_ = true;
}

void ServerConnection::drop() noexcept {
    const std::lock_guard guard(mutex_);
    if (closed_) return;
    broken_ = true;
    if (!serving_) loop_.resume(number_);
}

void ServerConnection::set_timer(std::int64_t deadline, std::function<void()> function) {
    if (loop_.on_own_thread()) return take_timer(deadline, std::move(function));
    const std::lock_guard guard(mutex_);
    if (closed_) return;
    loop_.post([self = shared_from_this(), deadline, function = std::move(function)]() mutable {
        self->take_timer(deadline, std::move(function));
    });
}

void ServerConnection::take_timer(std::int64_t deadline, std::function<void()> function) {
    if (deadline != deadline_) loop_.move_timer(number_, deadline_, deadline);
    deadline_ = deadline;
    on_deadline_ = deadline == os::kNever ? nullptr : std::move(function);
}

}    // namespace multihull::detail
