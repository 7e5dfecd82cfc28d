#include "manager/server.hpp"

#include "manager/python_address.hpp"
#include "manager/server_loop.hpp"
#include "manager/server_session.hpp"
#include "manager/slow_calls.hpp"
#include "os/clock.hpp"
#include "os/process.hpp"
#include "os/thread.hpp"

#include <multihull/connection.hpp>
#include <multihull/log.hpp>

#include <algorithm>
#include <cerrno>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <thread>
#include <unordered_map>
#include <utility>
#include <vector>

namespace multihull::detail {

namespace {

constexpr int kBacklog = 4096;
constexpr std::uint64_t kListenerTag = 0;    // processes have the others
// A client that takes a proxy out of a referent counts its reference a moment later.
constexpr std::int64_t kCollectGraceNs = 60'000'000'000;
constexpr std::int64_t kShortageLogNs = 1'000'000'000;

FileDescriptor spare_descriptor() { return FileDescriptor(::open("/dev/null", O_RDONLY | O_CLOEXEC)); }

// A machine that has gone without a word is noticed, and small answers are not kept back; a unix socket needs neither.
void set_up(int socket) noexcept {
    const int one = 1;
    ::setsockopt(socket, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    ::setsockopt(socket, SOL_SOCKET, SO_KEEPALIVE, &one, sizeof one);
}

bool has_ended(const os::Fd& pidfd) noexcept {
    pollfd entry{pidfd.get(), POLLIN, 0};
    return ::poll(&entry, 1, 0) > 0;
}

}    // namespace

struct ManagerServer::State final : LoopHost {
    struct Client {
        std::shared_ptr<ClientProcess> process;
        pid_t pid = 0;
        os::Fd pidfd;
    };

    explicit State(ManagerServerOptions options)
        : listener(options.address, {.authkey = {}, .backlog = kBacklog}),
          core(std::make_shared<ServerCore>()),
          spare(spare_descriptor()) {
        if (options.authkey.empty()) throw Error("a manager's server needs a key, which its clients must know");
        core->types = std::move(options.types);
        core->address = listener.address();
        core->python_address = address_to_python(core->address);
        core->largest_message = options.largest_message;
        core->stop = [this] { stop(); };
        core->run_slow = [this](std::function<void()> function) { slow.run(std::move(function)); };
        const std::size_t threads =
            options.threads != 0 ? options.threads : std::clamp<std::size_t>(os::usable_cpus() / 2, 1, 8);
        for (std::size_t i = 0; i < threads; ++i) {
            loops.push_back(std::make_unique<ServerLoop>(*this, core, options.authkey,
                                                         options.handshake_timeout.count(), i == 0));
        }
        const int flags = ::fcntl(listener.fileno(), F_GETFL);
        ::fcntl(listener.fileno(), F_SETFL, flags | O_NONBLOCK);
        loops.front()->watch(listener.fileno(), kListenerTag);
    }

    ~State() override {
        // What is called late by somebody who still has a parked call must not come here.
        core->stop = [] {};
    }

    void stop() noexcept {
        for (const auto& loop : loops) loop->stop();
    }

    void serve() {
        // However it ends: where one of them can't be started, too.
        struct Others {
            State& state;
            std::vector<std::thread> threads;
            ~Others() {
                state.stop();
                for (std::thread& thread : threads) thread.join();
            }
        } others{*this, {}};
        others.threads.reserve(loops.size());
        for (std::size_t i = 1; i < loops.size(); ++i) {
            others.threads.push_back(os::start_thread("mh-manager", [this, i] { loops[i]->run(); }));
        }
        loops.front()->run();
    }

    std::shared_ptr<ClientProcess> process_behind(int socket) override;
    void on_event(std::uint64_t tag) override;
    std::size_t busy_clients(std::int64_t window) const noexcept override {
        std::size_t busy = 0;
        for (const auto& loop : loops) busy += loop->busy_clients(window);
        return busy;
    }
    void on_tick() override { core->registry.collect(os::now_ns(), kCollectGraceNs); }
    void accept_clients();
    bool turn_one_away();

