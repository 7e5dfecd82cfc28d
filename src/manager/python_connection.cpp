// A Connection's Python mode. It lies here because Objects and pickles do; frames and sockets are src/channel's.
#include "manager/pickle.hpp"

#include <multihull/connection.hpp>

namespace multihull {

namespace detail {

void throw_no_python_value() {
    throw Error(
        "this connection is in Python mode, where values are Objects, or bool, numbers and texts: make an Object of "
        "the value, or use "
        "send_bytes() and recv_bytes()");
}

void write_python(OutgoingMessage& message, const Object& object) {
    const auto bytes = pickle(object);
    message.writer().write(bytes.data(), bytes.size());
}

Object read_python(const IncomingMessage& message) {
    return unpickle(message.bytes(), PickleGlobals::of_client(), PickleLimits{});
}

std::size_t longest_python_message() noexcept { return PickleLimits{}.bytes; }

}    // namespace detail

void Connection::send_object(const Object& object) { send_bytes(detail::pickle(object)); }

Object Connection::receive_object() {
    const std::int64_t until = deadline();
    const auto size = static_cast<std::size_t>(receive_length_up_to(detail::longest_python_message(), until));
    detail::IncomingMessage message;
    receive_rest(message, size, until);
    return detail::read_python(message);
}

}    // namespace multihull
