// The zygote's own side: what runs in the zygote process.
#include "os/clock.hpp"
#include "os/fault.hpp"
#include "os/message.hpp"
#include "os/process.hpp"
#include "process/self.hpp"
#include "process/zygote.hpp"

#include <multihull/error.hpp>

#include <array>
#include <cerrno>
#include <csignal>
#include <deque>
#include <poll.h>
#include <sys/signalfd.h>
#include <unistd.h>
#include <unordered_map>

namespace multihull::detail {

namespace {

// How long nothing must happen before a twin is made: short-lived pools never pay for one.
constexpr int kIdleMs = 50;
constexpr pid_t kNoTwin = -1;

class ZygoteLoop {
public:
    ZygoteLoop(os::Fd socket, os::Fd parent) : socket_(std::move(socket)), parent_(std::move(parent)) {
        ::sigprocmask(SIG_SETMASK, nullptr, &original_mask_);
        sigset_t child;
        ::sigemptyset(&child);
        ::sigaddset(&child, SIGCHLD);
        ::sigprocmask(SIG_BLOCK, &child, nullptr);
        ::signal(SIGCHLD, SIG_DFL);
        // Ctrl-C and a polite end are the parent's to act on: when it goes, so does everything here. They are blocked, too: one that is
        // sent to a child which has not yet got its own ways back waits for that, instead of being ignored for ever.
        sigset_t polite;
        ::sigemptyset(&polite);
        for (const int signal : {SIGINT, SIGTERM, SIGHUP, SIGQUIT}) {
            ::sigaddset(&polite, signal);
            previous_[signal] = ::signal(signal, SIG_IGN);
        }
        ::sigprocmask(SIG_BLOCK, &polite, nullptr);
        signals_ = os::Fd(::signalfd(-1, &child, SFD_CLOEXEC | SFD_NONBLOCK));
        if (!signals_) ::_exit(1);    // the parent sees it end
        os::become_subreaper();
    }

    [[noreturn]] void run() {
        for (;;) {
            std::array<pollfd, 3> entries{
                {{socket_.get(), POLLIN, 0}, {parent_.get(), POLLIN, 0}, {signals_.get(), POLLIN, 0}}};
            if (!outgoing_.empty()) entries[0].events |= POLLOUT;
            const int ready = ::poll(entries.data(), entries.size(), twin_ == 0 ? kIdleMs : -1);
            if (ready == 0 && twin_ == 0) {
                fork_twin();
                continue;
            }
            if (entries[1].revents != 0) leave();
            if (entries[2].revents != 0) reap_children();
            send_pending();
            if (entries[0].revents & (POLLIN | POLLHUP | POLLERR)) serve();
            if (leave_when_empty_ && children_.empty() && outgoing_.empty()) leave();
        }
    }

private:
    void serve() {
        ZygoteRequest request;
        std::vector<os::Fd> fds;
        switch (os::receive_message(socket_, std::as_writable_bytes(std::span(&request, 1)), fds, false)) {
            case os::Received::would_block:
                return;
            case os::Received::gone:
                leave();
            case os::Received::yes:
                break;
        }
        os::kill_point(os::KillPoint::zygote_request);
        switch (request.kind) {
            case ZygoteRequest::Kind::leave_now:
                leave();
            case ZygoteRequest::Kind::leave_when_empty:
                leave_when_empty_ = true;
                return;
            case ZygoteRequest::Kind::end_child:
                for (const auto& [pid, child] : children_) {
                    if (child.id == request.id) ::kill(pid, SIGKILL);
                }
                return;
            case ZygoteRequest::Kind::fork_child:
                // What was asked of the one whose twin this is has been given up, and is asked for anew.
                if (request.server == ::getpid()) fork_child(request, fds);
                return;
        }
    }

    void fork_child(const ZygoteRequest& request, std::vector<os::Fd>& fds) {
        const pid_t self = ::getpid();
        const pid_t pid = os::fork_process();
        if (pid == 0) run_child(request, fds, self);
        if (pid < 0) {
            reply({ZygoteReply::Kind::not_born, 0, errno, request.id}, {});
            return;
        }
        os::kill_point(os::KillPoint::zygote_forked);
        Child& child = children_[pid] = {request.id, 0};
        try {
            reply({ZygoteReply::Kind::born, pid, 0, request.id}, os::open_pidfd(pid));
        } catch (const std::exception&) {
            // Without a pidfd the parent could not end the child safely: better none at all. The parent hears of it when it is dead,
            // because it may have begun its work.
            child.error = errno != 0 ? errno : EMFILE;
            ::kill(pid, SIGKILL);
        }
    }

    // The twin is the same snapshot, asleep. When this process is killed, the twin serves the socket in its place.
    void fork_twin() {
        try {
            const os::Fd self = os::open_pidfd(::getpid());
            const pid_t pid = os::fork_process();
            if (pid == 0) {
                stand_by(self);
                return;
            }
            twin_ = pid > 0 ? pid : kNoTwin;
            if (pid > 0) reply({ZygoteReply::Kind::twin, pid, 0, 0}, os::open_pidfd(pid));
        } catch (const std::exception&) {
            // The machine has no room for one: this process goes on without.
            if (twin_ > 0) ::kill(twin_, SIGKILL);
            twin_ = kNoTwin;
        }
    }