    Listener listener;
    std::shared_ptr<ServerCore> core;
    std::vector<std::unique_ptr<ServerLoop>> loops;
    FileDescriptor spare;
    std::int64_t last_shortage = 0;
    std::atomic<std::uint64_t> next_number{1};    // of connections and processes

    std::mutex clients_mutex;
    std::unordered_map<std::uint64_t, Client> clients;    // by the process's number
    std::unordered_map<pid_t, std::uint64_t> clients_by_pid;
    SlowCalls slow;    // ends first: its calls use the rest
};

std::shared_ptr<ClientProcess> ManagerServer::State::process_behind(int socket) {
    ucred peer{};
    socklen_t size = sizeof peer;
    if (::getsockopt(socket, SOL_SOCKET, SO_PEERCRED, &peer, &size) != 0 || peer.pid <= 0) return nullptr;
    const std::lock_guard guard(clients_mutex);
    if (const auto known = clients_by_pid.find(peer.pid); known != clients_by_pid.end()) {
        const Client& client = clients.at(known->second);
        if (!has_ended(client.pidfd)) return client.process;
        clients_by_pid.erase(known);    // another process has its number now
    }
    try {
        Client client{.process = std::make_shared<ClientProcess>(next_number.fetch_add(1)),
                      .pid = peer.pid,
                      .pidfd = os::open_pidfd(peer.pid)};
        const std::uint64_t number = client.process->number();
        loops.front()->watch(client.pidfd.get(), number);
        std::shared_ptr<ClientProcess> process = client.process;
        clients.emplace(number, std::move(client));
        clients_by_pid.insert_or_assign(peer.pid, number);
        return process;
    } catch (const std::system_error&) {
        return nullptr;    // it has ended, or is of another pid namespace: the connection is all that we know of it
    }
}

void ManagerServer::State::on_event(std::uint64_t tag) {
    if (tag == kListenerTag) return accept_clients();
    std::shared_ptr<ClientProcess> process;
    {
        const std::lock_guard guard(clients_mutex);
        const auto client = clients.find(tag);
        if (client == clients.end()) return;
        process = client->second.process;
        const auto by_pid = clients_by_pid.find(client->second.pid);
        if (by_pid != clients_by_pid.end() && by_pid->second == tag) clients_by_pid.erase(by_pid);
        clients.erase(client);    // closes the pidfd, and so ends the watch
    }
    process->end();
    core->registry.release(process->number());
}

// A client that can't be accepted would wake us for ever: a spare descriptor is given up to turn it away. False when there is none:
// accept4() says that descriptors are missing before it looks whether anybody waits.
bool ManagerServer::State::turn_one_away() {
    spare.close();
    const bool turned_away =
        static_cast<bool>(FileDescriptor(::accept4(listener.fileno(), nullptr, nullptr, SOCK_CLOEXEC)));
    spare = spare_descriptor();
    if (!turned_away) return false;
    if (const std::int64_t now = os::now_ns(); last_shortage == 0 || now - last_shortage > kShortageLogNs) {
        last_shortage = now;
        log(LogLevel::warning, "the manager at " + listener.address() +
                                   " has no descriptor left for a client: raise the limit on open files (ulimit -n)");
    }
    return true;
}

void ManagerServer::State::accept_clients() {
    for (;;) {
        if (!spare) spare = spare_descriptor();
        FileDescriptor client(::accept4(listener.fileno(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
        if (!client) {
            if (errno == EMFILE || errno == ENFILE) {
                if (turn_one_away()) continue;
                return;    // whoever comes now is heard of by the next event
            }
            if (errno == EINTR || errno == ECONNABORTED) continue;
            return;
        }
        set_up(client.fileno());
        ServerLoop* least = loops.front().get();
        for (const auto& loop : loops) {
            if (loop->load() < least->load()) least = loop.get();
        }
        least->adopt(next_number.fetch_add(1), std::move(client));
    }
}

ManagerServer::ManagerServer(ManagerServerOptions options) : state_(std::make_unique<State>(std::move(options))) {}

ManagerServer::~ManagerServer() = default;

const std::string& ManagerServer::address() const { return state_->listener.address(); }

void ManagerServer::serve_forever() { state_->serve(); }

void ManagerServer::stop() noexcept { state_->stop(); }

}    // namespace multihull::detail
