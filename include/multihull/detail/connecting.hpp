// A connection on its way to a Listener: what Client() does, step by step, for those who must not wait.
#pragma once

#include <multihull/connection.hpp>

#include <memory>
#include <optional>
#include <string_view>

namespace multihull::detail {

/// Used by one thread at a time. One that is dropped before its end has left nothing behind but a client that went away.
class Connecting {
public:
    /// Begins to look up the name of a host, in a thread of its own, where the address has one. Throws Error when it means nothing.
    Connecting(std::string_view address, ClientOptions options);
    Connecting(Connecting&&) noexcept;
    Connecting& operator=(Connecting&&) noexcept;
    ~Connecting();

    /// Goes on as far as it can without waiting; the connection when it is made. Throws as Client(), and nothing can be done with it then.
    std::optional<Connection> go_on();
    /// Readable when go_on() has something to do, if only to say that its time is over. The same one until the end, from the first go_on()
    /// that has answered nothing.
    int fileno() const;

private:
    struct State;
    std::unique_ptr<State> state_;
};

}    // namespace multihull::detail
