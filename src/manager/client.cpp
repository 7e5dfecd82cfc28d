#include "manager/client.hpp"

#include "manager/family.hpp"
#include "manager/pickle.hpp"
#include "os/clock.hpp"
#include "os/poll.hpp"
#include "os/process.hpp"
#include "os/stream.hpp"
#include "process/self.hpp"

#include <multihull/process.hpp>

#include <algorithm>
#include <array>
#include <pthread.h>
#include <ranges>
#include <sched.h>

namespace multihull::detail {

void manager_clients_after_fork() noexcept;

namespace {

constexpr std::size_t kHeader = 4;
constexpr std::size_t kLongHeader = 12;
constexpr std::uint32_t kLongestShort = 0x7fffffff;
constexpr std::size_t kFirstRoom = std::size_t{64} << 10;
// A reply that is quick comes within this time; longer than it nobody waits awake.
constexpr std::int64_t kAwakeNs = 30'000;
// After so many late replies in a row the next is slept for at once.
constexpr int kPatience = 3;

/// The clients of this process. Leaked: proxies with static lifetime go after everything else.
struct Clients {
    std::mutex mutex;
    std::vector<ManagerClient*> all;
};

void clients_before_fork() noexcept;
void clients_forked() noexcept;

Clients& clients() {
    static auto* const the_clients = new Clients;
    static const bool watching = [] {
        watch_forks();
        ::pthread_atfork(clients_before_fork, clients_forked, manager_clients_after_fork);
        return true;
    }();
    static_cast<void>(watching);
    return *the_clients;
}

void clients_before_fork() noexcept { clients().mutex.lock(); }
void clients_forked() noexcept { clients().mutex.unlock(); }

std::uint64_t next_client_id() noexcept {
    static std::atomic<std::uint64_t> last{0};
    return last.fetch_add(1, std::memory_order_relaxed) + 1;
}

/// The connections of one thread, closed when it ends.
class ThreadLinks {
public:
    ~ThreadLinks() {
        for (const Entry& entry : entries_) {
            if (const auto client = entry.client.lock(); client && client->is_ours()) client->forget(entry.link);
        }
    }
    ManagerLink* find(std::uint64_t id) const noexcept {
        for (const Entry& entry : entries_) {
            if (entry.id == id) return entry.link;
        }
        return nullptr;
    }
    void add(std::uint64_t id, std::weak_ptr<ManagerClient> client, ManagerLink* link) {
        std::erase_if(entries_, [](const Entry& entry) { return entry.client.expired(); });
        entries_.push_back({id, std::move(client), link});
    }
    void remove(std::uint64_t id) noexcept {
        std::erase_if(entries_, [&](const Entry& entry) { return entry.id == id; });
    }

private:
    struct Entry {
        std::uint64_t id;
        std::weak_ptr<ManagerClient> client;
        ManagerLink* link;
    };
    std::vector<Entry> entries_;
};

ThreadLinks& thread_links() {
    thread_local ThreadLinks links;
    return links;
}

bool several_processors() noexcept {
    static const bool several = os::usable_cpus() > 1;
    return several;
}

std::uint64_t big_endian(const std::byte* bytes, std::size_t count) noexcept {
    std::uint64_t value = 0;
    for (std::size_t i = 0; i < count; ++i) value = value << 8 | std::to_integer<std::uint64_t>(bytes[i]);
    return value;
}

std::string make_request(Object ident, std::string_view method, Object args, Object kwargs) {
    std::vector<Object> parts;
    parts.reserve(4);
    parts.push_back(std::move(ident));
    parts.emplace_back(method);
    parts.push_back(std::move(args));
    parts.push_back(std::move(kwargs));
    return pickle(Object::tuple(std::move(parts)));
}

// A unix socket.
bool is_local(std::string_view address) { return address.starts_with('/') || address.starts_with('@'); }

// Which object a control call is about.
std::string ident_in(std::string_view method, const Object& args) {
    return method == "incref" || method == "decref" ? args.at(0).as_str() : std::string();
}

[[noreturn]] void throw_no_reply() {
    throw Error("what a manager's server answered is no reply of its protocol: is something else listening there?");
}

ManagerReply parts_of(const Object& reply) {
    if (reply.type() != Object::Type::tuple || reply.size() != 2) throw_no_reply();
    const std::span<const Object> parts = reply.elements();
    if (parts[0].type() != Object::Type::str) throw_no_reply();
    return {parts[0].as_str(), parts[1]};
}

ManagerReply parse_reply(std::span<const std::byte> body) {
    try {
        return parts_of(unpickle(body, PickleGlobals::of_client()));
    } catch (const UnpicklingError&) {
        // An exception of a type of the program's own is told by its name.
        ManagerReply reply = parts_of(unpickle(body, PickleGlobals::any()));
        if (reply.kind != "#ERROR") throw;
        return reply;
    }
}

}    // namespace

// One connection.

ManagerReply ManagerLink::exchange(std::string_view request) {
    asked_at_ = os::now_ns();
    if (mailbox_) return exchange_by_mailbox(request);
    if (asks_left_ >= 0 && asks_left_-- == 0) {
        ask_for_mailbox();
        return exchange(request);
    }
    connection_.send_bytes(request);
    return receive_reply();
}

// Without one everything goes over the socket, as with servers that know of none.
void ManagerLink::ask_for_mailbox() {
    if (!shm::Region::exists()) return;
    const FamilyId family = FamilyId::own();
    connection_.send_bytes(make_request(nullptr, "mailbox",
                                        Object::tuple({Object::bytes(std::as_bytes(std::span(family.id)))}),
                                        Object::dict()));
    const ManagerReply reply = receive_reply();
    if (reply.kind != "#RETURN" || reply.value.type() != Object::Type::tuple || reply.value.size() != 2) return;
    try {
        mailbox_.emplace(reply.value.at(0).as_bytes(), reply.value.at(1).as<std::uint32_t>());
    } catch (const Error&) {
        // The server has ended meanwhile, which the next request is told.
    }
}

ManagerReply ManagerLink::exchange_by_mailbox(std::string_view request) {
    const bool awake = several_processors() && late_replies_ < kPatience;
    if (!mailbox_->post(std::as_bytes(std::span(request)), awake)) connection_.send_bytes(request);
    if (awake ? look_for_answer() : !mailbox_->stop_looking()) return parse_reply(mailbox_->take(in_));
    return receive_reply();
}

// False where the answer comes over the socket.
bool ManagerLink::look_for_answer() {
    for (;;) {
        switch (mailbox_->look()) {
            case ClientMailbox::Next::take:
                late_replies_ = 0;
                return true;
            case ClientMailbox::Next::receive:
                return false;
            case ClientMailbox::Next::look_again:
                break;
        }
        if (os::now_ns() - asked_at_ > kAwakeNs) break;
        ::sched_yield();
    }
    return !mailbox_->stop_looking();
}

ManagerReply ManagerLink::receive_reply() {
    std::size_t have = receive(0);
    while (have < kHeader) have = receive(have);
    std::size_t header = kHeader;
    std::uint64_t length = big_endian(in_.data(), kHeader);
    if (length > kLongestShort) {
        if (length != 0xffffffff) {
            connection_.close();
            throw_no_reply();
        }
        header = kLongHeader;
        while (have < header) have = receive(have);
        length = big_endian(in_.data() + kHeader, 8);
    }
    while (have - header < length) have = receive(have);
    if (have - header > length) {    // more than was asked for
        connection_.close();
        throw_no_reply();
    }
    ManagerReply reply = parse_reply(std::span(in_).subspan(header, static_cast<std::size_t>(length)));
    if (in_.size() > 16 * kFirstRoom) in_ = {};
    return reply;
}

// Receives behind the first `have` bytes of in_: how many there are then. Memory grows as bytes come.
std::size_t ManagerLink::receive(std::size_t have) {
    if (have == in_.size()) in_.resize(std::max(kFirstRoom, 2 * have));
    const int socket = connection_.fileno();
    bool awake = several_processors() && late_replies_ < kPatience;
    for (;;) {
        const os::Streamed result = os::receive_some(socket, std::span(in_).subspan(have));
        if (result.end == os::StreamEnd::none) {
            late_replies_ = os::now_ns() - asked_at_ < kAwakeNs ? 0 : std::min(late_replies_ + 1, kPatience);
            return have + result.bytes;
        }
        if (result.end != os::StreamEnd::timeout) {
            connection_.close();
            throw EndOfFile("the connection was closed before the reply had come");
        }
        // Without sleeping as long as replies come quickly.
        if (awake) awake = os::now_ns() - asked_at_ < kAwakeNs;
        if (awake) {
            ::sched_yield();
        } else {
            os::wait_readable(socket, os::kNever);
        }
    }
}

// The client.

std::mutex& managers_mutex() noexcept { return clients().mutex; }

void manager_clients_after_fork() noexcept {
    Clients& all = clients();
    for (ManagerClient* client : all.all) {
        for (const auto& link : client->links_) link->abandon();
        if (client->session_) client->session_->abandon();
    }
    all.all.clear();
    all.mutex.unlock();
}

ManagerClient::ManagerClient(std::string address, std::string authkey)
    : address_(std::move(address)),
      authkey_(std::move(authkey)),
      id_(next_client_id()),
      generation_(fork_generation()) {}

ManagerClient::~ManagerClient() {
    if (!is_ours()) return;
    Clients& all = clients();
    const std::lock_guard lock(all.mutex);
    std::erase(all.all, this);
}

bool ManagerClient::is_ours() const noexcept { return generation_ == fork_generation(); }

std::shared_ptr<ManagerClient> ManagerClient::of(const std::string& address, const std::string& authkey) {
    Clients& all = clients();
    auto fresh = std::make_shared<ManagerClient>(address, authkey);
    std::shared_ptr<ManagerClient> known;    // outlives the lock, which its destructor takes
    const std::lock_guard lock(all.mutex);
    for (ManagerClient* client : all.all) {
        if (client->address_ != address || client->authkey_ != authkey) continue;
        known = client->weak_from_this().lock();
        if (known) return known;
    }
    all.all.push_back(fresh.get());
    return fresh;
}

std::optional<std::string> ManagerClient::known_key(const std::string& address) {
    Clients& all = clients();
    const std::lock_guard lock(all.mutex);
    for (const ManagerClient* client : std::views::reverse(all.all)) {
        if (client->address_ == address) return client->authkey_;
    }
    return std::nullopt;
}

Connection ManagerClient::connect() const {
    try {
        return Client(address_, {.authkey = authkey_});
    } catch (const AuthenticationError& error) {
        // That it ended in the middle of the handshake says nothing of keys.
        if (!std::string_view(error.what()).ends_with("it closed the connection")) throw;
        throw_manager_gone(address_, error.what());
    } catch (const WaitTimeout& error) {
        throw_manager_gone(address_, error.what());
    } catch (const Error& error) {
        throw_manager_gone(address_, error.what());
    }
}

std::unique_ptr<ManagerLink> ManagerClient::open_link() {
    auto link = std::make_unique<ManagerLink>(connect());
    const ManagerReply reply =
        exchange(*link, make_request(nullptr, "accept_connection", Object::tuple({Object(current_process().name())}),
                                     Object::dict()));
    const Object value = returned(reply);
    // Ours says so; Python answers None.
    const bool ours = value.type() == Object::Type::dict && value.contains("multihull");
    server_.store(ours ? Server::multihull : Server::python, std::memory_order_relaxed);
    if (ours && is_local(address_)) link->wants_mailbox();
    return link;
}

ManagerLink& ManagerClient::own_link() {
    if (ManagerLink* const known = thread_links().find(id_)) return *known;
    auto fresh = open_link();
    ManagerLink* const link = fresh.get();
    {
        const std::lock_guard lock(clients().mutex);
        links_.push_back(std::move(fresh));
    }
    thread_links().add(id_, weak_from_this(), link);
    return *link;
}

void ManagerClient::forget(const ManagerLink* link) noexcept {
    std::unique_ptr<ManagerLink> closed;    // after the lock
    const std::lock_guard lock(clients().mutex);
    const auto place =
        std::find_if(links_.begin(), links_.end(), [&](const auto& entry) { return entry.get() == link; });
    if (place == links_.end()) return;
    closed = std::move(*place);
    links_.erase(place);
}

ManagerReply ManagerClient::exchange(ManagerLink& link, std::string_view request) const {
    try {
        return link.exchange(request);
    } catch (const EndOfFile& error) {
        throw_manager_gone(address_, error.what());
    }
}

// Over this thread's connection.
ManagerReply ManagerClient::exchange_here(std::string_view request) {
    ManagerLink& link = own_link();
    try {
        return exchange(link, request);
    } catch (...) {
        if (link.closed()) {
            thread_links().remove(id_);
            forget(&link);
        }
        throw;
    }
}

bool ManagerClient::is_multihull() {
    if (server_.load(std::memory_order_relaxed) == Server::unknown) own_link();
    return server_.load(std::memory_order_relaxed) == Server::multihull;
}

ManagerReply ManagerClient::call(std::string_view ident, std::string_view method, Object args, Object kwargs) {
    return exchange_here(make_request(Object(ident), method, std::move(args), std::move(kwargs)));
}

Object ManagerClient::control(std::string_view method, Object args, Object kwargs) {
    if (!is_multihull()) {
        return control_once(method, std::move(args), std::move(kwargs));
    }
    const std::string ident = ident_in(method, args);
    const std::string request = make_request(nullptr, method, std::move(args), std::move(kwargs));
    const std::lock_guard session_lock(session_mutex_);
    if (!session_) {
        auto fresh = open_link();
        const std::lock_guard lock(clients().mutex);
        session_ = std::move(fresh);
    }
    try {
        return returned(exchange(*session_, request), ident);
    } catch (...) {
        std::unique_ptr<ManagerLink> ended;    // after the lock: its mailbox takes another one
        if (session_->closed()) {
            const std::lock_guard lock(clients().mutex);
            ended = std::move(session_);
        }
        throw;
    }
}

void ManagerClient::give_back(const std::string& ident) {
    const Object args = Object::tuple({Object(ident)});
    if (!is_multihull()) {
        control_once("decref", args);
    } else {
        returned(exchange_here(make_request(nullptr, "decref", args, Object::dict())));
    }
}

Object ManagerClient::control_once(std::string_view method, Object args, Object kwargs) {
    const std::string ident = ident_in(method, args);
    const std::string request = make_request(nullptr, method, std::move(args), std::move(kwargs));
    ManagerLink link(connect());
    return returned(exchange(link, request), ident);
}

void ManagerClient::shut_down(std::chrono::nanoseconds timeout) const {
    Connection connection = Client(address_, {.authkey = authkey_, .timeout = timeout});
    connection.set_timeout(timeout);
    connection.send_bytes(make_request(nullptr, "shutdown", Object::tuple(), Object::dict()));
    returned(parse_reply(connection.recv_bytes()));
}

}    // namespace multihull::detail
