// The parent's side of a zygote.
#include "process/zygote.hpp"

#include "os/clock.hpp"
#include "os/message.hpp"
#include "os/poll.hpp"
#include "os/process.hpp"
#include "process/self.hpp"
#include "process/spawn.hpp"
#include "shm/region.hpp"

#include <multihull/error.hpp>
#include <multihull/log.hpp>

#include <atomic>
#include <cerrno>
#include <csignal>
#include <fcntl.h>
#include <sys/wait.h>
#include <system_error>
#include <unistd.h>

namespace multihull::detail {

namespace {

std::mutex forkserver_mutex;
// The process whose forkserver it is; read without the mutex, which in a forked child may be locked for ever.
std::atomic<std::uint32_t> forkserver_generation{0};
std::shared_ptr<Zygote>& the_forkserver() {
    static auto* const place = new std::shared_ptr<Zygote>;    // outlives every static object that might own a pool
    return *place;
}

[[noreturn]] void throw_cannot_start(const char* what, const std::string& why) {
    throw StartError(std::string(what) + " can't be started (" + why +
                     "): raise the limits on processes (ulimit -u) and open files (ulimit -n), or free some memory");
}

}    // namespace

// A zygote that this process has just started; where it can't be watched it is ended again.
std::shared_ptr<Zygote> Zygote::watched(pid_t pid, os::Fd socket) {
    os::Fd pidfd;
    try {
        pidfd = os::open_pidfd(pid);
    } catch (const std::system_error&) {
        ::kill(pid, SIGKILL);
        ::waitpid(pid, nullptr, 0);
        throw;
    }
    auto zygote = std::make_shared<Zygote>(pid, std::move(socket), std::move(pidfd));
    zygote->begin_watching();
    return zygote;
}

std::shared_ptr<Zygote> Zygote::fork_snapshot() {
    watch_forks();
    shm::Region::instance();
    try {
        os::FdPair sockets = os::make_socket_pair();
        os::Fd self = os::open_pidfd(::getpid());
        const pid_t pid = os::fork_process();
        if (pid == 0) {
            sockets.first.reset();
            run_zygote(std::move(sockets.second), std::move(self));
        }
        if (pid < 0) os::throw_errno("fork");
        sockets.second.reset();
        return watched(pid, std::move(sockets.first));
    } catch (const std::system_error& error) {
        throw_cannot_start("the process that starts workers", error.what());
    }
}

std::shared_ptr<Zygote> Zygote::spawn() {
    try {
        SpawnedZygote spawned = spawn_zygote();
        return watched(spawned.pid, std::move(spawned.socket));
    } catch (const std::system_error& error) {
        throw_cannot_start("the process that starts workers", error.what());
    }
}

void Zygote::start_forkserver() {
    const std::lock_guard guard(forkserver_mutex);
    if (!the_forkserver()) the_forkserver() = fork_snapshot();
    forkserver_generation.store(fork_generation(), std::memory_order_relaxed);
}

bool Zygote::has_forkserver() noexcept {
    return forkserver_generation.load(std::memory_order_relaxed) == fork_generation();
}

std::shared_ptr<Zygote> Zygote::forkserver() {
    if (!has_forkserver()) return nullptr;
    const std::lock_guard guard(forkserver_mutex);
    auto& server = the_forkserver();
    if (!server->alive()) {
        // Somebody killed it. The program may run threads by now, so the next one starts from a fresh copy of the program.
        log(LogLevel::warning, "the forkserver was killed; a new one is started");
        server = spawn();
    }
    return server;
}

Zygote::Zygote(pid_t pid, os::Fd socket, os::Fd pidfd)
    : pid_(pid), generation_(fork_generation()), socket_(std::move(socket)), pidfd_(std::move(pidfd)) {}

Zygote::~Zygote() {
    if (generation_ != fork_generation()) return;
    if (ended_) return;
    // It could not be watched: nobody else will see it end.
    leave_now();
    os::wait_readable(pidfd_.get(), os::kNever);
    os::reap(pidfd_, false);
}

void Zygote::begin_watching() {
    try {
        Supervisor::instance().watch(socket_.get(), shared_from_this());
        Supervisor::instance().watch(pidfd_.get(), shared_from_this());
    } catch (const std::system_error&) {
        Supervisor::instance().unwatch(socket_.get());
        throw;
    }
    Supervisor::instance().add(shared_from_this());
}

bool Zygote::alive() const noexcept {
    const std::lock_guard guard(mutex_);
    return !ended_;
}

void Zygote::fork_child(Token entry, std::span<const std::uint64_t> words, std::span<const int> fds,
                        std::shared_ptr<ChildListener> listener) {
    ZygoteRequest request;
    request.kind = ZygoteRequest::Kind::fork_child;
    request.parent_pid = static_cast<std::uint32_t>(::getpid());
    request.entry = entry;
    for (std::size_t i = 0; i < words.size(); ++i) request.words[i] = words[i];
    std::unique_lock guard(mutex_);
    if (ended_) {
        guard.unlock();
        listener->on_not_born(ESRCH);
        return;
    }
    request.id = next_id_++;
    request.server = pid_;
    if (!send_fork(request, fds)) {
        guard.unlock();
        listener->on_not_born(EMFILE);
        return;
    }
    children_.emplace(request.id, Child{std::move(listener), false});
}

void Zygote::leave_when_empty() {
    const std::lock_guard guard(mutex_);
    leaving_ = true;
    ZygoteRequest request;
    request.kind = ZygoteRequest::Kind::leave_when_empty;
    if (!ended_) send(request, {});
}

void Zygote::leave_now() {
    const std::lock_guard guard(mutex_);
    leaving_ = true;
    ZygoteRequest request;
    request.kind = ZygoteRequest::Kind::leave_now;
    if (!ended_) send(request, {});
}

void Zygote::wait() {
    std::unique_lock guard(mutex_);
    changed_.wait(guard, [&] { return ended_; });
}

pid_t Zygote::pid() const noexcept {
    const std::lock_guard guard(mutex_);
    return pid_;
}

bool Zygote::has_twin() const noexcept {
    const std::lock_guard guard(mutex_);
    return static_cast<bool>(twin_pidfd_);
}

// Needs mutex_. Never blocks: the zygote may itself be waiting for this process to read. False, with errno, when one of the descriptors
// is closed, or there are none left to keep the request until it can be sent.
bool Zygote::send(const ZygoteRequest& request, std::span<const int> fds) {
    if (outgoing_.empty()) {
        const os::Sent sent = os::send_message(socket_, std::as_bytes(std::span(&request, 1)), fds, false);
        if (sent == os::Sent::gone && errno == EBADF) return false;
        if (sent != os::Sent::would_block) return true;    // sent; or the zygote is gone, which its pidfd tells
    }
    std::vector<os::Fd> copies;
    for (const int fd : fds) {
        copies.emplace_back(::fcntl(fd, F_DUPFD_CLOEXEC, 0));
        if (!copies.back()) return false;
    }
    outgoing_.push_back({request, std::move(copies)});
    Supervisor::instance().wake();
    return true;
}

// Needs mutex_. The child's stdout and stderr are what this process has now, not what the zygote has had since it was made.
bool Zygote::send_fork(ZygoteRequest& request, std::span<const int> fds) {
    std::vector<int> all;
    for (int attempt = 0; attempt < 3; ++attempt) {
        all.clear();
        request.streams = 0;
        for (const int stream : {STDOUT_FILENO, STDERR_FILENO}) {
            const int flags = ::fcntl(stream, F_GETFD);
            // What is closed on exec is no stream for children: the program closed its own, and the number went to another file.
            if (flags < 0 || (flags & FD_CLOEXEC) != 0) continue;
            request.streams |= 1U << (stream - STDOUT_FILENO);
            all.push_back(stream);
        }
        all.insert(all.end(), fds.begin(), fds.end());
        if (send(request, all)) return true;
        if (errno != EBADF) return false;    // else a thread of the program closed it just now
    }
    return false;
}

void Zygote::flush_locked() {
    while (!outgoing_.empty()) {
        std::vector<int> raw;
        for (const auto& fd : outgoing_.front().fds) raw.push_back(fd.get());
        const auto& request = outgoing_.front().request;
        if (os::send_message(socket_, std::as_bytes(std::span(&request, 1)), raw, false) == os::Sent::would_block)
            return;
        outgoing_.pop_front();
    }
}

std::int64_t Zygote::tick(std::int64_t now_ns) {
    const std::lock_guard guard(mutex_);
    flush_locked();
    return outgoing_.empty() ? os::kNever : now_ns + 1'000'000;
}

void Zygote::on_readable(int fd) {
    {
        const std::lock_guard guard(mutex_);
        flush_locked();
    }
    read_replies();
    if (fd != socket_.get()) on_zygote_ended();
}

void Zygote::read_replies() {
    ZygoteReply reply;
    std::vector<os::Fd> fds;
    for (;;) {
        switch (os::receive_message(socket_, std::as_writable_bytes(std::span(&reply, 1)), fds, false)) {
            case os::Received::would_block:
                return;
            case os::Received::gone:
                Supervisor::instance().unwatch(socket_.get());
                return;
            case os::Received::yes:
                handle(reply, fds);
                break;
        }
    }
}

void Zygote::handle(const ZygoteReply& reply, std::vector<os::Fd>& fds) {
    std::shared_ptr<ChildListener> listener;
    {
        const std::lock_guard guard(mutex_);
        if (reply.kind == ZygoteReply::Kind::twin) {
            twin_pid_ = reply.pid;
            twin_pidfd_ = fds.empty() ? os::Fd() : std::move(fds.front());
            return;
        }
        const auto child = children_.find(reply.id);
        if (child == children_.end()) {
            // Asked for of a zygote that was killed, and given up since; its twin found the request all the same.
            if (!fds.empty()) os::signal_process(fds.front(), SIGKILL);
            return;
        }
        listener = child->second.listener;
        if (reply.kind == ZygoteReply::Kind::born) {
            child->second.born = true;
        } else {
            children_.erase(child);
        }
    }
    switch (reply.kind) {
        case ZygoteReply::Kind::born:
            if (fds.empty()) {
                // This process has no descriptor left for it, and could not end it safely: better none at all.
                const std::lock_guard guard(mutex_);
                ZygoteRequest request;
                request.kind = ZygoteRequest::Kind::end_child;
                request.id = reply.id;
                send(request, {});
                return;
            }
            listener->on_born(reply.pid, std::move(fds.front()));
            return;
        case ZygoteReply::Kind::not_born:
            listener->on_not_born(reply.code);
            return;
        case ZygoteReply::Kind::died:
            listener->on_died(reply.code);
            return;
        case ZygoteReply::Kind::twin:
            return;    // dealt with above
    }
}

// A zygote has a copy of every handle that its program had.
static void bury(pid_t pid) {
    if (pid != 0 && shm::Region::exists()) shm::Region::instance().bury(pid);
}

void Zygote::on_zygote_ended() {
    std::unordered_map<std::uint64_t, Child> orphans;
    os::Fd former;
    int twin = -1;
    {
        const std::lock_guard guard(mutex_);
        if (ended_ || !os::wait_readable(pidfd_.get(), 0)) return;
        orphans.swap(children_);
        os::reap(pidfd_, false);
        former = std::move(pidfd_);
        bury(pid_);
        if (twin_pidfd_ && !os::wait_readable(twin_pidfd_.get(), 0)) {
            pidfd_ = std::move(twin_pidfd_);
            pid_ = twin_pid_;
            twin = pidfd_.get();
            if (leaving_) {
                // It may not have heard: the message went to the one that was killed.
                ZygoteRequest request;
                request.kind = ZygoteRequest::Kind::leave_now;
                send(request, {});
            }
        } else {
            bury(twin_pid_);
            ended_ = true;
            changed_.notify_all();
        }
    }
    Supervisor::instance().unwatch(former.get());
    if (twin >= 0) {
        Supervisor::instance().watch(twin, shared_from_this());
    } else {
        Supervisor::instance().unwatch(socket_.get());
        Supervisor::instance().remove(this);
    }
    // The kernel killed its children with it (PR_SET_PDEATHSIG); the listeners make sure of that through their pidfds.
    for (auto& [id, child] : orphans) {
        if (child.born) {
            child.listener->on_died(-SIGKILL);
        } else {
            child.listener->on_not_born(ESRCH);
        }
    }
}

}    // namespace multihull::detail
