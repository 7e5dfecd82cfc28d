#include "manager/server_loop.hpp"

#include "channel/address.hpp"
#include "os/clock.hpp"
#include "os/fault.hpp"
#include "os/futex.hpp"
#include "os/process.hpp"

#include <multihull/log.hpp>

#include <algorithm>
#include <array>
#include <cerrno>
#include <sched.h>
#include <sys/epoll.h>

namespace multihull::detail {

namespace {

constexpr std::uint64_t kWakeTag = 0;
constexpr std::uint64_t kHostTag = std::uint64_t{1} << 63;    // beside the host's own tag
constexpr std::size_t kMostShaking = 1024;
constexpr std::size_t kBuffer = std::size_t{64} << 10;
static_assert(kBuffer >= kMailboxRoom);
constexpr std::int64_t kTickNs = 30'000'000'000;

// A client asks again some microseconds after it was answered; a sleeper needs as long just to wake.
constexpr std::int64_t kLongestAwakeNs = 50'000;
// Between two looks that far apart somebody else had the processor: then waiting awake is in his way, for a while.
constexpr std::int64_t kPreemptedNs = 15'000;
// The same where it gave the processor away, to clients that have it back as soon as they wait.
constexpr std::int64_t kPushedOutNs = 100'000;
constexpr std::int64_t kAsleepNs = 5'000'000;
// While mailboxes keep a loop awake it looks at the sockets as often.
constexpr std::int64_t kLookNs = 10'000;
// Looks at bells between two at the sockets, which cost a system call.
constexpr int kLooksAtBells = 16;
// Clients that have asked in so long a time count as busy: each of them has its own use for a processor.
constexpr int kWindowBits = 20;    // of nanoseconds: about a millisecond
constexpr int kBusyBits = 16;
constexpr std::size_t kMostBusy = (std::size_t{1} << kBusyBits) - 1;

// Loops that wait awake: with the busy clients of all loops no more than there are processors.
std::atomic<std::size_t> loops_awake{0};

std::size_t processors() {
    static const std::size_t count = os::usable_cpus();
    return count;
}

}    // namespace

ServerLoop::ServerLoop(LoopHost& host, std::shared_ptr<ServerCore> core, std::string authkey,
                       std::int64_t handshake_timeout, bool ticks)
    : host_(host),
      core_(std::move(core)),
      authkey_(std::move(authkey)),
      handshake_timeout_(handshake_timeout),
      epoll_(os::checked(os::Call::epoll_create, [] { return ::epoll_create1(EPOLL_CLOEXEC); })),
      wake_(os::make_eventfd()),
      buffer_(kBuffer),
      next_tick_(ticks ? os::deadline_after(std::chrono::nanoseconds(kTickNs)) : os::kNever) {
    if (!epoll_) os::throw_errno("epoll_create1");
    epoll_event event{};
    event.events = EPOLLIN;
    event.data.u64 = kWakeTag;
    if (::epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, wake_.get(), &event) != 0) os::throw_errno("epoll_ctl");
}

ServerLoop::~ServerLoop() = default;

void ServerLoop::watch(int fd, std::uint64_t tag) {
    epoll_event event{};
    event.events = EPOLLIN;
    event.data.u64 = kHostTag | tag;
    if (::epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, fd, &event) != 0) os::throw_errno("epoll_ctl");
}

void ServerLoop::stop() noexcept {
    stopping_.store(true, std::memory_order_release);
    os::signal_eventfd(wake_);
}

void ServerLoop::post(std::function<void()> function) {
    {
        const std::lock_guard guard(posted_mutex_);
        posted_.push_back(std::move(function));
    }
    os::signal_eventfd(wake_);
}

void ServerLoop::resume(std::uint64_t connection) noexcept {
    {
        const std::lock_guard guard(posted_mutex_);
        resumed_.push_back(connection);
    }
    os::signal_eventfd(wake_);
}

void ServerLoop::adopt(std::uint64_t number, FileDescriptor socket) {
    load_.fetch_add(1, std::memory_order_relaxed);
    if (on_own_thread()) return take_in(number, std::move(socket));
    // A std::function must be copyable, which a descriptor is not.
    post([this, number, shared = std::make_shared<FileDescriptor>(std::move(socket))] {
        take_in(number, std::move(*shared));
    });
}

