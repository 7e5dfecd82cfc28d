#include <multihull/asio/frames.hpp>

#include "channel/frame.hpp"
#include "os/stream.hpp"

#include <algorithm>
#include <optional>
#include <string>
#include <sys/socket.h>

namespace multihull::asio::detail {

namespace {

// The most that goes or comes in one turn: with a quick peer a big message must not keep the loop from everybody else.
constexpr std::size_t kTurn = std::size_t{1} << 20;

bool carries_descriptors(int socket) noexcept {
    int domain = 0;
    socklen_t size = sizeof domain;
    return ::getsockopt(socket, SOL_SOCKET, SO_DOMAIN, &domain, &size) == 0 && domain == AF_UNIX;
}

template <class Byte>
std::span<Byte> one_turn(std::span<Byte> bytes) {
    return bytes.first(std::min(bytes.size(), kTurn));
}
std::span<const std::byte> behind(std::span<const std::byte> bytes, std::size_t gone) {
    return bytes.subspan(std::min(gone, bytes.size()));
}

// Whether all that was asked for has gone or come; throws unless it may still.
bool whole(const os::Streamed& result, const char* doing, bool in_message) {
    if (result.end == os::StreamEnd::none) return true;
    if (result.end == os::StreamEnd::timeout) return false;
    channel::throw_stream_end(result.end, doing, in_message);
}

}    // namespace

struct FrameWriter::State {
    multihull::detail::OutgoingMessage message;
    std::size_t gone = 0;    // of header and message
    bool ended = false;
};

FrameWriter::FrameWriter() : state_(std::make_unique<State>()) {}
FrameWriter::~FrameWriter() = default;
multihull::detail::OutgoingMessage& FrameWriter::message() noexcept { return state_->message; }
bool FrameWriter::in_message() const noexcept { return state_->gone != 0 && !state_->ended; }

bool FrameWriter::go_on(int socket) {
    State& self = *state_;
    const auto body = self.message.writer().bytes();
    const channel::FrameHeader header(body.size());
    auto& descriptors = self.message.descriptors().list();
    std::vector<int> raw;
    raw.reserve(descriptors.size());
    for (const auto& descriptor : descriptors) raw.push_back(descriptor.fileno());
    if (!raw.empty() && !carries_descriptors(socket)) {
        throw CodecError("a file descriptor can't travel over TCP, to what may be another machine: use a unix socket");
    }
    const std::size_t head = header.bytes().size();
    self.message.begin_sending();
    const os::Streamed sent = os::send_all(socket, behind(header.bytes(), self.gone),
                                           one_turn(behind(body, self.gone > head ? self.gone - head : 0)), raw, 0);
    self.gone += sent.bytes;
    if (self.gone != 0) descriptors.clear();    // they went with the first byte
    self.ended = whole(sent, "sending", self.gone != 0) && self.gone == head + body.size();
    if (self.ended) self.message.sent();
    return self.ended;
}

struct FrameReader::State {
    multihull::detail::IncomingMessage message;
    std::array<std::byte, channel::kLongHeader> header{};
    std::size_t header_come = 0;
    std::size_t longest = 0;
    std::optional<std::uint64_t> length;
    std::size_t come = 0;         // of the message
    std::span<std::byte> room;    // for what comes next
    bool ended = false;

    bool read(int socket, std::span<std::byte> into, std::size_t& count, bool descriptors);
    bool read_header(int socket);
};

FrameReader::FrameReader(std::size_t longest) : state_(std::make_unique<State>()) { state_->longest = longest; }
FrameReader::~FrameReader() = default;
multihull::detail::IncomingMessage& FrameReader::message() noexcept { return state_->message; }
bool FrameReader::in_message() const noexcept { return state_->header_come != 0 && !state_->ended; }

bool FrameReader::State::read(int socket, std::span<std::byte> into, std::size_t& count, bool descriptors) {
    std::vector<os::Fd> fds;
    const os::Streamed got = os::receive_all(socket, into, descriptors ? &fds : nullptr, 0);
    for (auto& fd : fds) message.descriptors().list().emplace_back(fd.release());
    count += got.bytes;
    return whole(got, "receiving", header_come != 0);
}

bool FrameReader::State::read_header(int socket) {
    using channel::kLongHeader;
    using channel::kShortHeader;
    const std::span all(header);
    if (header_come < kShortHeader) {
        const std::span first = all.first(kShortHeader).subspan(header_come);
        if (!read(socket, first, header_come, carries_descriptors(socket))) return false;
        length = channel::short_length(all.first<kShortHeader>());
    }
    if (!length) {
        if (!read(socket, all.subspan(header_come), header_come, false)) return false;
        length = channel::long_length(all.last<kLongHeader - kShortHeader>());
    }
    return true;
}

bool FrameReader::go_on(int socket) {
    State& self = *state_;
    if (!self.length) {
        if (!self.read_header(socket)) return false;
        if (*self.length > self.longest) {
            throw Error("a message of " + std::to_string(*self.length) + " bytes came where at most " +
                        std::to_string(self.longest) + " were allowed: the connection is closed");
        }
    }
    const auto size = static_cast<std::size_t>(*self.length);
    for (std::size_t turn = 0; self.come < size;) {
        if (turn >= kTurn) return false;
        if (self.room.empty()) self.room = self.message.room(self.come, size);
        std::size_t got = 0;
        const bool filled = self.read(socket, one_turn(self.room), got, false);
        self.come += got;
        turn += got;
        self.room = self.room.subspan(got);
        if (!filled) return false;
    }
    self.message.set_size(size);
    self.ended = true;
    return true;
}

FileDescriptor take_socket(multihull::Connection& connection) {
    FileDescriptor socket = FileDescriptor::duplicate(connection.fileno());
    connection.close();
    return socket;
}

}    // namespace multihull::asio::detail
