// Messages between two processes, over a socket: values of any type that travels, or bytes.
//
// Bytes are framed as CPython's multiprocessing.connection frames them, so its send_bytes() and recv_bytes() can be at the other end; and
// with the option `python` values are Python's pickles, so that its send() and recv() can.
//
// A Connection is not thread-safe, but one thread may send while another receives. It belongs to the process that holds it; moved
// into another process (see Codec<FileDescriptor>), it is closed here.
//
// Invariants
// (1) A message arrives whole or not at all: what is left of a stream that was cut in the middle of one is never read as another.
// (2) No length that the other side names is trusted: memory grows as bytes come.
// (3) A dead other side is an EndOfFile, never a signal.
#pragma once

#include <multihull/detail/codec_parameters.hpp>
#include <multihull/detail/message.hpp>
#include <multihull/error.hpp>
#include <multihull/object.hpp>

#include <chrono>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace multihull {

/// The other end of a connection is closed, or its process is dead.
class EndOfFile : public Error {
public:
    using Error::Error;
};

/// A message was longer than the memory that was to take it. The message is not lost: it is in here.
class BufferTooShort : public Error {
public:
    BufferTooShort(const std::string& sentence, std::vector<std::byte> message);
    const std::vector<std::byte>& message() const noexcept { return *message_; }

private:
    std::shared_ptr<const std::vector<std::byte>> message_;
};

/// The other side does not know the key.
class AuthenticationError : public Error {
public:
    using Error::Error;
};

namespace detail {

/// What an Object can be used as: what recv<T>() gives in Python mode.
template <class T>
concept PythonValue = std::same_as<T, Object> || std::same_as<T, bool> || ObjectInteger<T> || std::floating_point<T> ||
                      std::same_as<T, std::string>;

[[noreturn]] void throw_no_python_value();
/// Writes an object into a message, as Python's pickle.
void write_python(OutgoingMessage& message, const Object& object);
Object read_python(const IncomingMessage& message);
/// In bytes: none that is longer is received.
std::size_t longest_python_message() noexcept;

/// Gives the Object that a value is, or becomes, to `use`. Throws Error where it can't become one.
template <class T, class Use>
void to_python(T&& value, Use use) {
    if constexpr (std::convertible_to<T&&, const Object&>) {
        use(std::forward<T>(value));
    } else {
        throw_no_python_value();
    }
}

/// The T that the Object is which `get` answers. Throws TypeError when it is none.
template <class T, class Get>
T from_python(Get get) {
    if constexpr (PythonValue<T>) {
        Object object = get();
        if constexpr (std::same_as<T, Object>) {
            return object;
        } else {
            return object.template as<T>();
        }
    } else {
        throw_no_python_value();
    }
}

/// Writes a value into a message; one that can only be moved is moved into it.
template <class T>
void encode_message(OutgoingMessage& message, T&& value) {
    using V = Holder<T>;
    require_travels<V>();
    if constexpr (Travels<V>) {
        if constexpr (!std::is_same_v<V, std::remove_cvref_t<T>>) {
            encode(message.writer(), static_cast<const V&>(V(value)));
        } else if constexpr (std::is_lvalue_reference_v<T>) {
            encode(message.writer(), std::as_const(value));
        } else {
            encode(message.writer(), value);
        }
    }
}

/// The value of a message. Throws CodecError when it is no T.
template <class T>
T decode_message(IncomingMessage& message) {
    Reader reader(message.bytes(), &message.descriptors());
    T value = decode<T>(reader);
    reader.expect_end();
    return value;
}

}    // namespace detail

/// One end of a two-way stream of messages.
///
/// Every send and recv throws EndOfFile when the other end is closed, Error when this one is, and WaitTimeout where set_timeout() set
/// a limit. A connection on which a message was cut short (by a time-out, say) is closed.
class Connection {
public:
    /// A closed one.
    Connection() = default;
    /// Takes over a stream socket. Throws Error for anything else.
    explicit Connection(FileDescriptor socket, bool readable = true, bool writable = true);

    /// Sends a value. It may wait until the other side has read enough of what was sent before. In Python mode the value is an Object, or
    /// becomes one (throws Error where it can't); throws PicklingError for what Python has no counterpart of.
    template <class T>
    void send(T&& value) {
        using V = detail::Holder<T>;
        detail::require_travels<V>();
        if constexpr (Travels<V>) {
            if (python_) {
                return detail::to_python(std::forward<T>(value), [this](const Object& object) { send_object(object); });
            }
            detail::OutgoingMessage message;
            detail::encode_message(message, std::forward<T>(value));
            send_message(message);
        }
    }
    /// Waits for a value. Throws CodecError when what was sent is not a T; the connection stays. In Python mode T is Object, or bool, a number
    /// or std::string (throws TypeError when it is something else); throws UnpicklingError for what is neither plain data nor one of
    /// the classes that multiprocessing sends, and names it.
    template <class T>
    T recv() {
        if (python_) {
            return detail::from_python<T>([this] { return receive_object(); });
        }
        detail::IncomingMessage message;
        receive_message(message);
        return detail::decode_message<T>(message);
    }

    /// Sends bytes as one message.
    void send_bytes(std::span<const std::byte> bytes);
    void send_bytes(std::string_view bytes) { send_bytes(std::as_bytes(std::span(bytes))); }
    /// Waits for a message. One of more than `max` bytes throws Error and closes the connection.
    std::vector<std::byte> recv_bytes(std::size_t max = std::numeric_limits<std::size_t>::max());
    /// Waits for a message, puts it into `room` and answers its size. Throws BufferTooShort, which holds it, when it does not fit.
    std::size_t recv_bytes_into(std::span<std::byte> room);

