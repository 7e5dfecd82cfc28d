// The zygote: a single-threaded process that forks others on request, reaps them and tells how they ended.
//
// A pool's workers, first ones and replacements alike, are forked here and never from the program, whose threads may hold any
// lock. See README.md for the protocol and what follows when either side dies.
#pragma once

#include "os/fd.hpp"
#include "os/message.hpp"
#include "process/supervisor.hpp"

#include <multihull/detail/token.hpp>
#include <multihull/process.hpp>

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <memory>
#include <mutex>
#include <sys/types.h>
#include <unordered_map>
#include <vector>

namespace multihull::detail {

/// A request to the zygote. Fixed size, sent as one message with the descriptors for the child beside it.
struct ZygoteRequest {
    enum class Kind : std::uint32_t {
        fork_child,          ///< Fork a process that runs `entry`.
        end_child,           ///< Kill the child `id`, if it lives.
        leave_when_empty,    ///< End when the last child has ended.
        leave_now,           ///< Kill the children, reap them, end.
    };
    Kind kind = Kind::fork_child;
    std::uint32_t parent_pid = 0;    ///< The process that asks: the child's logical parent.
    std::uint64_t id = 0;            ///< Names the child in the answers.
    std::int32_t server = 0;         ///< The zygote that is to fork: a twin leaves alone what its elder was asked for.
    std::uint32_t streams =
        0;              ///< 1: the child's stdout comes along; 2: its stderr. In this order, before all others.
    Token entry = 0;    ///< A ChildEntry.
    std::uint64_t words[5] = {};    ///< For the entry.
};

/// How many descriptors a child can be given: its stdout and stderr come along.
inline constexpr std::size_t kMaxChildFds = os::kMaxDescriptorsBeside - 2;

/// What a forked child runs, with stdin at /dev/null, the parent's present stdout and stderr, and default signal settings; it
/// must end by leave_child().
using ChildEntry = void (*)(const ZygoteRequest&, std::vector<os::Fd>&);

struct ZygoteReply {
    enum class Kind : std::uint32_t {
        born,
        not_born,
        died,
        twin,    ///< A twin stands by; its pidfd comes along.
    };
    Kind kind = Kind::born;
    std::int32_t pid = 0;
    std::int32_t code = 0;    ///< died: exit code, or minus the signal; not_born: errno.
    std::uint64_t id = 0;
};

/// Serves requests until asked to leave or until `parent` (a pidfd) ends. Runs in a process with one thread.
[[noreturn]] void run_zygote(os::Fd socket, os::Fd parent);

/// Told about one child; called by the supervisor's thread.
class ChildListener {
public:
    virtual ~ChildListener() = default;
    virtual void on_born(pid_t pid, os::Fd pidfd) = 0;
    virtual void on_not_born(int error) = 0;
    virtual void on_died(int code) = 0;
};

/// The parent's side of a zygote.
class Zygote final : public Supervised, public std::enable_shared_from_this<Zygote> {
public:
    /// Forks a zygote from the calling thread: a snapshot of the program as it is now.
    static std::shared_ptr<Zygote> fork_snapshot();
    /// Starts the program anew as a zygote. Throws StartError where init() has not run.
    static std::shared_ptr<Zygote> spawn();
    /// The forkserver that init() started; empty where there is none (or in a forked child).
    static std::shared_ptr<Zygote> forkserver();
    static void start_forkserver();

    Zygote(pid_t pid, os::Fd socket, os::Fd pidfd);
    ~Zygote() override;

    /// Whether this process has a forkserver, dead or alive. Never starts one.
    static bool has_forkserver() noexcept;

    /// Has a process forked, whose stdout and stderr are this process's present ones. The listener hears of it later, from the
    /// supervisor's thread.
    void fork_child(Token entry, std::span<const std::uint64_t> words, std::span<const int> fds,
                    std::shared_ptr<ChildListener> listener);
    /// Lets it end when its last child has ended.
    void leave_when_empty();
    /// Ends it and all its children now.
    void leave_now();
    /// Whether it can still fork.
    bool alive() const noexcept;
    /// Waits until the zygote has ended, and reaps it.
    void wait();
    /// The process that serves now; its twin's once that has taken over.
    pid_t pid() const noexcept;
    /// Whether a twin stands by to take over.
    bool has_twin() const noexcept;

    void on_readable(int fd) override;
    std::int64_t tick(std::int64_t now_ns) override;

private:
    struct Child {
        std::shared_ptr<ChildListener> listener;
        bool born = false;
    };

    static std::shared_ptr<Zygote> watched(pid_t pid, os::Fd socket);
    void begin_watching();
    bool send(const ZygoteRequest& request, std::span<const int> fds);
    bool send_fork(ZygoteRequest& request, std::span<const int> fds);
    void flush_locked();
    void read_replies();
    void handle(const ZygoteReply& reply, std::vector<os::Fd>& fds);
    void on_zygote_ended();

    pid_t pid_;
    const std::uint32_t generation_;
    os::Fd socket_;
    os::Fd pidfd_;
    pid_t twin_pid_ = 0;
    os::Fd twin_pidfd_;
    mutable std::mutex mutex_;
    std::condition_variable changed_;    // to `ended_`
    bool ended_ = false;
    bool leaving_ = false;
    std::uint64_t next_id_ = 1;
    std::unordered_map<std::uint64_t, Child> children_;
    struct Outgoing {
        ZygoteRequest request;
        std::vector<os::Fd> fds;
    };
    std::deque<Outgoing> outgoing_;    // requests that did not fit into the socket yet
};

}    // namespace multihull::detail
