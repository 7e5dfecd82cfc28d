#include <multihull/wait.hpp>

#include "os/clock.hpp"
#include "os/fd.hpp"
#include "pool/future_waits.hpp"

#include <multihull/error.hpp>
#include <multihull/future.hpp>

#include <algorithm>
#include <poll.h>
#include <system_error>
#include <unistd.h>
#include <utility>

namespace multihull {

namespace detail {

namespace {

class FutureSource final : public WaitSource, private TaskListener {
public:
    FutureSource(std::shared_ptr<Completion> completion, std::uint32_t task)
        : completion_(std::move(completion)), task_(task) {}

    bool ready() override {
        if (completion_->ready(task_)) return true;
        if (eventfd_ < 0) return false;
        // What has woken this wait may have been the callback of an earlier task in the same place, which has gone with it.
        FutureWaits::instance().add({completion_.get(), task_}, *this, 0);
        return completion_->ready(task_);
    }
    void prepare(int eventfd) override {
        eventfd_ = eventfd;
        FutureWaits::instance().add({completion_.get(), task_}, *this, 0);
    }
    void forget() noexcept override {
        if (eventfd_ < 0) return;
        FutureWaits::instance().remove({completion_.get(), task_}, *this);
        eventfd_ = -1;
    }

private:
    void task_done(std::uint64_t) noexcept override {
        const std::uint64_t one = 1;
        [[maybe_unused]] const auto ignored = ::write(eventfd_, &one, sizeof one);
    }

    std::shared_ptr<Completion> completion_;
    std::uint32_t task_;
    int eventfd_ = -1;    // written before anybody may be told, and after nobody is
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
