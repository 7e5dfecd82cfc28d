#include "process/exchange.hpp"

#include "os/clock.hpp"
#include "os/fault.hpp"
#include "os/message.hpp"
#include "os/poll.hpp"
#include "os/process.hpp"
#include "process/self.hpp"
#include "process/supervisor.hpp"
#include "shm/region.hpp"

#include <multihull/error.hpp>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstdio>
#include <fcntl.h>
#include <memory>
#include <mutex>
#include <pthread.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <system_error>
#include <unistd.h>
#include <unordered_map>

namespace multihull::detail {

namespace {

// How long an answer of a keeper may take; its supervisor waits for nothing, so this is for machines that are out of breath.
constexpr std::chrono::seconds kPatience{60};
constexpr int kBacklog = 4096;

struct Request {
    enum class Kind : std::uint32_t { deposit, withdraw };
    Kind kind = Kind::deposit;
    std::uint32_t unused = 0;
    ExchangeScope scope;        // of a deposit
    DescriptorTicket ticket;    // of a withdrawal
};

struct Reply {
    std::int32_t error = 0;
    std::uint32_t unused = 0;
    DescriptorTicket ticket;    // of a deposit
};

// Counted apart, so that nobody has to look for it where there is none.
std::atomic<std::size_t> scoped_count{0};

struct HashScope {
    std::size_t operator()(const ExchangeScope& scope) const noexcept {
        return std::hash<std::uint64_t>()(scope.owner * 0x9e3779b97f4a7c15 + scope.item);
    }
};

struct Kept {
    std::uint64_t secret = 0;
    ExchangeScope scope;
    os::Fd fd;
};

// The name of the socket on which a process of this family keeps descriptors.
socklen_t make_address(sockaddr_un& address, pid_t keeper) {
    const auto& family = shm::Region::instance().header().family;
    address = {};
    address.sun_family = AF_UNIX;
    const int length = std::snprintf(address.sun_path + 1, sizeof address.sun_path - 1, "multihull-%016llx%016llx-%d",
                                     static_cast<unsigned long long>(family[0]),
                                     static_cast<unsigned long long>(family[1]), static_cast<int>(keeper));
    return static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + 1 + static_cast<std::size_t>(length));
}

bool same_user(int socket) noexcept {
    ucred peer{};
    socklen_t size = sizeof peer;
    return ::getsockopt(socket, SOL_SOCKET, SO_PEERCRED, &peer, &size) == 0 && peer.uid == ::geteuid();
}

// This process's table, and the socket on which it is served.
class Keeper final : public Supervised {
public:
    static Keeper& instance();
    static Keeper* existing() noexcept;

    void serve(const std::shared_ptr<Keeper>& self);
    DescriptorTicket keep(os::Fd fd, const ExchangeScope& scope);
    os::Fd take(const DescriptorTicket& ticket);
    void rescope(const ExchangeScope& from, const ExchangeScope& to) noexcept;
    void forget(const ExchangeScope& scope) noexcept;
    std::size_t size() noexcept {
        const std::lock_guard guard(mutex_);
        return kept_.size();
    }

    void on_readable(int fd) override;
    std::int64_t tick(std::int64_t) override { return os::kNever; }

    void lock_for_fork() noexcept { mutex_.lock(); }
    void unlock_after_fork() noexcept { mutex_.unlock(); }
    // In the child, whose only thread held the lock: other threads, and the supervisor's connections, are not here.
    void close_copies() noexcept {
        for (auto& [number, kept] : kept_) kept.fd.reset();
        for (auto& [number, socket] : clients_) socket.reset();
        listener_.reset();
        reserve_.reset();
    }

private:
    void accept_clients();
    void answer(int fd, const os::Fd& client);