void ServerLoop::take_in(std::uint64_t number, FileDescriptor socket) {
    const std::int64_t deadline = os::deadline_after(std::chrono::nanoseconds(handshake_timeout_));
    const int fd = socket.fileno();
    const auto connection = std::make_shared<ServerConnection>(*this, number, std::move(socket), authkey_, deadline);
    epoll_event event{};
    event.events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | static_cast<std::uint32_t>(EPOLLET);
    event.data.u64 = number;
    if (::epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, fd, &event) != 0) {
        load_.fetch_sub(1, std::memory_order_relaxed);
        log(LogLevel::warning, "a manager's client is turned away: " + os::errno_text(errno));
        return;
    }
    connections_.emplace(number, connection);
    shaking_.insert(number);
    connection->set_timer(deadline, nullptr);
    if (shaking_.size() > kMostShaking) {
        const auto oldest = connections_.at(*shaking_.begin());
        turn_away(oldest->fileno(), "too many others prove that they know the key, and it was slow");
        oldest->end();
    }
}

void ServerLoop::forget(std::uint64_t connection) {
    shaking_.erase(connection);
    if (connections_.erase(connection) != 0) load_.fetch_sub(1, std::memory_order_relaxed);
}

void ServerLoop::turn_away(int socket, const char* why) const {
    SocketAddress peer;
    peer.size = sizeof peer.bytes;
    std::string from;
    if (::getpeername(socket, peer.get(), &peer.size) == 0) from = peer.to_string();
    log(LogLevel::warning, "a client" + (from.empty() ? from : " from " + from) + " of the manager at " +
                               core_->address + " was turned away: " + why);
}

void ServerLoop::move_timer(std::uint64_t connection, std::int64_t from, std::int64_t to) {
    if (from != os::kNever) timers_.erase({from, connection});
    if (to != os::kNever) timers_.emplace(to, connection);
}

namespace {

// What one client brings about ends its own connection, never the server.
template <class Work>
void attend(ServerConnection& connection, Work work) {
    try {
        work();
    } catch (const std::exception& error) {
        log(LogLevel::error, std::string("a manager's client is dropped: ") + error.what());
        connection.end();
    }
}

}    // namespace

void ServerLoop::run_timers() {
    while (!timers_.empty() && timers_.begin()->first <= os::now_ns()) {
        const std::uint64_t number = timers_.begin()->second;
        timers_.erase(timers_.begin());
        const auto found = connections_.find(number);
        if (found == connections_.end()) continue;
        const auto connection = found->second;
        attend(*connection, [&] { connection->on_time(); });
    }
}

void ServerLoop::run_posted() {
    os::drain_eventfd(wake_);
    std::vector<std::function<void()>> functions;
    std::vector<std::uint64_t> resumed;
    {
        const std::lock_guard guard(posted_mutex_);
        functions.swap(posted_);
        resumed.swap(resumed_);
    }
    for (const auto& function : functions) function();
    for (const std::uint64_t number : resumed) {
        if (const auto found = connections_.find(number); found != connections_.end()) {
            const auto connection = found->second;
            attend(*connection, [&] { connection->resume(); });
        }
    }
}

// A new window of time: who was served in the last one counts until the end of this one.
void ServerLoop::enter_window(std::int64_t now_ns) {
    const std::int64_t window = now_ns >> kWindowBits;
    if (window == window_) return;
    served_before_ = window == window_ + 1 ? served_now_ : 0;
    served_now_ = 0;
    window_ = window;
    publish_busy();
}

void ServerLoop::count_served() noexcept {
    if (++served_now_ > served_before_) publish_busy();
}

void ServerLoop::publish_busy() noexcept {
    const std::size_t clients = std::min<std::size_t>(std::max(served_now_, served_before_), kMostBusy);
    busy_.store(static_cast<std::uint64_t>(window_) << kBusyBits | clients, std::memory_order_relaxed);
}

// What a loop said that sleeps since then no longer counts.
std::size_t ServerLoop::busy_clients(std::int64_t window) const noexcept {
    const std::uint64_t busy = busy_.load(std::memory_order_relaxed);
    const auto said = static_cast<std::int64_t>(busy >> kBusyBits);
    return window - said <= 1 ? busy & kMostBusy : 0;
}

