// One thread of a server: waits for events of its connections, and serves them.
//
// Everything but post(), resume(), stop(), load() and busy_clients() is for the loop's own thread.
//
// Invariants
// (1) A connection is in connections_ from when it is adopted until it has ended. Events of one that is not there mean nothing.
// (2) timers_ holds each connection's deadline, where it has one, once.
#pragma once

#include "manager/mailbox.hpp"
#include "manager/server_connection.hpp"
#include "manager/server_session.hpp"
#include "os/fd.hpp"

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <set>
#include <span>
#include <string>
#include <thread>
#include <unordered_map>
#include <utility>
#include <vector>

struct epoll_event;

namespace multihull::detail {

/// What a loop needs of its server. Thread-safe.
class LoopHost {
public:
    virtual ~LoopHost() = default;
    /// The process at the other end of a connection; null where it can't be told.
    virtual std::shared_ptr<ClientProcess> process_behind(int socket) = 0;
    /// What the server watches besides connections, on its first loop: `tag` is what it gave to watch().
    virtual void on_event(std::uint64_t tag) = 0;
    /// How many clients of all loops were served in that window of time or the one before.
    virtual std::size_t busy_clients(std::int64_t window) const noexcept = 0;
    /// Now and then, on that loop, too.
    virtual void on_tick() = 0;
};

class ServerLoop {
public:
    /// `ticks`: calls on_tick() now and then.
    ServerLoop(LoopHost& host, std::shared_ptr<ServerCore> core, std::string authkey, std::int64_t handshake_timeout,
               bool ticks);
    ServerLoop(const ServerLoop&) = delete;
    ServerLoop& operator=(const ServerLoop&) = delete;
    ~ServerLoop();

    /// Until stop(); ends all connections.
    void run();
    void stop() noexcept;
    /// Has the function called on the loop's thread.
    void post(std::function<void()> function);
    /// Has a connection go on reading.
    void resume(std::uint64_t connection) noexcept;
    /// How many connections it has, or is about to have.
    std::size_t load() const noexcept { return load_.load(std::memory_order_relaxed); }

    /// How many of its clients were served in that window of time or the one before.
    std::size_t busy_clients(std::int64_t window) const noexcept;

    /// Takes a client in, from any thread.
    void adopt(std::uint64_t number, FileDescriptor socket);
    /// Watches a descriptor that is no connection's, from any thread. Throws std::system_error.
    void watch(int fd, std::uint64_t tag);

    // For its connections.
    const std::shared_ptr<ServerCore>& core() const noexcept { return core_; }
    bool on_own_thread() const noexcept {
        return thread_.load(std::memory_order_relaxed) == std::this_thread::get_id();
    }
    std::span<std::byte> buffer() noexcept { return buffer_; }
    LoopMailboxes& mailboxes() noexcept { return mailboxes_; }
    void move_timer(std::uint64_t connection, std::int64_t from, std::int64_t to);
    void hands_shaken(std::uint64_t connection) { shaking_.erase(connection); }
    /// The window of time by which busy clients are counted, and one more in it.
    std::int64_t window() const noexcept { return window_; }
    void count_served() noexcept;
    void turn_away(int socket, const char* why) const;
    void forget(std::uint64_t connection);
    std::shared_ptr<ClientProcess> process_behind(int socket) { return host_.process_behind(socket); }

private:
    void take_in(std::uint64_t number, FileDescriptor socket);
    int wait(std::span<::epoll_event> events);
    std::optional<int> wait_awake(std::span<::epoll_event> events, std::int64_t& now);
    void serve_mailboxes();
    void enter_window(std::int64_t now_ns);
    void publish_busy() noexcept;
    void run_posted();
    void run_timers();

    LoopHost& host_;
    const std::shared_ptr<ServerCore> core_;
    const std::string authkey_;
    const std::int64_t handshake_timeout_;
    os::Fd epoll_;
    os::Fd wake_;
    std::atomic<bool> stopping_{false};
    std::atomic<std::size_t> load_{0};
    std::atomic<std::thread::id> thread_{};
    std::vector<std::byte> buffer_;
    std::unordered_map<std::uint64_t, std::shared_ptr<ServerConnection>> connections_;
    std::set<std::uint64_t> shaking_;    // those that have not proved that they know the key, oldest first
    std::set<std::pair<std::int64_t, std::uint64_t>> timers_;
    LoopMailboxes mailboxes_;
    std::int64_t last_look_ = 0;    // at the sockets
    std::int64_t next_tick_;
    std::int64_t awake_ns_ = 0;    // how long to wait awake before sleeping
    std::int64_t asleep_until_ = 0;
    std::int64_t window_ = 0;
    std::size_t served_now_ = 0;    // clients, in this window and in the one before
    std::size_t served_before_ = 0;
    std::atomic<std::uint64_t> busy_{0};    // the greater of them, behind the window

    std::mutex posted_mutex_;
    std::vector<std::function<void()>> posted_;
    std::vector<std::uint64_t> resumed_;
};

}    // namespace multihull::detail
