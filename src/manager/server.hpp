// A manager's server: keeps referents, and serves them to clients that speak CPython's manager protocol, ours and Python's.
//
// A few threads, each with an epoll of its own over its share of the connections; none per client. See README.md for the protocol.
//
// Thread-safe. Belongs to the process that made it: a forked child has none of its threads, and must not touch it.
//
// Invariants
// (1) Nothing of a client is looked at before it has proved that it knows the key.
// (2) A connection is read by one thread only. While a call of it is parked or an answer not sent whole, no other call is begun.
// (3) What a client that ended held is given back: locks, permits, references (see "Deaths" in README.md).
#pragma once

#include <multihull/detail/manager_type.hpp>

#include <chrono>
#include <cstddef>
#include <memory>
#include <string>

namespace multihull::detail {

struct ManagerServerOptions {
    std::string address{};    ///< A path, `@name` or `host:port` (port 0: any); empty: a random `@name`.
    std::string authkey{};    ///< What clients must know. Must not be empty.
    ManagerTypes types = ManagerTypes::sync_manager();
    std::size_t threads = 0;    ///< 0: one for every two processors, as clients need some, too; at most 8.
    std::chrono::nanoseconds handshake_timeout = std::chrono::seconds(30);
    std::size_t largest_message = std::size_t{1} << 30;    ///< Bytes. A client that sends a longer one is turned away.
};

class ManagerServer {
public:
    /// Listens from now on. Throws Error when nothing can listen there, or the key is empty.
    explicit ManagerServer(ManagerServerOptions options);
    ManagerServer(const ManagerServer&) = delete;
    ManagerServer& operator=(const ManagerServer&) = delete;
    /// Stops, and waits for its threads.
    ~ManagerServer();

    /// Where it listens, with the port that the system chose.
    const std::string& address() const;
    /// Serves until stop() is called or a client asks for a shutdown. Once only.
    void serve_forever();
    /// Ends serve_forever(). From any thread, any number of times; also from a signal handler.
    void stop() noexcept;

private:
    struct State;
    std::unique_ptr<State> state_;
};

}    // namespace multihull::detail
