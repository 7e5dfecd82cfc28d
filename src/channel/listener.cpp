#include "channel/address.hpp"
#include "channel/handshake.hpp"
#include "channel/sockets.hpp"
#include "os/clock.hpp"
#include "os/process.hpp"
#include "os/ready_set.hpp"

#include <multihull/connection.hpp>
#include <multihull/log.hpp>

#include <algorithm>
#include <cerrno>
#include <list>
#include <netinet/in.h>
#include <poll.h>
#include <sys/stat.h>
#include <system_error>
#include <unistd.h>

namespace multihull {

namespace {

using detail::connection_over;
using detail::Handshake;
using detail::make_socket;
using detail::send_at_once;
using detail::SocketAddress;
using detail::SocketHandshake;

// Who connects and says nothing costs a descriptor until its time is over; of more than these the oldest goes first.
constexpr std::size_t kMostHandshakes = 256;

[[noreturn]] void throw_cannot_listen(const SocketAddress& address, int error) {
    const std::string where = address.to_string();
    if (error == EADDRINUSE && !address.path().empty()) {
        struct stat status {};
        const FileDescriptor probe = make_socket(AF_UNIX, SOCK_NONBLOCK);
        if (::lstat(address.path().c_str(), &status) == 0 && !S_ISSOCK(status.st_mode)) {
            throw Error("nothing can listen at " + where + ": it is a file, and no socket");
        }
        if (::connect(probe.fileno(), address.get(), address.size) != 0 && errno == ECONNREFUSED) {
            throw Error("nothing can listen at " + where +
                        ": a program that ended without removing its socket left it behind; remove the file");
        }
    }
    throw Error("nothing can listen at " + where + " (" + os::errno_text(error) +
                (error == EADDRINUSE ? "): somebody listens there already; choose another address"
                                     : "): choose another address"));
}

}    // namespace

struct Listener::State {
    FileDescriptor socket;
    std::optional<os::ReadySet> ready;    // of the socket and the handshakes; made when it is asked for
    ListenerOptions options;
    std::string address;
    std::string last_accepted;
    std::string path;    // to be removed at the end
    struct stat path_status {};
    pid_t owner = ::getpid();
    using Pending = std::list<std::pair<SocketHandshake, std::string>>;    // with where they come from
    Pending pending;                                                       // oldest first

    ~State() {
        if (path.empty() || owner != ::getpid()) return;
        struct stat now {};
        // It may be another's by now.
        if (::lstat(path.c_str(), &now) == 0 && now.st_ino == path_status.st_ino && now.st_dev == path_status.st_dev) {
            ::unlink(path.c_str());
        }
    }

