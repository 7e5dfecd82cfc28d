#include <multihull/connection.hpp>
#include <multihull/pipe.hpp>

#include "channel/frame.hpp"
#include "os/clock.hpp"
#include "os/fault.hpp"
#include "os/poll.hpp"
#include "os/process.hpp"
#include "os/stream.hpp"
#include "shm/pins.hpp"

#include <algorithm>
#include <array>
#include <cerrno>
#include <fcntl.h>
#include <new>
#include <sys/socket.h>
#include <unistd.h>

namespace multihull {

namespace {

// How much memory a message gets before any of its bytes have come.
constexpr std::size_t kFirstRoom = std::size_t{64} << 10;
}    // namespace

BufferTooShort::BufferTooShort(const std::string& sentence, std::vector<std::byte> message)
    : Error(sentence), message_(std::make_shared<const std::vector<std::byte>>(std::move(message))) {}

void FileDescriptor::close() noexcept {
    if (descriptor_ >= 0) ::close(std::exchange(descriptor_, -1));
}

FileDescriptor FileDescriptor::duplicate(int descriptor) {
    FileDescriptor copy(::fcntl(descriptor, F_DUPFD_CLOEXEC, 0));
    if (!copy) {
        throw Error("descriptor " + std::to_string(descriptor) + " can't be duplicated (" + os::errno_text(errno) +
                    "): it must be open, and the limit on open files (ulimit -n) allow another");
    }
    return copy;
}

namespace detail {

DescriptorTicket MessageDescriptors::put(int descriptor) {
    if (list_.size() >= os::kMaxDescriptorsBeside) {
        throw_cannot_encode("it holds more than 253 file descriptors; send them in several messages");
    }
    list_.push_back(FileDescriptor::duplicate(descriptor));
    return {0, static_cast<std::uint32_t>(list_.size() - 1), 0};
}

int MessageDescriptors::take(const DescriptorTicket& ticket) {
    if (ticket.keeper != 0 || ticket.number >= list_.size() || !list_[ticket.number]) {
        throw CodecError(
            "a file descriptor that a message names did not come with it: it was taken before, was not sent, or the "
            "limit on open files (ulimit -n) left no room for it");
    }
    return list_[ticket.number].release();
}

void OutgoingMessage::begin_sending() noexcept {
    if (adrift_ || writer_.pins() == 0) return;
    adrift_ = true;
    shm::move_pins(writer_.pins(), {shm::Region::instance().own_number()}, {shm::kAdrift});
}

OutgoingMessage::~OutgoingMessage() {
    if (!adrift_ || writer_.pins() == 0) return;
    shm::move_pins(writer_.pins(), {shm::kAdrift}, {shm::Region::instance().own_number()});
}

void IncomingMessage::Free::operator()(std::byte* bytes) const noexcept { std::free(bytes); }

std::span<std::byte> IncomingMessage::room(std::size_t used, std::size_t size) {
    if (used == capacity_) {
        const std::size_t wanted = std::min(size, std::max(kFirstRoom, 2 * capacity_));
        // Big blocks move without being copied.
        auto* const bytes = static_cast<std::byte*>(std::realloc(bytes_.get(), wanted));
        if (bytes == nullptr) throw std::bad_alloc();
        static_cast<void>(bytes_.release());
        bytes_.reset(bytes);
        capacity_ = wanted;
    }
    return {bytes_.get() + used, capacity_ - used};
}

}    // namespace detail

Connection::Connection(FileDescriptor socket, bool readable, bool writable)
    : socket_(std::move(socket)), readable_(readable), writable_(writable) {
    int type = 0;
    int domain = 0;
    socklen_t size = sizeof type;
    if (::getsockopt(socket_.fileno(), SOL_SOCKET, SO_TYPE, &type, &size) != 0 || type != SOCK_STREAM ||
        ::getsockopt(socket_.fileno(), SOL_SOCKET, SO_DOMAIN, &domain, &size) != 0) {
        throw Error("a Connection is made of a connected stream socket, and this descriptor is none");
    }
    unix_ = domain == AF_UNIX;
}

int Connection::fileno() const {
    if (!socket_) throw Error("this connection was closed, or moved to somebody else");
    return socket_.fileno();
}

int Connection::for_sending() const {
    const int socket = fileno();
    if (!writable_) throw Error("this end of a one-way pipe can only receive: send from the other end");
    return socket;
}

int Connection::for_receiving() const {
    const int socket = fileno();
    if (!readable_) throw Error("this end of a one-way pipe can only send: receive at the other end");
    return socket;
}

std::int64_t Connection::deadline() const noexcept {
    return timeout_.count() > 0 ? os::deadline_after(timeout_) : os::kNever;
}

bool Connection::poll(std::chrono::nanoseconds timeout) const {
    return os::wait_readable(for_receiving(), os::deadline_after(timeout));
}

void Connection::send_frame(std::span<const std::byte> bytes, std::vector<FileDescriptor>* descriptors) {
    const int socket = for_sending();
    std::vector<int> raw;
    if (descriptors != nullptr) {
        for (const auto& descriptor : *descriptors) raw.push_back(descriptor.fileno());
    }
    if (!raw.empty() && !unix_) {
        throw CodecError("a file descriptor can't travel over TCP, to what may be another machine: use a unix socket");
    }
    const os::Streamed sent = os::send_all(socket, channel::FrameHeader(bytes.size()).bytes(), bytes, raw, deadline());
    if (sent.end == os::StreamEnd::none) return;
    if (sent.bytes != 0) close();
    channel::throw_stream_end(sent.end, "sending", sent.bytes != 0);
}

std::uint64_t Connection::receive_length(std::int64_t deadline, std::vector<FileDescriptor>* descriptors) {
    const int socket = for_receiving();
    std::array<std::byte, 8> header;
    std::vector<os::Fd> fds;
    const os::Streamed got =
        os::receive_all(socket, std::span(header).first(4), descriptors != nullptr && unix_ ? &fds : nullptr, deadline);
    if (descriptors != nullptr) {
        for (auto& fd : fds) descriptors->emplace_back(fd.release());
    }
    if (got.end != os::StreamEnd::none) {
        if (got.bytes != 0) close();
        channel::throw_stream_end(got.end, "receiving", got.bytes != 0);
    }
    std::optional<std::uint64_t> length;
    try {
        length = channel::short_length(std::span(header).first<channel::kShortHeader>());
    } catch (...) {
        close();
        throw;
    }
    if (length) return *length;
    receive_body(header, deadline);
    return channel::long_length(header);
}

void Connection::receive_body(std::span<std::byte> room, std::int64_t deadline) {
    const os::Streamed got = os::receive_all(socket_.fileno(), room, nullptr, deadline);
    if (got.end == os::StreamEnd::none) return;
    close();
    channel::throw_stream_end(got.end, "receiving", true);
}

// Room(used) answers where the next bytes go.
template <class Room>
void Connection::receive_growing(std::uint64_t length, std::int64_t deadline, Room room) {
    try {
        for (std::uint64_t used = 0; used < length;) {
            const std::span<std::byte> next = room(static_cast<std::size_t>(used));
            receive_body(next, deadline);
            used += next.size();
        }
    } catch (const std::bad_alloc&) {
        close();    // the rest of the message stands in the stream
        throw;
    } catch (const std::length_error&) {
        close();
        throw std::bad_alloc();
    }
}

void Connection::send_message(detail::OutgoingMessage& message) {
    message.begin_sending();
    send_frame(message.writer().bytes(), &message.descriptors().list());
    message.sent();
}

void Connection::receive_message(detail::IncomingMessage& message) {
    const std::int64_t until = deadline();
    receive_rest(message, static_cast<std::size_t>(receive_length(until, &message.descriptors().list())), until);
}

void Connection::receive_rest(detail::IncomingMessage& message, std::size_t size, std::int64_t deadline) {
    receive_growing(size, deadline, [&](std::size_t used) { return message.room(used, size); });
    message.set_size(size);
}

void Connection::send_bytes(std::span<const std::byte> bytes) { send_frame(bytes, nullptr); }

// A longer message closes the connection.
std::uint64_t Connection::receive_length_up_to(std::size_t max, std::int64_t deadline) {
    const std::uint64_t length = receive_length(deadline, nullptr);
    if (length <= max) return length;
    close();
    throw Error("a message of " + std::to_string(length) + " bytes came where at most " + std::to_string(max) +
                " were allowed: the connection is closed");
}

std::vector<std::byte> Connection::recv_bytes(std::size_t max) {
    const std::int64_t until = deadline();
    const std::uint64_t length = receive_length_up_to(max, until);
    std::vector<std::byte> bytes;
    receive_growing(length, until, [&](std::size_t used) {
        const auto size = static_cast<std::size_t>(length);
        bytes.resize(std::min(size, std::max(kFirstRoom, 2 * used)));
        return std::span(bytes).subspan(used);
    });
    return bytes;
}

std::size_t Connection::recv_bytes_into(std::span<std::byte> room) {
    const std::int64_t until = deadline();
    const std::uint64_t length = receive_length(until, nullptr);
    if (length <= room.size()) {
        receive_body(room.first(static_cast<std::size_t>(length)), until);
        return static_cast<std::size_t>(length);
    }
    std::vector<std::byte> bytes;
    receive_growing(length, until, [&](std::size_t used) {
        const auto size = static_cast<std::size_t>(length);
        bytes.resize(std::min(size, std::max(kFirstRoom, 2 * used)));
        return std::span(bytes).subspan(used);
    });
    throw BufferTooShort("a message of " + std::to_string(length) + " bytes does not fit into " +
                             std::to_string(room.size()) + ": this error's message() holds it",
                         std::move(bytes));
}

std::pair<Connection, Connection> Pipe(bool duplex) {
    int ends[2];
    if (os::checked(os::Call::socketpair, [&] { return ::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends); }) !=
        0) {
        throw Error("a pipe can't be made (" + os::errno_text(errno) + "): raise the limit on open files (ulimit -n)");
    }
    FileDescriptor first(ends[0]);
    FileDescriptor second(ends[1]);
    if (!duplex) {
        ::shutdown(first.fileno(), SHUT_WR);
        ::shutdown(second.fileno(), SHUT_RD);
    }
    return {Connection(std::move(first), true, duplex), Connection(std::move(second), duplex, true)};
}

