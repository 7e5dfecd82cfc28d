// Connections as Asio I/O objects: the messages of multihull::Connection in an event loop.
//
// As Asio's sockets: an object is used by one thread at a time, and one operation may send while another receives; a second of the same kind
// at the same time fails with Error. A message is whole or not at all: an operation that ends in the middle of one (cancelled, or with an
// error) closes the connection.
#pragma once

#include <multihull/asio/frames.hpp>
#include <multihull/asio/ready_operation.hpp>
#include <multihull/connection.hpp>

#include <concepts>
#include <cstddef>
#include <exception>
#include <limits>
#include <memory>
#include <optional>
#include <span>
#include <string_view>
#include <utility>
#include <vector>

namespace multihull::asio {

namespace detail {

/// A socket in an event loop.
template <class Executor>
struct Socket {
    explicit Socket(const Executor& executor) : descriptor(executor) {}

    net::posix::basic_stream_descriptor<Executor> descriptor;
    bool readable = true;
    bool writable = true;
    bool python = false;
    bool sending = false;
    bool receiving = false;
};

template <class Executor>
class SendWork {
public:
    using Value = void;
    static constexpr auto kWait = net::posix::descriptor_base::wait_write;

    SendWork(std::shared_ptr<Socket<Executor>> socket, std::shared_ptr<FrameWriter> writer, std::exception_ptr failure)
        : socket_(std::move(socket)), writer_(std::move(writer)), failure_(std::move(failure)) {}

    auto& descriptor() const noexcept { return socket_->descriptor; }
    bool go_on(Result<void>& result) {
        if (!began_ && !begin(result)) return true;
        return writer_->go_on(socket_->descriptor.native_handle());
    }
    void finish() {
        if (!began_) return;
        socket_->sending = false;
        if (writer_->in_message()) close_quietly(socket_->descriptor);
    }

private:
    bool begin(Result<void>& result) {
        if (failure_) {
            result.error = failure_;
        } else if (!socket_->descriptor.is_open()) {
            result.error = error_of("this connection was closed, or moved to somebody else");
        } else if (!socket_->writable) {
            result.error = error_of("this end of a one-way pipe can only receive: send from the other end");
        } else if (socket_->sending) {
            result.error = error_of("this connection is sending already: await the end of one message before the next");
        } else {
            socket_->sending = began_ = true;
        }
        return began_;
    }

    std::shared_ptr<Socket<Executor>> socket_;
    std::shared_ptr<FrameWriter> writer_;
    std::exception_ptr failure_;
    bool began_ = false;
};

/// Bytes as they came, in place of a value.
struct RawBytes {};

template <class T, class Executor>
class ReceiveWork {
public:
    static constexpr bool kRaw = std::is_same_v<T, RawBytes>;
    using Value = std::conditional_t<kRaw, std::vector<std::byte>, T>;
    static constexpr auto kWait = net::posix::descriptor_base::wait_read;

    explicit ReceiveWork(std::shared_ptr<Socket<Executor>> socket)
        : socket_(std::move(socket)),
          reader_(std::make_shared<FrameReader>(socket_->python && !kRaw ? multihull::detail::longest_python_message()
                                                                         : std::numeric_limits<std::size_t>::max())) {}

    auto& descriptor() const noexcept { return socket_->descriptor; }
    bool go_on(Result<Value>& result) {
        if (!began_ && !begin(result)) return true;
        if (!reader_->go_on(socket_->descriptor.native_handle())) return false;
        auto& message = reader_->message();
        if constexpr (kRaw) {
            result.value.emplace(message.bytes().begin(), message.bytes().end());
        } else if (socket_->python) {
            result.value.emplace(multihull::detail::from_python<T>([&] {
                return multihull::detail::read_python(message);
            }));
        } else {
            result.value.emplace(multihull::detail::decode_message<T>(message));
        }
        return true;
    }
    void finish() {
        if (!began_) return;
        socket_->receiving = false;
        if (reader_->in_message()) close_quietly(socket_->descriptor);
    }

private:
    bool begin(Result<Value>& result) {
        if (!socket_->descriptor.is_open()) {
            result.error = error_of("this connection was closed, or moved to somebody else");
        } else if (!socket_->readable) {
            result.error = error_of("this end of a one-way pipe can only send: receive at the other end");
        } else if (socket_->receiving) {
            result.error =
                error_of("this connection is receiving already: await the end of one message before the next");
        } else {
            socket_->receiving = began_ = true;
        }
        return began_;
    }