// Looks for events without sleeping, for as long as that has lately been worth it; nothing when there were none.
std::optional<int> ServerLoop::wait_awake(std::span<epoll_event> events, std::int64_t& now) {
    if (awake_ns_ == 0 || now < asleep_until_) return std::nullopt;
    const std::int64_t start = now;
    // Whoever has a mailbox gives way between two looks, and so do we: then it does no harm that there are more of us than processors.
    const bool gives_way = mailboxes_.any_open();
    const std::size_t awake = loops_awake.fetch_add(1, std::memory_order_relaxed) + 1;
    std::optional<int> count;
    while (gives_way || awake + host_.busy_clients(window_) <= processors()) {
        // Mailboxes that are rung without a pause don't keep it from the sockets.
        if (mailboxes_.any_rung() && now - last_look_ < kLookNs) {
            count = 0;
            break;
        }
        last_look_ = now;
        const int found = ::epoll_wait(epoll_.get(), events.data(), static_cast<int>(events.size()), 0);
        if (found != 0 || mailboxes_.any_rung()) {
            count = found;
            break;
        }
        if (gives_way) {
            for (int i = 0; i < kLooksAtBells && !mailboxes_.any_rung(); ++i) os::relax_cpu();
            ::sched_yield();
        } else {
            os::relax_cpu();
        }
        const std::int64_t then = std::exchange(now, os::now_ns());
        if (now - then > (gives_way ? kPushedOutNs : kPreemptedNs) && !mailboxes_.any_rung()) {
            asleep_until_ = now + kAsleepNs;
            break;
        }
        if (now - start > awake_ns_) {
            awake_ns_ /= 2;
            break;
        }
    }
    loops_awake.fetch_sub(1, std::memory_order_relaxed);
    return count;
}

void ServerLoop::serve_mailboxes() {
    mailboxes_.for_each_rung([&](std::uint64_t number) {
        const auto found = connections_.find(number);
        if (found == connections_.end()) return;
        const auto connection = found->second;
        attend(*connection, [&] { connection->look_into_mailbox(); });
    });
}

int ServerLoop::wait(std::span<epoll_event> events) {
    std::int64_t now = os::now_ns();
    enter_window(now);
    if (const auto count = wait_awake(events, now)) return *count;
    const bool sleeps = mailboxes_.fall_asleep();
    int timeout = sleeps ? -1 : 0;
    if (const std::int64_t next = std::min(timers_.empty() ? os::kNever : timers_.begin()->first, next_tick_);
        sleeps && next != os::kNever) {
        // Rounded up: a moment too early would be a turn for nothing.
        timeout = static_cast<int>(std::clamp<std::int64_t>((next - now + 999'999) / 1'000'000, 0, 3'600'000));
    }
    const int count = ::epoll_wait(epoll_.get(), events.data(), static_cast<int>(events.size()), timeout);
    mailboxes_.wake_up();
    last_look_ = os::now_ns();
    const std::int64_t slept = last_look_ - now;
    if (count > 0 && slept < kLongestAwakeNs) awake_ns_ = kLongestAwakeNs;
    enter_window(now + slept);
    return count;
}

void ServerLoop::run() {
    thread_.store(std::this_thread::get_id(), std::memory_order_relaxed);
    std::array<epoll_event, 256> events;
    while (!stopping_.load(std::memory_order_acquire)) {
        const int count = wait(events);
        if (count < 0 && errno != EINTR) os::throw_errno("epoll_wait");
        for (int i = 0; i < count; ++i) {
            const epoll_event& event = events[static_cast<std::size_t>(i)];
            if (event.data.u64 == kWakeTag) {
                run_posted();
            } else if ((event.data.u64 & kHostTag) != 0) {
                host_.on_event(event.data.u64 & ~kHostTag);
            } else if (const auto found = connections_.find(event.data.u64); found != connections_.end()) {
                const auto connection = found->second;
                attend(*connection, [&] { connection->on_events(event.events); });
            }
        }
        serve_mailboxes();
        run_timers();
        if (os::now_ns() >= next_tick_) {
            host_.on_tick();
            next_tick_ = os::deadline_after(std::chrono::nanoseconds(kTickNs));
        }
    }
    while (!connections_.empty()) {
        const auto connection = connections_.begin()->second;
        connection->end();
    }
    run_posted();    // who was on his way in
    while (!connections_.empty()) {
        const auto connection = connections_.begin()->second;
        connection->end();
    }
}

}    // namespace multihull::detail
