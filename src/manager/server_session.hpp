// What one client says over one connection, and what it is answered: CPython's manager protocol, without the socket.
//
// Messages come from one thread, one at a time: the next one when the last one's answer is sent. Answers to parked calls, and what has
// the session wait, come from any.
//
// Invariants
// (1) Each message has exactly one answer, unless the connection ends before.
// (2) A session that has ended answers nothing, and holds nothing.
#pragma once

#include "manager/mailbox.hpp"
#include "manager/server_registry.hpp"

#include <multihull/detail/manager_type.hpp>

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <vector>

namespace multihull::detail {

/// A process that is a client, as far as the server can tell processes apart. Thread-safe.
class ClientProcess {
public:
    explicit ClientProcess(std::uint64_t number) : number_(number) {}

    std::uint64_t number() const noexcept { return number_; }
    bool ended() const noexcept { return ended_.load(std::memory_order_acquire); }
    void tell_end_to(const std::shared_ptr<Referent>& referent);
    /// Tells those who asked.
    void end();

private:
    const std::uint64_t number_;
    std::atomic<bool> ended_{false};
    std::mutex mutex_;
    std::map<Referent*, std::weak_ptr<Referent>> told_;
};

/// What the sessions of a server share. Parked calls may keep it alive beyond the server.
struct ServerCore {
    ManagerTypes types;
    Registry registry;
    std::string address;        // as Listener has it
    Object python_address{};    // the same as Python writes it
    std::size_t largest_message = 0;
    std::function<void()> stop;                             // asks the server to end
    std::function<void(std::function<void()>)> run_slow;    // runs a function on a thread that may wait
};

/// A connection as a session needs it. Thread-safe.
class Outlet {
public:
    virtual ~Outlet() = default;
    /// Answers the message that was read last.
    virtual void send(std::string answer) noexcept = 0;
    /// The connection is closed when everything is sent.
    virtual void close_when_sent() noexcept = 0;
    /// The connection is closed without an answer.
    virtual void drop() noexcept = 0;
    /// Has the function called at a time, in place of the one set before; kNever for none.
    virtual void set_timer(std::int64_t deadline, std::function<void()> function) = 0;
    /// Gives it a mailbox, of which its client knows from the answer; nothing where there is none for it. On the thread that brings messages.
    virtual std::optional<MailboxPlace> open_mailbox() { return std::nullopt; }
};

class Session final : public CallContext, public std::enable_shared_from_this<Session> {
public:
    /// Of a connection by its number. `process` is null where the server can't tell: the connection is then a process of its own.
    Session(std::shared_ptr<ServerCore> core, std::uint64_t connection, std::shared_ptr<ClientProcess> process,
            std::weak_ptr<Outlet> outlet);

    void on_message(std::span<const std::byte> message);
    /// The connection is closed.
    void on_end();

    const Caller& caller() const noexcept override { return caller_; }
    std::shared_ptr<ParkedCall> park(std::int64_t deadline, std::function<void()> expired) override;
    void tell_end_to(const std::shared_ptr<Referent>& referent) override;
    std::shared_ptr<Referent> referent_of(const Object& object) const override;
    const UpdateFunction* find_function(std::string_view name) const override;

private:
    class SessionCall;
    class SlowContext;

    void handle(Object request);
    void control(const std::string& method, std::vector<Object> args, Object kwargs);
    Object create(std::vector<Object> args, Object kwargs);
    Object open_mailbox(const Object& family);
    void decref(const std::string& ident);
    void call_method(const std::string& ident, std::string method, std::vector<Object> args, Object kwargs);
    void call_slowly(std::shared_ptr<const Kept> kept, std::string method, std::vector<Object> args, Object kwargs);
    std::shared_ptr<const Kept> find(const std::string& ident);
    void stash_proxies(const Object& object);
    void answer(std::string message);
    Owner owner() const noexcept;

    const std::shared_ptr<ServerCore> core_;
    const Caller caller_;
    const std::shared_ptr<ClientProcess> process_;
    const std::weak_ptr<Outlet> outlet_;
    bool accepted_ = false;    // by accept_connection
    bool creating_ = false;
    std::mutex told_mutex_;
    std::map<Referent*, std::weak_ptr<Referent>> told_;
    std::shared_ptr<SessionCall> parked_;
    std::shared_ptr<const Kept> last_;    // the referent of the last call, which is likely to be the next one's
    std::uint64_t last_removals_ = 0;
};

}    // namespace multihull::detail