void Codec<FileDescriptor>::encode(detail::Writer& writer, FileDescriptor& descriptor) {
    if (!descriptor) throw Error("this FileDescriptor was closed, or moved to somebody else: there is nothing to send");
    writer.attach(descriptor.fileno());
    descriptor.close();
}

FileDescriptor Codec<FileDescriptor>::decode(detail::Reader& reader) { return FileDescriptor(reader.detach()); }

void Codec<Connection>::encode(detail::Writer& writer, Connection& connection) {
    const int socket = connection.fileno();
    writer.put(static_cast<std::uint8_t>((connection.readable_ ? 1 : 0) | (connection.writable_ ? 2 : 0) |
                                         (connection.python_ ? 4 : 0)));
    writer.attach(socket);
    connection.close();
}

Connection Codec<Connection>::decode(detail::Reader& reader) {
    const auto ways = reader.get<std::uint8_t>();
    if (ways > 7) detail::throw_damaged("a Connection goes no known way");
    FileDescriptor socket(reader.detach());
    try {
        Connection connection(std::move(socket), (ways & 1U) != 0, (ways & 2U) != 0);
        connection.set_python((ways & 4U) != 0);
        return connection;
    } catch (const Error&) {
        detail::throw_damaged("the file descriptor of a Connection is no stream socket");
    }
}

}    // namespace multihull
