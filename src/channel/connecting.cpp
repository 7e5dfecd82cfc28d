#include <multihull/detail/connecting.hpp>

#include "channel/address.hpp"
#include "channel/handshake.hpp"
#include "channel/sockets.hpp"
#include "os/poll.hpp"
#include "os/process.hpp"
#include "os/ready_set.hpp"
#include "os/thread.hpp"

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <exception>
#include <fcntl.h>
#include <memory>
#include <string>
#include <sys/socket.h>
#include <system_error>
#include <utility>
#include <vector>

namespace multihull {

namespace detail {

namespace {

// How long to leave a unix socket alone whose backlog is full: the kernel has no way to wait for room but to block.
constexpr std::int64_t kFirstPause = 1'000'000;
constexpr std::int64_t kLongestPause = 16'000'000;

// Connections wait; only their making has a deadline.
void let_block(int socket) noexcept { ::fcntl(socket, F_SETFL, ::fcntl(socket, F_GETFL) & ~O_NONBLOCK); }

// What a host's name means, asked for in a thread of its own: the system's resolver can only wait, and nothing ends it before its time.
class NameLookup {
public:
    explicit NameLookup(const std::string& address) {
        try {
            os::start_thread("mh-lookup", [self = self_, address] { self->run(address); }).detach();
        } catch (...) {
            self_->run(address);    // no thread to be had, or no memory for it
        }
    }

    /// Readable when it has ended.
    int fileno() const noexcept { return self_->ended_event.get(); }
    bool ended() const noexcept { return self_->ended.load(std::memory_order_acquire); }
    std::vector<SocketAddress> take() {
        if (self_->failure) std::rethrow_exception(self_->failure);
        return std::move(self_->found);
    }

private:
    struct Answer {
        os::Fd ended_event = os::make_eventfd();
        std::vector<SocketAddress> found;
        std::exception_ptr failure;
        std::atomic<bool> ended{false};

        void run(const std::string& address) noexcept {
            try {
                found = parse_address(address, false);
            } catch (...) {
                failure = std::current_exception();
            }
            ended.store(true, std::memory_order_release);
            os::signal_eventfd(ended_event);
        }
    };
    std::shared_ptr<Answer> self_ = std::make_shared<Answer>();
};

}    // namespace

struct Connecting::State {
    State(std::string_view text, ClientOptions given)
        : address(text), options(std::move(given)), deadline(os::deadline_after(options.timeout)) {
        if (names_a_host(text)) {
            lookup.emplace(address);
        } else {
            candidates = parse_address(text, false);
        }
    }

    std::string address;
    ClientOptions options;
    std::int64_t deadline;
    std::optional<NameLookup> lookup;    // until the candidates are known
    std::vector<SocketAddress> candidates;
    std::size_t candidate = 0;
    FileDescriptor socket;                       // on its way to the candidate
    std::optional<SocketHandshake> handshake;    // has the socket from then on
    int error = 0;                               // why the last candidate was none
    std::int64_t pause = kFirstPause;
    std::optional<os::ReadySet> ready;
    int watched = -1;

    enum class Step { done, waits, failed };