    std::mutex mutex_;
    std::unordered_map<std::uint32_t, Kept> kept_;
    std::unordered_multimap<ExchangeScope, std::uint32_t, HashScope> scopes_;    // of those in kept_ that have one
    std::uint32_t next_number_ = 1;
    os::Fd listener_;
    os::Fd reserve_;                             // given up for a moment when there are no descriptors left
    std::unordered_map<int, os::Fd> clients_;    // changed by the supervisor's thread only, with the mutex
};

constinit std::atomic<std::shared_ptr<Keeper>*> the_keeper{nullptr};
std::mutex making;

// A table in the middle of a change must not be what a forked child looks at to close its copies.
void before_fork() {
    making.lock();
    if (Keeper* const keeper = Keeper::existing()) keeper->lock_for_fork();
}
void after_fork_in_parent() {
    if (Keeper* const keeper = Keeper::existing()) keeper->unlock_after_fork();
    making.unlock();
}
void after_fork_in_child() {
    if (Keeper* const keeper = Keeper::existing()) keeper->close_copies();
    // Left behind as it is, locked.
    the_keeper.store(nullptr, std::memory_order_relaxed);
    scoped_count.store(0, std::memory_order_relaxed);
    making.unlock();
}

Keeper* Keeper::existing() noexcept {
    const auto* const keeper = the_keeper.load(std::memory_order_acquire);
    return keeper == nullptr ? nullptr : keeper->get();
}

Keeper& Keeper::instance() {
    if (Keeper* const keeper = existing()) return *keeper;
    watch_forks();
    static std::once_flag once;
    std::call_once(once, [] { ::pthread_atfork(before_fork, after_fork_in_parent, after_fork_in_child); });
    const std::lock_guard guard(making);
    if (Keeper* const keeper = existing()) return *keeper;
    the_keeper.store(new std::shared_ptr<Keeper>(std::make_shared<Keeper>()), std::memory_order_release);
    return *existing();
}

void Keeper::serve(const std::shared_ptr<Keeper>& self) {
    os::Fd listener;
    {
        const std::lock_guard guard(mutex_);
        if (listener_) return;
        listener = os::Fd(::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
        sockaddr_un address;
        const socklen_t size = make_address(address, ::getpid());
        reserve_ = os::Fd(::open("/dev/null", O_RDONLY | O_CLOEXEC));
        if (!listener || !reserve_ || ::bind(listener.get(), reinterpret_cast<sockaddr*>(&address), size) != 0 ||
            ::listen(listener.get(), kBacklog) != 0) {
            throw StartError("the socket over which file descriptors travel can't be made (" + os::errno_text(errno) +
                             "): raise the limit on open files (ulimit -n)");
        }
        listener_ = std::move(listener);
    }
    try {
        Supervisor::instance().watch(listener_.get(), self);
    } catch (const std::system_error& error) {
        const std::lock_guard guard(mutex_);
        listener_.reset();
        throw StartError(std::string("file descriptors on their way can't be watched (") + error.what() +
                         "): raise the limit on open files (ulimit -n)");
    }
}

DescriptorTicket Keeper::keep(os::Fd fd, const ExchangeScope& scope) {
    std::uint64_t secret = 0;
    if (::getrandom(&secret, sizeof secret, 0) != sizeof secret) os::throw_errno("getrandom");
    const std::lock_guard guard(mutex_);
    std::uint32_t number = 0;
    do number = next_number_++;
    while (kept_.contains(number));
    kept_.emplace(number, Kept{secret, scope, std::move(fd)});
    if (scope) {
        scopes_.emplace(scope, number);
        scoped_count.fetch_add(1, std::memory_order_relaxed);
    }
    return {static_cast<std::uint32_t>(::getpid()), number, secret};
}

os::Fd Keeper::take(const DescriptorTicket& ticket) {
    const std::lock_guard guard(mutex_);
    const auto found = kept_.find(ticket.number);
    if (found == kept_.end() || found->second.secret != ticket.secret) return {};
    os::Fd fd = std::move(found->second.fd);
    const auto [begin, end] = scopes_.equal_range(found->second.scope);
    const auto scope = std::find_if(begin, end, [&](const auto& entry) { return entry.second == ticket.number; });
    if (scope != end) {
        scopes_.erase(scope);
        scoped_count.fetch_sub(1, std::memory_order_relaxed);
    }
    kept_.erase(found);
    return fd;
}

void Keeper::rescope(const ExchangeScope& from, const ExchangeScope& to) noexcept {
    const std::lock_guard guard(mutex_);
    while (auto node = scopes_.extract(from)) {
        kept_.at(node.mapped()).scope = to;
        node.key() = to;
        scopes_.insert(std::move(node));
    }
}

void Keeper::forget(const ExchangeScope& scope) noexcept {
    const std::lock_guard guard(mutex_);
    while (const auto node = scopes_.extract(scope)) {
        kept_.erase(node.mapped());
        scoped_count.fetch_sub(1, std::memory_order_relaxed);
    }
}

void Keeper::on_readable(int fd) {
    if (fd == listener_.get()) {
        accept_clients();
        return;
    }
    os::Fd client;
    {
        const std::lock_guard guard(mutex_);
        const auto found = clients_.find(fd);
        if (found == clients_.end()) return;
        client = std::move(found->second);
        clients_.erase(found);
    }
    Supervisor::instance().unwatch(fd);
    answer(fd, client);
}

void Keeper::accept_clients() {
    for (;;) {
        os::Fd client(::accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
        if (!client && (errno == EMFILE || errno == ENFILE)) {
            // Turned away: it hears an end of file, and this thread is not woken for it again.
            reserve_.reset();
            client = os::Fd(::accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC));
            client.reset();
            reserve_ = os::Fd(::open("/dev/null", O_RDONLY | O_CLOEXEC));
            return;
        }
        if (!client) return;
        if (!same_user(client.get())) continue;
        const int fd = client.get();
        std::shared_ptr<Keeper> self = *the_keeper.load(std::memory_order_acquire);
        {
            const std::lock_guard guard(mutex_);
            clients_.emplace(fd, std::move(client));
        }
        try {
            Supervisor::instance().watch(fd, std::move(self));
        } catch (const std::system_error&) {
            const std::lock_guard guard(mutex_);
            clients_.erase(fd);
        }
    }
}

void Keeper::answer(int, const os::Fd& client) {
    Request request;
    std::vector<os::Fd> fds;
    if (os::receive_message(client, std::as_writable_bytes(std::span(&request, 1)), fds, false) != os::Received::yes) {
        return;    // it died, or does not speak this language
    }
    Reply reply;
    if (request.kind == Request::Kind::deposit) {
        if (fds.size() == 1) {
            reply.ticket = keep(std::move(fds.front()), request.scope);
            os::kill_point(os::KillPoint::descriptor_kept);
        } else {
            reply.error = EMFILE;
        }
        os::send_message(client, std::as_bytes(std::span(&reply, 1)), {}, false);
        return;
    }
    os::Fd fd = take(request.ticket);
    if (!fd) reply.error = ENOENT;
    const int raw = fd.get();
    os::send_message(client, std::as_bytes(std::span(&reply, 1)), std::span(&raw, fd ? 1 : 0), false);
    os::kill_point(os::KillPoint::descriptor_given);
}

enum class Asked { yes, nobody_there, no_answer };

// Asks another process. The answer may come with a descriptor.
Asked ask(pid_t keeper, const Request& request, std::span<const int> give, Reply& reply, std::vector<os::Fd>& fds) {
    os::Fd socket(::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0));
    if (!socket) {
        throw Error("a file descriptor can't be sent or received (" + os::errno_text(errno) +
                    "): raise the limit on open files (ulimit -n)");
    }
    const timeval patience{std::chrono::seconds(kPatience).count(), 0};
    ::setsockopt(socket.get(), SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience);
    sockaddr_un address;
    const socklen_t size = make_address(address, keeper);
    int result = 0;
    do result = ::connect(socket.get(), reinterpret_cast<sockaddr*>(&address), size);
    while (result != 0 && errno == EINTR);
    if (result != 0) return errno == ECONNREFUSED ? Asked::nobody_there : Asked::no_answer;
    if (!same_user(socket.get())) return Asked::nobody_there;
    if (os::send_message(socket, std::as_bytes(std::span(&request, 1)), give, true) != os::Sent::yes) {
        return Asked::no_answer;
    }
    os::kill_point(os::KillPoint::descriptor_asked);
    if (!os::wait_readable(socket.get(), os::deadline_after(kPatience))) return Asked::no_answer;
    return os::receive_message(socket, std::as_writable_bytes(std::span(&reply, 1)), fds, true) == os::Received::yes
               ? Asked::yes
               : Asked::no_answer;
}

os::Fd duplicate(int descriptor) {
    os::Fd copy(::fcntl(descriptor, F_DUPFD_CLOEXEC, 0));
    if (!copy) {
        throw Error("descriptor " + std::to_string(descriptor) + " can't be sent to another process (" +
                    os::errno_text(errno) +
                    "): it must be open, and the limit on open files (ulimit -n) allow another");
    }
    return copy;
}

}    // namespace