    FileDescriptor accept_one(std::string& from);
    std::optional<Connection> accept_pending();
    std::optional<Connection> go_on();
    std::int64_t next_deadline() const noexcept;
    void watch(int descriptor);
    FileDescriptor end_handshake(Pending::iterator entry);
};

Listener::Listener(std::string_view address, ListenerOptions options) : state_(std::make_unique<State>()) {
    const std::string text = address.empty() ? detail::random_address() : std::string(address);
    SocketAddress where = detail::parse_address(text, true).front();
    State& self = *state_;
    self.options = std::move(options);
    self.socket = make_socket(where.family(), SOCK_NONBLOCK);
    if (where.family() != AF_UNIX) {
        const int one = 1;
        ::setsockopt(self.socket.fileno(), SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    }
    if (::bind(self.socket.fileno(), where.get(), where.size) != 0) throw_cannot_listen(where, errno);
    if (const std::string path = where.path(); !path.empty() && ::lstat(path.c_str(), &self.path_status) == 0) {
        self.path = path;
    }
    if (::listen(self.socket.fileno(), self.options.backlog) != 0) throw_cannot_listen(where, errno);
    where.size = sizeof where.bytes;
    if (::getsockname(self.socket.fileno(), where.get(), &where.size) != 0) throw_cannot_listen(where, errno);
    self.address = where.to_string();
}

Listener::Listener(Listener&&) noexcept = default;
Listener& Listener::operator=(Listener&&) noexcept = default;
Listener::~Listener() = default;

void Listener::close() noexcept { state_.reset(); }

Listener::State& Listener::state() const {
    if (!state_) throw Error("this Listener was closed or moved from: make a new one");
    return *state_;
}

const std::string& Listener::address() const { return state().address; }
std::string Listener::last_accepted() const { return state().last_accepted; }
int Listener::fileno() const { return state().socket.fileno(); }

// Nothing where nobody waits.
FileDescriptor Listener::State::accept_one(std::string& from) {
    for (;;) {
        SocketAddress peer;
        peer.size = sizeof peer.bytes;
        FileDescriptor accepted(::accept4(socket.fileno(), peer.get(), &peer.size, SOCK_CLOEXEC));
        if (accepted) {
            send_at_once(accepted.fileno());
            from = peer.to_string();
            return accepted;
        }
        switch (errno) {
            case EAGAIN:
                return {};
            case EMFILE:
            case ENFILE:
            case ENOBUFS:
            case ENOMEM:
                throw Error("a connection can't be accepted (" + os::errno_text(errno) +
                            "): raise the limit on open files (ulimit -n)");
            case EBADF:
            case EINVAL:
            case ENOTSOCK:
                throw Error("a connection can't be accepted (" + os::errno_text(errno) + ")");
            default:
                break;    // that client has gone again, or its network has: the next one
        }
    }
}

// Accepts who has come: one of them where no key is asked for, else all, to begin their handshakes.
std::optional<Connection> Listener::State::accept_pending() {
    std::string from;
    while (FileDescriptor accepted = accept_one(from)) {
        if (!options.authkey) {
            last_accepted = from;
            return connection_over(std::move(accepted), options.python);
        }
        if (pending.size() >= kMostHandshakes) end_handshake(pending.begin());
        pending.emplace_back(SocketHandshake(std::move(accepted), *options.authkey, true,
                                             os::deadline_after(options.handshake_timeout)),
                             from);
        watch(pending.back().first.fileno());
    }
    return std::nullopt;
}

// Moves every handshake on as far as it goes now; answers the first that has succeeded.
std::optional<Connection> Listener::State::go_on() {
    for (auto entry = pending.begin(); entry != pending.end();) {
        SocketHandshake& handshake = entry->first;
        const Handshake::State state = handshake.go_on();
        if (state == Handshake::State::going && os::now_ns() < handshake.deadline()) {
            ++entry;
            continue;
        }
        const std::string from = entry->second;
        if (state == Handshake::State::done) {
            last_accepted = from;
            return connection_over(end_handshake(entry), options.python);
        }
        const char* const why =
            state == Handshake::State::failed ? handshake.failure() : "it did not prove in time that it knows the key";
        log(LogLevel::warning, "a client" + (from.empty() ? std::string() : " from " + from) + " of the listener at " +
                                   address + " was turned away: " + why);
        end_handshake(entry++);
    }
    return std::nullopt;
}

void Listener::State::watch(int descriptor) {
    if (!ready) return;
    try {
        ready->add(descriptor, os::ReadySet::For::reading);
    } catch (const std::system_error& failure) {
        throw Error("the listener at " + address + " can't watch a client (" + failure.code().message() +
                    "): raise the limits of epoll (/proc/sys/fs/epoll)");
    }
}

// Answers the socket. It leaves the set before anybody can copy it: a copy would keep it there, and the set would be ready whenever
// something comes over the connection.
FileDescriptor Listener::State::end_handshake(Pending::iterator entry) {
    if (ready) ready->remove(entry->first.fileno());
    FileDescriptor left = entry->first.take_socket();
    pending.erase(entry);
    return left;
}

int Listener::wait_descriptor() {
    State& self = state();
    if (!self.ready) {
        try {
            self.ready.emplace();
        } catch (const std::system_error& failure) {
            throw Error("the listener at " + self.address + " can't be watched (" + failure.code().message() +
                        "): raise the limit on open files (ulimit -n)");
        }
        self.watch(self.socket.fileno());
        for (const auto& [handshake, from] : self.pending) self.watch(handshake.fileno());
        self.ready->set_alarm(self.next_deadline());
    }
    return self.ready->fileno();
}

std::int64_t Listener::State::next_deadline() const noexcept {
    std::int64_t next = os::kNever;
    for (const auto& [handshake, from] : pending) next = std::min(next, handshake.deadline());
    return next;
}

Connection Listener::accept() {
    auto accepted = try_accept(std::chrono::nanoseconds::max());
    if (!accepted) throw Error("nobody connected");    // in 292 years
    return std::move(*accepted);
}

std::optional<Connection> Listener::try_accept(std::chrono::nanoseconds timeout) {
    State& self = state();
    const std::int64_t deadline = os::deadline_after(timeout);
    std::vector<pollfd> entries;
    for (;;) {
        auto accepted = self.accept_pending();
        if (!accepted) accepted = self.go_on();
        if (self.ready) self.ready->set_alarm(self.next_deadline());
        if (accepted) return accepted;
        const std::int64_t now = os::now_ns();
        if (now >= deadline) return std::nullopt;

        entries.assign(1, {self.socket.fileno(), POLLIN, 0});
        for (const auto& [handshake, from] : self.pending) entries.push_back({handshake.fileno(), POLLIN, 0});
        const std::int64_t next = std::min(deadline, self.next_deadline());
        const std::int64_t wait = std::max<std::int64_t>(next - now, 0);
        const timespec left{wait / 1'000'000'000, wait % 1'000'000'000};
        ::ppoll(entries.data(), entries.size(), next == os::kNever ? nullptr : &left, nullptr);
    }
}

}    // namespace multihull
