#include "channel/address.hpp"
#include "channel/handshake.hpp"
#include "os/clock.hpp"
#include "os/process.hpp"
#include "os/stream.hpp"

#include <multihull/connection.hpp>
#include <multihull/log.hpp>

#include <algorithm>
#include <cerrno>
#include <fcntl.h>
#include <list>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/stat.h>
#include <unistd.h>

namespace multihull {

namespace {

using detail::Handshake;
using detail::SocketAddress;
using detail::SocketHandshake;

// Who connects and says nothing costs a descriptor until its time is over; of more than these the oldest goes first.
constexpr std::size_t kMostHandshakes = 256;

FileDescriptor make_socket(int family, int flags) {
    FileDescriptor socket(::socket(family, SOCK_STREAM | SOCK_CLOEXEC | flags, 0));
    if (!socket) {
        throw Error("a socket can't be made (" + os::errno_text(errno) +
                    "): raise the limit on open files (ulimit -n)");
    }
    return socket;
}

// Small messages are not kept back to be sent with later ones.
void send_at_once(int socket) noexcept {
    const int one = 1;
    ::setsockopt(socket, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);    // means nothing to a unix socket
}

Connection connection_over(FileDescriptor socket, bool python) {
    Connection connection(std::move(socket));
    connection.set_python(python);
    return connection;
}

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
    ListenerOptions options;
    std::string address;
    std::string last_accepted;
    std::string path;    // to be removed at the end
    struct stat path_status {};
    pid_t owner = ::getpid();
    std::list<std::pair<SocketHandshake, std::string>> pending;    // with where they come from, oldest first

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
        if (pending.size() >= kMostHandshakes) pending.pop_front();
        pending.emplace_back(SocketHandshake(std::move(accepted), *options.authkey, true,
                                             os::deadline_after(options.handshake_timeout)),
                             from);
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
            Connection connection = connection_over(handshake.take_socket(), options.python);
            pending.erase(entry);
            last_accepted = from;
            return connection;
        }
        const char* const why =
            state == Handshake::State::failed ? handshake.failure() : "it did not prove in time that it knows the key";
        log(LogLevel::warning, "a client" + (from.empty() ? std::string() : " from " + from) + " of the listener at " +
                                   address + " was turned away: " + why);
        entry = pending.erase(entry);
    }
    return std::nullopt;
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
        if (auto accepted = self.accept_pending()) return accepted;
        if (auto accepted = self.go_on()) return accepted;
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

namespace {

enum class Connected { yes, refused, timeout };

Connected connect_to(const FileDescriptor& socket, const SocketAddress& address, std::int64_t deadline) {
    for (;;) {
        if (::connect(socket.fileno(), address.get(), address.size) == 0 || errno == EISCONN) return Connected::yes;
        if (errno == EINTR) continue;
        if (errno == EINPROGRESS || errno == EALREADY) {
            if (!os::wait_writable(socket.fileno(), deadline)) return Connected::timeout;
            int error = 0;
            socklen_t size = sizeof error;
            ::getsockopt(socket.fileno(), SOL_SOCKET, SO_ERROR, &error, &size);
            if (error == 0) return Connected::yes;
            errno = error;
            return Connected::refused;
        }
        if (errno != EAGAIN) return Connected::refused;
        // A unix socket whose backlog is full: the kernel has no way to wait for room but to block.
        if (os::now_ns() >= deadline) return Connected::timeout;
        const timespec pause{0, 1'000'000};
        ::nanosleep(&pause, nullptr);
    }
}

// Connections wait; only their making has a deadline.
void let_block(int socket) noexcept { ::fcntl(socket, F_SETFL, ::fcntl(socket, F_GETFL) & ~O_NONBLOCK); }

FileDescriptor authenticated(FileDescriptor socket, std::string_view address, const std::string& key,
                             std::int64_t deadline) {
    SocketHandshake handshake(std::move(socket), key, false, deadline);
    for (;;) {
        switch (handshake.go_on()) {
            case Handshake::State::done:
                return handshake.take_socket();
            case Handshake::State::failed:
                throw AuthenticationError("the listener at " + std::string(address) +
                                          " can't be trusted, or does not trust us: " + handshake.failure());
            case Handshake::State::going:
                break;
        }
        if (!os::wait_readable(handshake.fileno(), deadline)) {
            throw WaitTimeout("the listener at " + std::string(address) +
                              " did not prove in time that it knows the key: does it ask for one, and is it alive?");
        }
    }
}

}    // namespace

Connection Client(std::string_view address, const ClientOptions& options) {
    const std::int64_t deadline = os::deadline_after(options.timeout);
    int error = 0;
    for (const SocketAddress& where : detail::parse_address(address, false)) {
        FileDescriptor socket = make_socket(where.family(), SOCK_NONBLOCK);
        switch (connect_to(socket, where, deadline)) {
            case Connected::refused:
                error = errno;
                continue;
            case Connected::timeout:
                throw WaitTimeout("the listener at " + std::string(address) + " did not accept the connection in time");
            case Connected::yes:
                break;
        }
        let_block(socket.fileno());
        send_at_once(socket.fileno());
        if (options.authkey) socket = authenticated(std::move(socket), address, *options.authkey, deadline);
        return connection_over(std::move(socket), options.python);
    }
    throw Error("nobody listens at " + std::string(address) + " (" + os::errno_text(error) +
                "): start the listener first, or correct the address");
}

}    // namespace multihull