    Step look_up();
    Step connect();
    Step prove();
    void watch(int descriptor, os::ReadySet::For use);
    void unwatch() noexcept;
    void wait_until(std::int64_t time);
    Connection finish(FileDescriptor connected);
};

// Has go_on() called when the descriptor is ready.
void Connecting::State::watch(int descriptor, os::ReadySet::For use) {
    wait_until(deadline);
    if (watched == descriptor) return;
    try {
        ready->add(descriptor, use);
    } catch (const std::system_error& failure) {
        throw Error("the way to " + address + " can't be watched (" + failure.code().message() +
                    "): raise the limits of epoll (/proc/sys/fs/epoll)");
    }
    watched = descriptor;
}

void Connecting::State::unwatch() noexcept {
    if (watched >= 0) ready->remove(std::exchange(watched, -1));
}

void Connecting::State::wait_until(std::int64_t time) {
    try {
        if (!ready) ready.emplace();
    } catch (const std::system_error& failure) {
        throw Error("the way to " + address + " can't be watched (" + failure.code().message() +
                    "): raise the limit on open files (ulimit -n)");
    }
    ready->set_alarm(std::min(time, deadline));
}

Connecting::State::Step Connecting::State::look_up() {
    if (lookup->ended()) {
        unwatch();
        candidates = lookup->take();
        lookup.reset();
        return Step::done;
    }
    if (os::now_ns() >= deadline) {
        throw WaitTimeout("the host of " + address +
                          " was not found in time: write its number, or ask its name server");
    }
    watch(lookup->fileno(), os::ReadySet::For::reading);
    return Step::waits;
}

// One step towards the candidates that are left.
Connecting::State::Step Connecting::State::connect() {
    for (; candidate < candidates.size(); ++candidate) {
        const SocketAddress& where = candidates[candidate];
        if (!socket) socket = make_socket(where.family(), SOCK_NONBLOCK);
        int result = 0;
        do result = ::connect(socket.fileno(), where.get(), where.size);
        while (result != 0 && errno == EINTR);
        if (result == 0 || errno == EISCONN) return Step::done;
        error = errno;
        const bool on_its_way = error == EINPROGRESS || error == EALREADY;
        if (on_its_way || error == EAGAIN) {
            if (os::now_ns() >= deadline)
                throw WaitTimeout("the listener at " + address + " did not accept the connection in time");
            if (on_its_way) {
                watch(socket.fileno(), os::ReadySet::For::writing);
            } else {
                wait_until(os::now_ns() + pause);
                pause = std::min(2 * pause, kLongestPause);
            }
            return Step::waits;
        }
        unwatch();
        socket.close();
    }
    return Step::failed;
}

Connecting::State::Step Connecting::State::prove() {
    switch (handshake->go_on()) {
        case Handshake::State::done:
            return Step::done;
        case Handshake::State::failed:
            throw AuthenticationError("the listener at " + address +
                                      " can't be trusted, or does not trust us: " + handshake->failure());
        case Handshake::State::going:
            break;
    }
    if (os::now_ns() >= deadline) {
        throw WaitTimeout("the listener at " + address +
                          " did not prove in time that it knows the key: does it ask for one, and is it alive?");
    }
    watch(handshake->fileno(), os::ReadySet::For::reading);
    return Step::waits;
}

// What is in the set must not stay there as a copy that the connection's next owner makes.
Connection Connecting::State::finish(FileDescriptor connected) {
    unwatch();
    return connection_over(std::move(connected), options.python);
}

Connecting::Connecting(std::string_view address, ClientOptions options)
    : state_(std::make_unique<State>(address, std::move(options))) {}
Connecting::Connecting(Connecting&&) noexcept = default;
Connecting& Connecting::operator=(Connecting&&) noexcept = default;
Connecting::~Connecting() = default;

int Connecting::fileno() const { return state_->ready->fileno(); }

std::optional<Connection> Connecting::go_on() {
    State& self = *state_;
    if (self.lookup && self.look_up() == State::Step::waits) return std::nullopt;
    if (!self.handshake) {
        switch (self.connect()) {
            case State::Step::waits:
                return std::nullopt;
            case State::Step::failed:
                throw Error("nobody listens at " + self.address + " (" + os::errno_text(self.error) +
                            "): start the listener first, or correct the address");
            case State::Step::done:
                break;
        }
        self.unwatch();
        let_block(self.socket.fileno());
        send_at_once(self.socket.fileno());
        if (!self.options.authkey) return self.finish(std::move(self.socket));
        self.handshake.emplace(std::move(self.socket), *self.options.authkey, false, self.deadline);
    }
    if (self.prove() == State::Step::waits) return std::nullopt;
    return self.finish(self.handshake->take_socket());
}

}    // namespace detail

Connection Client(std::string_view address, const ClientOptions& options) {
    detail::Connecting connecting(address, options);
    for (;;) {
        if (auto connection = connecting.go_on()) return std::move(*connection);
        os::wait_readable(connecting.fileno(), os::kNever);
    }
}

}    // namespace multihull
