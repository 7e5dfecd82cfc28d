#include "process/supervisor.hpp"

#include "os/clock.hpp"
#include "os/fault.hpp"
#include "os/thread.hpp"
#include "process/self.hpp"

#include <multihull/error.hpp>
#include <multihull/log.hpp>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <pthread.h>
#include <sys/epoll.h>
#include <system_error>
#include <thread>

namespace multihull::detail {

namespace {

std::atomic<Supervisor*> the_supervisor{nullptr};
constinit std::atomic<bool> making{false};

}    // namespace

Supervisor& Supervisor::instance() {
    if (Supervisor* supervisor = the_supervisor.load(std::memory_order_acquire)) return *supervisor;
    watch_forks();
    // A spin lock, because a forked child can reset it whatever thread of the parent held it.
    while (making.exchange(true, std::memory_order_acquire)) std::this_thread::yield();
    struct Release {
        ~Release() { making.store(false, std::memory_order_release); }
    } release;
    Supervisor* supervisor = the_supervisor.load(std::memory_order_acquire);
    if (supervisor == nullptr) {
        try {
            supervisor = new Supervisor;
        } catch (const std::system_error& error) {
            throw StartError(std::string("the supervisor can't be started (") + error.what() +
                             "): raise the limits on open files (ulimit -n) or processes (ulimit -u)");
        }
        the_supervisor.store(supervisor, std::memory_order_release);
    }
    return *supervisor;
}

void Supervisor::after_fork() noexcept {
    // The thread does not exist here, and its mutex may be held for ever: the object is left behind as it is.
    the_supervisor.store(nullptr, std::memory_order_relaxed);
    making.store(false, std::memory_order_relaxed);
}

Supervisor::Supervisor() : wake_(os::make_eventfd()) {
    epoll_ = os::Fd(os::checked(os::Call::epoll_create, [] { return ::epoll_create1(EPOLL_CLOEXEC); }));
    if (!epoll_) os::throw_errno("epoll_create1");
    epoll_event event{};
    event.events = EPOLLIN;
    event.data.u64 = 0;
    if (::epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, wake_.get(), &event) != 0) os::throw_errno("epoll_ctl");

    std::thread thread = os::start_thread("mh-supervisor", [this] { run(); });
    static_assert(sizeof(pthread_t) <= sizeof thread_);
    thread_ = static_cast<std::uint64_t>(thread.native_handle());
    thread.detach();
    count_own_thread(1);
}

bool Supervisor::is_this_thread() const noexcept { return static_cast<std::uint64_t>(::pthread_self()) == thread_; }

void Supervisor::watch(int fd, std::shared_ptr<Supervised> object) {
    const std::lock_guard guard(mutex_);
    const std::uint64_t id = next_id_++;
    epoll_event event{};
    event.events = EPOLLIN;
    event.data.u64 = id;
    watches_.emplace(id, std::pair(fd, std::move(object)));
    ids_[fd] = id;
    if (::epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, fd, &event) != 0) {
        watches_.erase(id);
        ids_.erase(fd);
        os::throw_errno("epoll_ctl");
    }
}

void Supervisor::unwatch(int fd) noexcept {
    const std::lock_guard guard(mutex_);
    const auto entry = ids_.find(fd);
    if (entry == ids_.end()) return;
    ::epoll_ctl(epoll_.get(), EPOLL_CTL_DEL, fd, nullptr);
    watches_.erase(entry->second);
    ids_.erase(entry);
}

void Supervisor::add(std::shared_ptr<Supervised> object) {
    {
        const std::lock_guard guard(mutex_);
        ticking_.push_back(std::move(object));
    }
    wake();
}

void Supervisor::remove(const Supervised* object) noexcept {
    const std::lock_guard guard(mutex_);
    std::erase_if(ticking_, [&](const auto& entry) { return entry.get() == object; });
}

void Supervisor::wake() noexcept { os::signal_eventfd(wake_); }

void Supervisor::run() {
    let_never_wait();
    std::int64_t next = os::kNever;
    std::vector<std::shared_ptr<Supervised>> ticking;
    for (;;) {
        int timeout = -1;
        if (next != os::kNever) {
            const std::int64_t wait = std::clamp<std::int64_t>(next - os::now_ns(), 0, std::int64_t{1} << 50);
            timeout = static_cast<int>(std::min<std::int64_t>((wait + 999'999) / 1'000'000, 1 << 30));
        }
        epoll_event events[64];
        const int count = ::epoll_wait(epoll_.get(), events, 64, timeout);
        for (int i = 0; i < count; ++i) {
            if (events[i].data.u64 == 0) {
                os::drain_eventfd(wake_);
                continue;
            }
            int fd = -1;
            std::shared_ptr<Supervised> object;
            {
                const std::lock_guard guard(mutex_);
                const auto watch = watches_.find(events[i].data.u64);
                if (watch == watches_.end()) continue;
                fd = watch->second.first;
                object = watch->second.second;
            }
            try {
                object->on_readable(fd);
            } catch (const std::exception& error) {
                log(LogLevel::error, std::string("while supervising: ") + error.what());
            }
        }
        {
            const std::lock_guard guard(mutex_);
            ticking = ticking_;
        }
        next = os::kNever;
        for (const auto& object : ticking) {
            try {
                next = std::min(next, object->tick(os::now_ns()));
            } catch (const std::exception& error) {
                log(LogLevel::error, std::string("while supervising: ") + error.what());
                next = std::min(next, os::now_ns() + 100'000'000);
            }
        }
        ticking.clear();
    }
}

}    // namespace multihull::detail
