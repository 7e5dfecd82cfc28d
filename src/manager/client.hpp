// A manager's server as this process knows it: the connections to it, and the references that this process holds there.
//
// Thread-safe. Each thread calls over a connection of its own, so that one that waits in a lock or a queue holds up no other; a
// forked child closes what it inherits and connects anew. See "The client" in README.md.
//
// Invariants
// (1) A connection is used by one thread at a time: a thread's own by that thread, the session's under session_mutex_.
// (2) Every reply is the answer to the request before it: a connection on which an exchange did not end whole is closed.
// (3) The lists of connections are changed under the one lock that is held over a fork, and never during an exchange.
#pragma once

#include "manager/mailbox.hpp"

#include <multihull/connection.hpp>
#include <multihull/object.hpp>

#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <list>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace multihull::detail {

/// The lock over what this process knows of managers; held over a fork, so that a child finds it free and everything whole.
std::mutex& managers_mutex() noexcept;

/// What the server answered: `#RETURN`, `#ERROR`, ..., and the value.
struct ManagerReply {
    std::string kind;
    Object value;
};

/// One connection to a server.
class ManagerLink {
public:
    explicit ManagerLink(Connection connection) : connection_(std::move(connection)) {}

    /// Sends a request, a pickle, and waits for its reply. Throws EndOfFile or Error where the connection broke; it is closed then.
    ManagerReply exchange(std::string_view request);
    /// Says that the server is one that may have a mailbox for it.
    void wants_mailbox() noexcept { asks_left_ = kAsksBeforeMailbox; }
    bool closed() const noexcept { return connection_.closed(); }
    /// In a forked child: the connection is its parent's.
    void abandon() noexcept { connection_.close(); }

private:
    static constexpr int kAsksBeforeMailbox = 8;

    ManagerReply receive_reply();
    std::size_t receive(std::size_t have);
    void ask_for_mailbox();
    ManagerReply exchange_by_mailbox(std::string_view request);
    bool look_for_answer();

    Connection connection_;
    std::optional<ClientMailbox> mailbox_;
    int asks_left_ = -1;    // until it asks for a mailbox
    std::vector<std::byte> in_;
    std::int64_t asked_at_ = 0;
    int late_replies_ = 0;    // in a row: while they come late nobody waits awake for them
};

class ManagerClient : public std::enable_shared_from_this<ManagerClient> {
public:
    /// The client of the server at that address. Connects when it is first used.
    static std::shared_ptr<ManagerClient> of(const std::string& address, const std::string& authkey);
    /// The key of a server that this process knows; empty for others.
    static std::optional<std::string> known_key(const std::string& address);

    ManagerClient(std::string address, std::string authkey);
    ManagerClient(const ManagerClient&) = delete;
    ManagerClient& operator=(const ManagerClient&) = delete;
    ~ManagerClient();

    const std::string& address() const noexcept { return address_; }
    const std::string& authkey() const noexcept { return authkey_; }
    /// Whether this process made it, and not one that it was forked from.
    bool is_ours() const noexcept;

    /// Whether the server is ours, which does more than Python's. Connects where that is not known yet.
    bool is_multihull();
    /// Calls a method of a referent and waits for its reply. Throws ManagerGone where the server can't be reached.
    ManagerReply call(std::string_view ident, std::string_view method, Object args, Object kwargs);
    /// Calls the server itself: create, incref, decref, ...
    Object control(std::string_view method, Object args, Object kwargs = Object::dict());
    /// The same over this thread's connection to a server of ours, for what was counted there.
    void give_back(const std::string& ident);
    /// The same over a connection of its own, for what must not wait behind other calls.
    Object control_once(std::string_view method, Object args, Object kwargs = Object::dict());

    /// Asks the server to end, for at most that long. Throws Error where it can't be asked.
    void shut_down(std::chrono::nanoseconds timeout) const;

    /// Drops the connection of a thread that ends.
    void forget(const ManagerLink* link) noexcept;

private:
    friend void manager_clients_after_fork() noexcept;
    enum class Server { unknown, python, multihull };

    Connection connect() const;
    std::unique_ptr<ManagerLink> open_link();
    ManagerLink& own_link();
    ManagerReply exchange(ManagerLink& link, std::string_view request) const;
    ManagerReply exchange_here(std::string_view request);

    const std::string address_;
    const std::string authkey_;
    const std::uint64_t id_;
    const std::uint32_t generation_;
    std::atomic<Server> server_{Server::unknown};
    std::list<std::unique_ptr<ManagerLink>> links_;    // one per thread
    std::mutex session_mutex_;
    std::unique_ptr<ManagerLink> session_;    // holds this process's references, at a server of ours
};

/// What a reply says: its value, or the exception that it holds, thrown; ObjectGone where it says that there is no object of that name.
Object returned(ManagerReply reply, std::string_view ident = {});

[[noreturn]] void throw_manager_gone(const std::string& address, const char* why);

}    // namespace multihull::detail