    // In the twin: returns when the process that made it has been killed.
    void stand_by(const os::Fd& original) {
        outgoing_.clear();
        children_.clear();
        for (;;) {
            std::array<pollfd, 2> entries{{{parent_.get(), POLLIN, 0}, {original.get(), POLLIN, 0}}};
            ::poll(entries.data(), entries.size(), -1);
            if (entries[0].revents != 0) ::_exit(0);
            if (entries[1].revents != 0) break;
        }
        os::become_subreaper();
        twin_ = 0;
    }

    [[noreturn]] void run_child(const ZygoteRequest& request, std::vector<os::Fd>& fds, pid_t zygote) {
        if (!os::die_with_parent(zygote)) ::_exit(1);
        // Closed by hand: `run` never returns, so nobody's destructors would.
        socket_.reset();
        parent_.reset();
        signals_.reset();
        outgoing_.clear();
        for (const auto& [signal, handler] : previous_) ::signal(signal, handler);
        ::sigprocmask(SIG_SETMASK, &original_mask_, nullptr);
        detach_stream(STDIN_FILENO);
        take_streams(request.streams, fds);
        try {
            reinterpret_cast<ChildEntry>(const_cast<void*>(code_of(request.entry)))(request, fds);
        } catch (const std::exception& error) {
            const std::string line = std::string("multihull: a process could not begin: ") + error.what() + "\n";
            os::write_all(STDERR_FILENO, line);
        }
        leave_child(1);
    }

    // Where the parent has none, the child's output goes nowhere. One that came not (no descriptor was left here) is the zygote's.
    static void take_streams(std::uint32_t streams, std::vector<os::Fd>& fds) {
        std::size_t taken = 0;
        for (const int stream : {STDOUT_FILENO, STDERR_FILENO}) {
            if ((streams >> (stream - STDOUT_FILENO) & 1) == 0) {
                detach_stream(stream);
            } else if (taken < fds.size()) {
                ::dup2(fds[taken++].get(), stream);
            }
        }
        fds.erase(fds.begin(), fds.begin() + static_cast<std::ptrdiff_t>(taken));
    }

    void reap_children() {
        signalfd_siginfo info;
        while (::read(signals_.get(), &info, sizeof info) > 0) {}
        bool lost_a_child = false;
        while (const auto status = os::reap_any()) {
            if (status->pid == twin_) twin_ = 0;
            const auto child = children_.find(status->pid);
            if (child == children_.end()) continue;    // the twin, or an orphan that ended
            os::kill_point(os::KillPoint::zygote_reaped);
            const auto [id, error] = child->second;
            if (error != 0) {
                reply({ZygoteReply::Kind::not_born, status->pid, error, id}, {});
            } else {
                reply({ZygoteReply::Kind::died, status->pid, status->code, id}, {});
            }
            children_.erase(child);
            lost_a_child = true;
        }
        // The children of a killed orphan come here in turn, each time with a signal, until none is left.
        if (lost_a_child || orphans_left_) orphans_left_ = kill_orphans();
    }

    // What a dead child's task had started (a shell command that hangs, say) is this process's now; it ends with its worker.
    bool kill_orphans() {
        std::array<pid_t, 1024> pids;
        const std::size_t count = os::list_children(pids);
        bool any = false;
        for (std::size_t i = 0; i < count; ++i) {
            if (children_.contains(pids[i]) || pids[i] == twin_) continue;
            ::kill(pids[i], SIGKILL);
            any = true;
        }
        return any;
    }

    void reply(const ZygoteReply& message, os::Fd fd) {
        outgoing_.push_back({message, std::move(fd)});
        send_pending();
    }

    void send_pending() {
        while (!outgoing_.empty()) {
            const auto& [message, fd] = outgoing_.front();
            const int raw = fd.get();
            const std::span<const int> fds(&raw, fd ? 1 : 0);
            if (os::send_message(socket_, std::as_bytes(std::span(&message, 1)), fds, false) == os::Sent::would_block)
                return;
            outgoing_.pop_front();
        }
    }

    [[noreturn]] void leave() {
        if (twin_ > 0) ::kill(twin_, SIGKILL);
        for (const auto& [pid, child] : children_) ::kill(pid, SIGKILL);
        // Children first, then whatever they leave behind, until nothing is below this process.
        orphans_left_ = true;
        while (!children_.empty() || twin_ > 0 || orphans_left_) {
            reap_children();
            if (children_.empty() && twin_ <= 0 && !orphans_left_) break;
            pollfd entry{signals_.get(), POLLIN, 0};
            ::poll(&entry, 1, -1);
        }
        ::_exit(0);
    }

    os::Fd socket_;
    os::Fd parent_;
    os::Fd signals_;
    sigset_t original_mask_{};
    std::unordered_map<int, sighandler_t> previous_;
    struct Child {
        std::uint64_t id = 0;
        int error = 0;    // why the parent is to think that it was never born
    };
    std::unordered_map<pid_t, Child> children_;
    struct Outgoing {
        ZygoteReply message;
        os::Fd fd;
    };
    std::deque<Outgoing> outgoing_;
    bool leave_when_empty_ = false;
    bool orphans_left_ = false;    // some were killed and not yet reaped
    pid_t twin_ = 0;               // 0: none yet; kNoTwin: none can be made
};

}    // namespace

void run_zygote(os::Fd socket, os::Fd parent) {
    os::set_process_name("mh-zygote");
    ZygoteLoop(std::move(socket), std::move(parent)).run();
}

}    // namespace multihull::detail
