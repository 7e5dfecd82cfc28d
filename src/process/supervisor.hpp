// The one thread of a program that watches what it started: descriptors that become readable, and deadlines.
//
// Thread-safe. One per process, made on first use, idle (no wake-ups) while nothing happens, never joined: it holds only what
// lives until the process ends. A forked child has none until it needs one of its own.
//
// Invariants
// (1) on_readable() and tick() are called by the supervisor's thread only, with no lock of the supervisor held.
// (2) After unwatch() returned, no new call for that descriptor begins; one in progress may still end (objects are shared).
#pragma once

#include "os/fd.hpp"

#include <cstdint>
#include <memory>
#include <mutex>
#include <unordered_map>
#include <vector>

namespace multihull::detail {

/// Something that the supervisor looks after.
class Supervised {
public:
    virtual ~Supervised() = default;
    /// A watched descriptor is readable or has ended.
    virtual void on_readable(int fd) = 0;
    /// Called after every event and at the time it asked for; answers when it wants to be called again (monotonic ns).
    virtual std::int64_t tick(std::int64_t now_ns) = 0;
};

class Supervisor {
public:
    static Supervisor& instance();
    static void after_fork() noexcept;

    void watch(int fd, std::shared_ptr<Supervised> object);
    void unwatch(int fd) noexcept;
    /// Has tick() called from now on.
    void add(std::shared_ptr<Supervised> object);
    void remove(const Supervised* object) noexcept;
    /// Has every tick() called soon, for instance because a deadline moved nearer.
    void wake() noexcept;
    bool is_this_thread() const noexcept;

private:
    Supervisor();
    void run();

    os::Fd epoll_;
    os::Fd wake_;
    std::mutex mutex_;
    std::uint64_t next_id_ = 1;
    std::unordered_map<std::uint64_t, std::pair<int, std::shared_ptr<Supervised>>> watches_;
    std::unordered_map<int, std::uint64_t> ids_;
    std::vector<std::shared_ptr<Supervised>> ticking_;
    std::uint64_t thread_ = 0;
};

}    // namespace multihull::detail