DescriptorTicket ExchangeAttachments::put(int descriptor) { return deposit_descriptor(descriptor, target_); }
int ExchangeAttachments::take(const DescriptorTicket& ticket) { return withdraw_descriptor(ticket).release(); }

void serve_descriptors() {
    Keeper& keeper = Keeper::instance();
    keeper.serve(*the_keeper.load(std::memory_order_acquire));
}

void keep_descriptors_of_family() {
    auto& word = shm::Region::instance().header().fd_keeper;
    if (word.load(std::memory_order_acquire) != 0) return;
    serve_descriptors();
    std::uint32_t nobody = 0;
    word.compare_exchange_strong(nobody, static_cast<std::uint32_t>(::getpid()), std::memory_order_acq_rel);
}

DescriptorTicket keep_descriptor(int descriptor, const ExchangeScope& scope) {
    serve_descriptors();
    return Keeper::instance().keep(duplicate(descriptor), scope);
}

DescriptorTicket deposit_descriptor(int descriptor, const ExchangeTarget& target) {
    const auto self = static_cast<std::uint32_t>(::getpid());
    auto& word = shm::Region::instance().header().fd_keeper;
    for (;;) {
        if (target.keeper == 0) keep_descriptors_of_family();
        std::uint32_t keeper =
            target.keeper != 0 ? static_cast<std::uint32_t>(target.keeper) : word.load(std::memory_order_acquire);
        if (keeper == self) return keep_descriptor(descriptor, target.scope);
        Request request;
        request.kind = Request::Kind::deposit;
        request.scope = target.scope;
        Reply reply;
        std::vector<os::Fd> none;
        switch (ask(static_cast<pid_t>(keeper), request, std::span(&descriptor, 1), reply, none)) {
            case Asked::yes:
                if (reply.error == 0) return reply.ticket;
                throw Error("a file descriptor can't be sent (" + os::errno_text(reply.error) +
                            " in the process that keeps it meanwhile): raise the limit on open files (ulimit -n)");
            case Asked::nobody_there:
                if (target.keeper != 0) throw Error("a file descriptor can't be sent: the receiver has ended");
                // Whoever finds the family's keeper dead takes its place.
                serve_descriptors();
                word.compare_exchange_strong(keeper, self, std::memory_order_acq_rel);
                break;
            case Asked::no_answer:
                throw Error(
                    "a file descriptor can't be sent: the process that keeps it meanwhile does not answer, or has no "
                    "descriptors left (ulimit -n)");
        }
    }
}