    /// Whether there is something to receive (or the end of file) by then.
    bool poll(std::chrono::nanoseconds timeout = std::chrono::nanoseconds::zero()) const;

    /// Limits each send and each recv from now on, from its beginning to its end; 0 for no limit. WaitTimeout closes the connection if
    /// part of a message had gone or come.
    void set_timeout(std::chrono::nanoseconds timeout) noexcept { timeout_ = timeout; }

    /// Whether values are Python's pickles from now on, rather than the codec's bytes: the other end must do the same. Python mode is
    /// kept when the connection is moved to another process.
    void set_python(bool python) noexcept { python_ = python; }
    bool python() const noexcept { return python_; }

    void close() noexcept { socket_.close(); }
    bool closed() const noexcept { return !socket_; }
    /// The socket, for poll() and the like. Throws Error when the connection is closed.
    int fileno() const;
    bool readable() const noexcept { return readable_; }
    bool writable() const noexcept { return writable_; }

private:
    friend struct Codec<Connection>;

    void send_message(detail::OutgoingMessage& message);
    void receive_message(detail::IncomingMessage& message);
    void receive_rest(detail::IncomingMessage& message, std::size_t size, std::int64_t deadline);
    void send_object(const Object& object);
    Object receive_object();
    std::uint64_t receive_length_up_to(std::size_t max, std::int64_t deadline);
    std::int64_t deadline() const noexcept;
    int for_sending() const;
    int for_receiving() const;
    void send_frame(std::span<const std::byte> bytes, std::vector<FileDescriptor>* descriptors);
    std::uint64_t receive_length(std::int64_t deadline, std::vector<FileDescriptor>* descriptors);
    void receive_body(std::span<std::byte> room, std::int64_t deadline);
    template <class Room>
    void receive_growing(std::uint64_t length, std::int64_t deadline, Room room);

    FileDescriptor socket_;
    std::chrono::nanoseconds timeout_{0};
    bool readable_ = false;
    bool writable_ = false;
    bool unix_ = false;    // descriptors can travel
    bool python_ = false;
};

template <>
struct Codec<Connection> {
    static void encode(detail::Writer& writer, Connection& connection);
    template <class T>
    static void encode(detail::Writer&, const T&) {
        static_assert(!sizeof(T),
                      "multihull: a Connection can only be moved: send it by std::move, from what is not const");
    }
    static Connection decode(detail::Reader& reader);
};

/// Settings of a Listener.
struct ListenerOptions {
    std::optional<std::string>
        authkey{};        ///< Who connects must prove to know it, and is told that we do; none where empty.
    int backlog = 128;    ///< Connections that may wait for accept().
    std::chrono::nanoseconds handshake_timeout =
        std::chrono::seconds(10);    ///< For a client to prove that it knows the key.
    bool python = false;             ///< Values are Python's pickles: for clients in Python (Connection::set_python).
};

/// Waits for connections at an address.
///
/// Addresses are `/a/path` (a unix socket), `@name` (a unix socket without a file; `\0name` means the same), `host:port` and
/// `[::1]:port` (TCP; port 0 lets the system choose), or nothing at all for a unix socket of a random name. Python's
/// multiprocessing.connection.Client can connect, with and without a key, in every version, and send and receive values if `python` is
/// set.
///
/// Used by one thread at a time. Belongs to the process that made it: a forked child's copy does not remove the path.
class Listener {
public:
    /// Throws Error when the address can't be used: it says why.
    explicit Listener(std::string_view address = {}, ListenerOptions options = {});
    Listener(Listener&&) noexcept;
    Listener& operator=(Listener&&) noexcept;
    ~Listener();

    /// Waits for the next connection. Those who fail to prove that they know the key, or say nothing, are dropped without holding up
    /// the others, and the log says so. Throws Error when the listener is closed or the system has no descriptors left.
    Connection accept();
    /// The same for at most `timeout`; empty when nobody came.
    std::optional<Connection> try_accept(std::chrono::nanoseconds timeout);

    /// Where it listens, to be given to Client(): with the port that the system chose.
    const std::string& address() const;
    /// Where the last accepted connection came from; empty where it came from a socket without an address.
    std::string last_accepted() const;
    /// Stops listening, and removes the path of a unix socket. The connections that were accepted stay.
    void close() noexcept;
    bool closed() const noexcept { return state_ == nullptr; }
    /// The listening socket, readable when somebody has come. Throws Error when the listener is closed.
    int fileno() const;
    /// Another descriptor, for multihull::asio: readable when try_accept() has something to do, be it that a client has come or that one has
    /// answered for the key. Throws Error as fileno(), or when the system has no descriptors left.
    int wait_descriptor();

private:
    struct State;
    State& state() const;
    std::unique_ptr<State> state_;
};

/// Settings of Client().
struct ClientOptions {
    std::optional<std::string> authkey{};    ///< As the Listener has it; none where empty.
    std::chrono::nanoseconds timeout =
        std::chrono::seconds(30);    ///< To find the host, to connect, and to prove that both know the key.
    bool python = false;             ///< Values are Python's pickles: for a Listener in Python.
};

/// Connects to a Listener, ours or Python's. Throws Error when nobody listens there, AuthenticationError when the keys differ,
/// WaitTimeout.
// NOLINTNEXTLINE(readability-identifier-naming): as Python has it
Connection Client(std::string_view address, const ClientOptions& options = {});

}    // namespace multihull
