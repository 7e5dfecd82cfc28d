#include <multihull/wait.hpp>

#include "os/clock.hpp"
#include "os/fd.hpp"
#include "process/self.hpp"

#include <multihull/error.hpp>
#include <multihull/future.hpp>

#include <algorithm>
#include <atomic>
#include <map>
#include <mutex>
#include <poll.h>
#include <system_error>
#include <unistd.h>
#include <utility>

namespace multihull {

namespace detail {

namespace {

// The waits for futures. A task's callback can't be taken back, so each task has one at most, for as long as it runs; it wakes
// whoever waits then.
class FutureWaits {
public:
    using Key = std::pair<Completion*, std::uint32_t>;

    static FutureWaits& instance() {
        FutureWaits* current = the_waits.load(std::memory_order_acquire);
        if (current != nullptr) return *current;
        auto* const fresh = new FutureWaits;
        if (the_waits.compare_exchange_strong(current, fresh, std::memory_order_acq_rel)) return *fresh;
        delete fresh;
        return *current;
    }

    void add(const Key& key, int eventfd) {
        {
            const std::lock_guard guard(mutex_);
            const auto [entry, is_new] = eventfds_.try_emplace(key);
            if (std::ranges::find(entry->second, eventfd) == entry->second.end()) entry->second.push_back(eventfd);
            if (!is_new) return;
        }
        // Without the lock: a task that has ended calls back at once.
        try {
            key.first->on_done(key.second, [key] { instance().done(key); });
        } catch (...) {
            const std::lock_guard guard(mutex_);
            eventfds_.erase(key);
            throw;
        }
    }

    void remove(const Key& key, int eventfd) noexcept {
        const std::lock_guard guard(mutex_);
        const auto entry = eventfds_.find(key);
        if (entry != eventfds_.end()) std::erase(entry->second, eventfd);
    }

    // Left behind by a forked child, which has no futures: its lock may be held for ever.
    static inline constinit std::atomic<FutureWaits*> the_waits{nullptr};

private:
    void done(const Key& key) {
        const std::lock_guard guard(mutex_);
        const auto entry = eventfds_.find(key);
        if (entry == eventfds_.end()) return;
        for (const int eventfd : entry->second) {
            const std::uint64_t one = 1;
            [[maybe_unused]] const auto ignored = ::write(eventfd, &one, sizeof one);
        }
        eventfds_.erase(entry);
    }

    std::mutex mutex_;
    std::map<Key, std::vector<int>> eventfds_;    // of tasks that have a callback
};

const ForkChildHook kForgetWaits([] { FutureWaits::the_waits.store(nullptr); });

class FutureSource final : public WaitSource {
public:
    FutureSource(std::shared_ptr<Completion> completion, std::uint32_t task)
        : completion_(std::move(completion)), task_(task) {}

    bool ready() override {
        if (completion_->ready(task_)) return true;
        if (eventfd_ < 0) return false;
        // What has woken this wait may have been the callback of an earlier task in the same place, which has gone with it.
        FutureWaits::instance().add({completion_.get(), task_}, eventfd_);
        return completion_->ready(task_);
    }
    void prepare(int eventfd) override {
        eventfd_ = eventfd;
        FutureWaits::instance().add({completion_.get(), task_}, eventfd);
    }
    void forget() noexcept override {
        if (eventfd_ >= 0) FutureWaits::instance().remove({completion_.get(), task_}, std::exchange(eventfd_, -1));
    }

private:
    std::shared_ptr<Completion> completion_;
    std::uint32_t task_;
    int eventfd_ = -1;
};

}    // namespace

std::shared_ptr<WaitSource> future_source(std::shared_ptr<Completion> completion, std::uint32_t task) {
    return std::make_shared<FutureSource>(std::move(completion), task);
}

}    // namespace detail

namespace {

// The sources of one wait(), which forget it at its end.
class Sources {
public:
    explicit Sources(std::span<const Waitable> objects) : objects_(objects) {}
    ~Sources() {
        for (std::size_t i = 0; i < prepared_; ++i) {
            if (auto* const source = objects_[i].source()) source->forget();
        }
    }
    Sources(const Sources&) = delete;
    Sources& operator=(const Sources&) = delete;

    // False when nothing has to be prepared any more.
    bool prepare() {
        if (prepared_ == objects_.size() || std::ranges::none_of(objects_, &Waitable::source)) return false;
        wake_ = os::make_eventfd();
        while (prepared_ < objects_.size()) {
            auto* const source = objects_[prepared_++].source();
            if (source != nullptr) source->prepare(wake_.get());
        }
        return true;
    }
    const os::Fd& wake() const noexcept { return wake_; }

private:
    std::span<const Waitable> objects_;
    os::Fd wake_;
    std::size_t prepared_ = 0;
};

// Waits for what poll() can wait for; the time left may be none.
void poll_until(std::vector<pollfd>& entries, std::int64_t deadline) {
    const std::int64_t wait = deadline == os::kNever ? 0 : std::max<std::int64_t>(deadline - os::now_ns(), 0);
    const timespec left{wait / 1'000'000'000, wait % 1'000'000'000};
    for (auto& entry : entries) entry.revents = 0;
    if (::ppoll(entries.data(), entries.size(), deadline == os::kNever ? nullptr : &left, nullptr) < 0 &&
        errno != EINTR) {
        throw Error("wait() can't wait for " + std::to_string(entries.size()) +
                    " objects at once: raise the limit on open files (ulimit -n)");
    }
}

}    // namespace

std::vector<std::size_t> wait(std::span<const Waitable> objects, std::optional<std::chrono::nanoseconds> timeout) {
    const std::int64_t deadline = timeout ? os::deadline_after(*timeout) : os::kNever;
    std::vector<pollfd> entries;
    for (const Waitable& object : objects) entries.push_back({object.descriptor(), POLLIN, 0});    // -1 is passed over
    try {
        Sources sources(objects);
        std::vector<std::size_t> ready;
        // Looks at all objects; waits before it for as long as `until`, if that is not over.
        const auto look = [&](std::int64_t until) {
            poll_until(entries, until);
            if (sources.wake()) os::drain_eventfd(sources.wake());
            for (std::size_t i = 0; i < objects.size(); ++i) {
                auto* const source = objects[i].source();
                if (source != nullptr ? source->ready() : entries[i].revents != 0) ready.push_back(i);
            }
            return !ready.empty();
        };
        if (look(0)) return ready;
        if (sources.prepare()) {
            entries.push_back({sources.wake().get(), POLLIN, 0});
            if (look(0)) return ready;
        }
        if (objects.empty() && deadline == os::kNever) {
            throw Error("wait() was given nothing to wait for, and no time limit: it would wait for ever");
        }
        while (!look(deadline)) {
            if (os::now_ns() >= deadline) break;
        }
        return ready;
    } catch (const std::system_error& error) {
        throw Error(std::string("wait() can't wait (") + error.what() + "): raise the limit on open files (ulimit -n)");
    }
}

}    // namespace multihull
