// The parent's side of a zygote.
#include "process/zygote.hpp"

#include "os/clock.hpp"
#include "os/message.hpp"
#include "os/process.hpp"
#include "process/self.hpp"
#include "process/spawn.hpp"
#include "shm/region.hpp"

#include <multihull/error.hpp>
#include <multihull/log.hpp>

#include <atomic>
#include <cerrno>
#include <csignal>
#include <system_error>
#include <unistd.h>

namespace multihull::detail {

namespace {

std::mutex forkserver_mutex;
std::shared_ptr<Zygote>& the_forkserver() {
    static auto* const place = new std::shared_ptr<Zygote>;    // outlives every static object that might own a pool
    return *place;
}

[[noreturn]] void throw_cannot_start(const char* what, const std::string& why) {
    throw StartError(std::string(what) + " can't be started (" + why +
                     "): raise the limits on processes (ulimit -u) and open files (ulimit -n), or free some memory");
}

}    // namespace

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
        auto zygote = std::make_shared<Zygote>(pid, std::move(sockets.first), os::open_pidfd(pid));
        zygote->begin_watching();
        return zygote;
    } catch (const std::system_error& error) {
        throw_cannot_start("the process that starts workers", error.what());
    }
}

std::shared_ptr<Zygote> Zygote::spawn() {
    try {
        SpawnedZygote spawned = spawn_zygote();
        auto zygote = std::make_shared<Zygote>(spawned.pid, std::move(spawned.socket), os::open_pidfd(spawned.pid));
        zygote->begin_watching();
        return zygote;
    } catch (const std::system_error& error) {
        throw_cannot_start("the process that starts workers", error.what());
    }
}

void Zygote::start_forkserver() {
    const std::lock_guard guard(forkserver_mutex);
    if (!the_forkserver()) the_forkserver() = fork_snapshot();
}

std::shared_ptr<Zygote> Zygote::forkserver() {
    const std::lock_guard guard(forkserver_mutex);
    auto& server = the_forkserver();
    if (!server || server->generation_ != fork_generation()) return nullptr;
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
    if (!os::reap(pidfd_, false) && alive()) {
        leave_now();
        wait();
    }
}

void Zygote::begin_watching() {
    Supervisor::instance().watch(socket_.get(), shared_from_this());
    Supervisor::instance().watch(pidfd_.get(), shared_from_this());
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
    children_.emplace(request.id, Child{std::move(listener), false});
    send(request, fds);
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

void Zygote::wait() { os::wait_readable(pidfd_.get(), os::kNever); }

// Needs mutex_. Never blocks: the zygote may itself be waiting for this process to read.
void Zygote::send(const ZygoteRequest& request, std::span<const int> fds) {
    if (outgoing_.empty() &&
        os::send_message(socket_, std::as_bytes(std::span(&request, 1)), fds, false) != os::Sent::would_block) {
        return;    // sent; or the zygote is gone, which its pidfd tells
    }
    std::vector<os::Fd> copies;
    for (const int fd : fds) copies.emplace_back(::dup(fd));
    outgoing_.push_back({request, std::move(copies)});
    Supervisor::instance().wake();
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
    if (fd == pidfd_.get()) on_zygote_ended();
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
        const auto child = children_.find(reply.id);
        if (child == children_.end()) return;
        listener = child->second.listener;
        if (reply.kind == ZygoteReply::Kind::born) {
            child->second.born = true;
        } else {
            children_.erase(child);
        }
    }
    switch (reply.kind) {
        case ZygoteReply::Kind::born:
            if (fds.empty())
                return;    // this process ran out of descriptors; the zygote will still tell of the child's end
            listener->on_born(reply.pid, std::move(fds.front()));
            return;
        case ZygoteReply::Kind::not_born:
            listener->on_not_born(reply.code);
            return;
        case ZygoteReply::Kind::died:
            listener->on_died(reply.code);
            return;
    }
}

void Zygote::on_zygote_ended() {
    std::unordered_map<std::uint64_t, Child> orphans;
    {
        const std::lock_guard guard(mutex_);
        if (ended_) return;
        ended_ = true;
        orphans.swap(children_);
    }
    Supervisor::instance().unwatch(socket_.get());
    Supervisor::instance().unwatch(pidfd_.get());
    Supervisor::instance().remove(this);
    os::reap(pidfd_, false);
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
