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

class ZygoteLoop {
public:
    ZygoteLoop(os::Fd socket, os::Fd parent) : socket_(std::move(socket)), parent_(std::move(parent)) {
        ::sigprocmask(SIG_SETMASK, nullptr, &original_mask_);
        sigset_t child;
        ::sigemptyset(&child);
        ::sigaddset(&child, SIGCHLD);
        ::sigprocmask(SIG_BLOCK, &child, nullptr);
        ::signal(SIGCHLD, SIG_DFL);
        // Ctrl-C and a polite end are the parent's to act on: when it goes, so does everything here.
        for (const int signal : {SIGINT, SIGTERM, SIGHUP, SIGQUIT}) previous_[signal] = ::signal(signal, SIG_IGN);
        signals_ = os::Fd(::signalfd(-1, &child, SFD_CLOEXEC | SFD_NONBLOCK));
        os::become_subreaper();
    }

    [[noreturn]] void run() {
        for (;;) {
            std::array<pollfd, 3> entries{
                {{socket_.get(), POLLIN, 0}, {parent_.get(), POLLIN, 0}, {signals_.get(), POLLIN, 0}}};
            if (!outgoing_.empty()) entries[0].events |= POLLOUT;
            ::poll(entries.data(), entries.size(), -1);
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
            case ZygoteRequest::Kind::fork_child:
                fork_child(request, fds);
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
        children_[pid] = request.id;
        try {
            reply({ZygoteReply::Kind::born, pid, 0, request.id}, os::open_pidfd(pid));
        } catch (const std::exception&) {
            // Without a pidfd the parent could not end the child safely: better none at all.
            const int error = errno;
            ::kill(pid, SIGKILL);
            children_.erase(pid);
            reply({ZygoteReply::Kind::not_born, 0, error, request.id}, {});
        }
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
        detach_stdin();
        try {
            reinterpret_cast<ChildEntry>(const_cast<void*>(code_of(request.entry)))(request, fds);
        } catch (const std::exception& error) {
            const std::string line = std::string("multihull: a process could not begin: ") + error.what() + "\n";
            os::write_all(STDERR_FILENO, line);
        }
        leave_child(1);
    }

    void reap_children() {
        signalfd_siginfo info;
        while (::read(signals_.get(), &info, sizeof info) > 0) {}
        bool lost_a_child = false;
        while (const auto status = os::reap_any()) {
            const auto child = children_.find(status->pid);
            if (child == children_.end()) continue;    // an orphan that ended
            os::kill_point(os::KillPoint::zygote_reaped);
            reply({ZygoteReply::Kind::died, status->pid, status->code, child->second}, {});
            children_.erase(child);
            lost_a_child = true;
        }
        if (lost_a_child) kill_orphans();
    }

    // What a dead child's task had started (a shell command that hangs, say) is this process's now; it ends with its worker.
    void kill_orphans() {
        std::array<pid_t, 1024> pids;
        const std::size_t count = os::list_children(pids);
        for (std::size_t i = 0; i < count; ++i) {
            if (!children_.contains(pids[i])) ::kill(pids[i], SIGKILL);
        }
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
        for (const auto& [pid, id] : children_) ::kill(pid, SIGKILL);
        // Children first, then whatever they leave behind, until nothing is below this process.
        while (!children_.empty()) {
            pollfd entry{signals_.get(), POLLIN, 0};
            ::poll(&entry, 1, -1);
            reap_children();
        }
        kill_orphans();
        ::_exit(0);
    }

    os::Fd socket_;
    os::Fd parent_;
    os::Fd signals_;
    sigset_t original_mask_{};
    std::unordered_map<int, sighandler_t> previous_;
    std::unordered_map<pid_t, std::uint64_t> children_;
    struct Outgoing {
        ZygoteReply message;
        os::Fd fd;
    };
    std::deque<Outgoing> outgoing_;
    bool leave_when_empty_ = false;
};

}    // namespace

void run_zygote(os::Fd socket, os::Fd parent) {
    os::set_process_name("mh-zygote");
    ZygoteLoop(std::move(socket), std::move(parent)).run();
}

}    // namespace multihull::detail