    std::shared_ptr<Socket<Executor>> socket_;
    std::shared_ptr<FrameReader> reader_;
    bool began_ = false;
};

}    // namespace detail

/// One end of a two-way stream of messages, in an event loop. Made of a multihull::Connection, which it takes over; what it sends is received by
/// any other Connection, and the other way round.
template <class Executor = net::any_io_executor>
class BasicConnection {
public:
    using executor_type = Executor;
    template <class Other>
    struct rebind_executor {
        using other = BasicConnection<Other>;
    };

    /// None: every operation fails.
    BasicConnection() = default;
    /// Throws Error for a closed one. One in Python mode (Connection::set_python) stays in it.
    BasicConnection(const Executor& executor, multihull::Connection connection) {
        const bool readable = connection.readable();
        const bool writable = connection.writable();
        const bool python = connection.python();
        socket_ = std::make_shared<detail::Socket<Executor>>(executor);
        detail::assign(socket_->descriptor, detail::take_socket(connection));
        socket_->readable = readable;
        socket_->writable = writable;
        socket_->python = python;
    }
    template <std::derived_from<net::execution_context> Context>
    BasicConnection(Context& context, multihull::Connection connection)
        : BasicConnection(Executor(context.get_executor()), std::move(connection)) {}
    BasicConnection(BasicConnection&&) noexcept = default;
    BasicConnection& operator=(BasicConnection&& other) noexcept {
        if (this != &other) close();
        socket_ = std::move(other.socket_);
        return *this;
    }
    ~BasicConnection() { close(); }

    executor_type get_executor() const { return socket().descriptor.get_executor(); }

    /// Sends a value, as Connection::send does; the handler gets `(std::exception_ptr)`. The value is encoded before the call returns.
    template <class T, class Token>
    auto async_send(T&& value, Token&& token) {
        auto writer = std::make_shared<detail::FrameWriter>();
        std::exception_ptr failure;
        try {
            encode(writer->message(), std::forward<T>(value));
        } catch (...) {
            failure = std::current_exception();
        }
        return start_sending(std::move(writer), std::move(failure), token);
    }
    /// Sends bytes as one message, which Python's recv_bytes() gets.
    template <class Token>
    auto async_send_bytes(std::span<const std::byte> bytes, Token&& token) {
        auto writer = std::make_shared<detail::FrameWriter>();
        writer->message().writer().write(bytes.data(), bytes.size());
        return start_sending(std::move(writer), nullptr, token);
    }
    template <class Token>
    auto async_send_bytes(std::string_view bytes, Token&& token) {
        return async_send_bytes(std::as_bytes(std::span(bytes)), std::forward<Token>(token));
    }

    /// Receives a value, as Connection::recv does; the handler gets `(std::exception_ptr, T)`: EndOfFile when the other end is closed, CodecError when what came is no T.
    template <class T, class Token>
    auto async_recv(Token&& token) {
        return start<detail::ReceiveWork<T, Executor>>(token, socket_ptr());
    }
    /// Receives the bytes of a message; the handler gets `(std::exception_ptr, std::vector<std::byte>)`.
    template <class Token>
    auto async_recv_bytes(Token&& token) {
        return start<detail::ReceiveWork<detail::RawBytes, Executor>>(token, socket_ptr());
    }

    /// Operations that wait end with Error.
    void close() noexcept {
        if (socket_) detail::close_quietly(socket_->descriptor);
    }
    bool closed() const noexcept { return !socket_ || !socket_->descriptor.is_open(); }

private:
    detail::Socket<Executor>& socket() const { return *socket_ptr(); }
    const std::shared_ptr<detail::Socket<Executor>>& socket_ptr() const {
        if (!socket_) throw Error("this connection was moved from, or never was one");
        return socket_;
    }
    template <class T>
    void encode(multihull::detail::OutgoingMessage& message, T&& value) const {
        if (socket().python) {
            multihull::detail::to_python(std::forward<T>(value), [&](const Object& object) {
                multihull::detail::write_python(message, object);
            });
        } else {
            multihull::detail::encode_message(message, std::forward<T>(value));
        }
    }
    template <class Token>
    auto start_sending(std::shared_ptr<detail::FrameWriter> writer, std::exception_ptr failure, Token& token) {
        return start<detail::SendWork<Executor>>(token, socket_ptr(), std::move(writer), std::move(failure));
    }
    template <class Work, class Token, class... Args>
    auto start(Token& token, Args&&... args) {
        return net::async_compose<Token, detail::Signature<typename Work::Value>>(
            detail::ReadyOperation<Work>(Work(std::forward<Args>(args)...)), token, socket().descriptor);
    }

    std::shared_ptr<detail::Socket<Executor>> socket_;
};
using Connection = BasicConnection<>;

}    // namespace multihull::asio