os::Fd withdraw_descriptor(const DescriptorTicket& ticket) {
    os::Fd fd;
    if (ticket.keeper == static_cast<std::uint32_t>(::getpid())) {
        if (Keeper* const keeper = Keeper::existing()) fd = keeper->take(ticket);
    } else {
        Request request;
        request.kind = Request::Kind::withdraw;
        request.ticket = ticket;
        Reply reply;
        std::vector<os::Fd> fds;
        switch (ask(static_cast<pid_t>(ticket.keeper), request, {}, reply, fds)) {
            case Asked::yes:
                if (reply.error == 0 && fds.empty()) {
                    throw Error(
                        "a file descriptor was lost on its way here: raise the limit on open files (ulimit -n)");
                }
                if (reply.error == 0) fd = std::move(fds.front());
                break;
            case Asked::nobody_there:
                throw CodecError("a file descriptor was lost: process " + std::to_string(ticket.keeper) +
                                 ", which kept it until it was received, has ended");
            case Asked::no_answer:
                throw CodecError("a file descriptor was lost: process " + std::to_string(ticket.keeper) +
                                 ", which keeps it until it is received, has ended or does not answer");
        }
    }
    if (!fd) {
        throw CodecError(
            "a file descriptor is not there any more: it travels once, and was received before, or its task has ended");
    }
    return fd;
}

void rescope_descriptors(const ExchangeScope& from, const ExchangeScope& to) noexcept {
    if (Keeper* const keeper = Keeper::existing()) keeper->rescope(from, to);
}

void forget_descriptors(const ExchangeScope& scope) noexcept {
    if (scoped_count.load(std::memory_order_relaxed) == 0) return;
    if (Keeper* const keeper = Keeper::existing()) keeper->forget(scope);
}

std::size_t kept_descriptors() noexcept {
    Keeper* const keeper = Keeper::existing();
    return keeper == nullptr ? 0 : keeper->size();
}

// The codec declares these and leaves them to the layer that knows processes.

void Writer::attach(int descriptor) {
    if (leaves_family_) {
        throw_cannot_encode(
            "it holds a file descriptor or a connection, which is of this machine: have the task open its own");
    }
    put(attachments_ != nullptr ? attachments_->put(descriptor) : deposit_descriptor(descriptor, {}));
}

int Reader::detach() {
    if (enters_family_)
        throw CodecError("a result holds a file descriptor of another rank's machine: return what was read from it");
    const auto ticket = get<DescriptorTicket>();
    return attachments_ != nullptr ? attachments_->take(ticket) : withdraw_descriptor(ticket).release();
}

}    // namespace multihull::detail
