#include "pool/monitor.hpp"

#include "os/clock.hpp"
#include "os/fault.hpp"
#include "os/memory.hpp"
#include "os/message.hpp"
#include "os/process.hpp"
#include "os/unix_socket.hpp"
#include "pool/engine.hpp"
#include "pool/monitor_wire.hpp"
#include "process/self.hpp"

#include <multihull/detail/token.hpp>
#include <multihull/error.hpp>
#include <multihull/log.hpp>

#include <atomic>
#include <cerrno>
#include <cstdlib>
#include <string>
#include <string_view>
#include <sys/random.h>
#include <thread>
#include <unistd.h>

namespace multihull::detail {

namespace {

constexpr std::size_t kDeaths = 32;
constexpr int kAnsweredAtOnce = 4;    // then it is the pools' turn again
constexpr std::int64_t kAcceptPause = 1'000'000'000;

// The socket of this process, for forked children to close: a name must be gone with the program that answers to it.
constinit std::atomic<int> listening{-1};
constinit std::atomic<Monitor*> the_monitor{nullptr};
constinit std::atomic<bool> making{false};

void in_forked_child() noexcept {
    const int fd = listening.exchange(-1, std::memory_order_relaxed);
    if (fd >= 0) ::close(fd);
    // Its mutex may be held for ever: the object is left behind as it is.
    the_monitor.store(nullptr, std::memory_order_relaxed);
    making.store(false, std::memory_order_relaxed);
}

const ForkChildHook kCloseSocket(&in_forked_child);

std::string socket_name() {
    std::uint64_t nonce = 0;    // so that nobody else can have taken the name before
    if (::getrandom(&nonce, sizeof nonce, 0) != sizeof nonce) nonce = static_cast<std::uint64_t>(os::now_ns());
    return std::string(kMonitorPrefix) + std::to_string(::geteuid()) + '/' + std::to_string(::getpid()) + '/' +
           std::to_string(nonce);
}

FunctionOnWire function_on_wire(const HeldTask& task) {
    const ThunkRegistration* const thunk = find_thunk(task.token);
    if (thunk == nullptr) return {};
    FunctionOnWire function{.type = thunk->callable().name()};
    if (thunk->by_pointer()) {
        try {
            function.address = reinterpret_cast<std::uintptr_t>(code_of(task.leading));
        } catch (const Error&) {
            // What a worker gone wild has written names nothing.
        }
    }
    return function;
}

PoolOnWire pool_on_wire(const Engine& engine) {
    PoolSnapshot now = engine.snapshot(kDeaths);
    PoolOnWire pool{.stats = std::move(now.stats)};
    for (const auto& held : now.held) {
        pool.functions.push_back(held ? std::optional(function_on_wire(*held)) : std::nullopt);
    }
    const std::int64_t now_ns = os::now_ns();
    for (const Death& death : now.deaths) {
        FailureOnWire failure{.age = std::chrono::nanoseconds(now_ns - death.when_ns),
                              .worker = death.worker,
                              .pid = death.pid,
                              .outcome = death.outcome,
                              .what = death.what,
                              .last_stderr = death.last_stderr};
        if (death.held) failure.function = function_on_wire(death.task);
        const auto addresses = death.stack.addresses();
        failure.stack.assign(addresses.begin(), addresses.end());
        pool.failures.push_back(std::move(failure));
    }
    return pool;
}

}    // namespace

bool wants_monitor(std::optional<bool> publish) noexcept {
    if (publish) return *publish;
    const char* const wish = std::getenv("MULTIHULL_MONITOR");
    return wish != nullptr && *wish != '\0' && std::string_view(wish) != "0";
}

std::shared_ptr<Monitor> Monitor::made() {
    watch_forks();
    auto monitor = std::make_shared<Monitor>();
    monitor->listener_ = os::make_unix_socket();
    listening.store(monitor->listener_.get(), std::memory_order_relaxed);
    try {
        os::listen_at(monitor->listener_, socket_name());
        Supervisor::instance().watch(monitor->listener_.get(), monitor);
        Supervisor::instance().add(monitor);    // which keeps it for as long as the process lives
    } catch (...) {
        Supervisor::instance().unwatch(monitor->listener_.get());
        listening.store(
            -1, std::memory_order_relaxed);    // before its number is another's, which forked children would close
        throw;
    }
    return monitor;
}

std::shared_ptr<Monitor> Monitor::instance() {
    if (Monitor* const known = the_monitor.load(std::memory_order_acquire)) return known->shared_from_this();
    // A spin lock, because a forked child can reset it whatever thread of the parent held it.
    while (making.exchange(true, std::memory_order_acquire)) std::this_thread::yield();
    struct Release {
        ~Release() { making.store(false, std::memory_order_release); }
    } release;
    if (Monitor* const known = the_monitor.load(std::memory_order_acquire)) return known->shared_from_this();
    std::shared_ptr<Monitor> monitor = made();
    the_monitor.store(monitor.get(), std::memory_order_release);
    return monitor;
}

void Monitor::publish(const std::shared_ptr<Engine>& engine) noexcept {
    try {
        const std::shared_ptr<Monitor> monitor = instance();
        const std::lock_guard guard(monitor->mutex_);
        std::erase_if(monitor->engines_, [](const auto& old) { return old.expired(); });
        monitor->engines_.push_back(engine);
    } catch (const std::exception& error) {
        log(LogLevel::warning, std::string("a pool can't be shown to multihull top: ") + error.what());
    }
}

std::vector<std::byte> Monitor::snapshot() {
    std::vector<std::shared_ptr<Engine>> engines;
    {
        const std::lock_guard guard(mutex_);
        for (const auto& candidate : engines_) {
            if (auto engine = candidate.lock()) engines.push_back(std::move(engine));
        }
    }
    ProgramOnWire program;
    for (const auto& engine : engines) program.pools.push_back(pool_on_wire(*engine));
    VectorGrowth growth;
    Writer writer({}, growth);
    encode(writer, program);
    const auto bytes = writer.bytes();
    return {bytes.begin(), bytes.end()};
}

void Monitor::answer(const os::Fd& socket) {
    const auto peer = os::peer_of(socket);
    if (!peer || peer->uid != ::geteuid()) return;
    const std::vector<std::byte> bytes = snapshot();
    const os::Fd memory = os::make_memfd("multihull monitor", bytes.size());
    if (!os::write_all(memory.get(), std::span(reinterpret_cast<const char*>(bytes.data()), bytes.size()))) return;
    const MonitorGreeting greeting{.size = bytes.size()};
    const int fd = memory.get();
    os::send_message(socket, std::as_bytes(std::span(&greeting, 1)), std::span(&fd, 1), false);
}

void Monitor::on_readable(int fd) {
    for (int n = 0; n < kAnsweredAtOnce; ++n) {
        const os::Fd socket = os::accept_now(listener_);
        if (socket) {
            answer(socket);
            continue;
        }
        const bool nobody = errno == EAGAIN || errno == EINTR || errno == ECONNABORTED;
        if (!nobody) {
            // No descriptor is left, say. Who waits keeps the socket readable: without a pause the supervisor would do nothing else.
            Supervisor::instance().unwatch(fd);
            resume_at_ns_ = os::now_ns() + kAcceptPause;
        }
        return;
    }
}

std::int64_t Monitor::tick(std::int64_t now_ns) {
    if (now_ns < resume_at_ns_) return resume_at_ns_;
    resume_at_ns_ = os::kNever;
    Supervisor::instance().watch(listener_.get(), shared_from_this());
    return os::kNever;
}

}    // namespace multihull::detail
