// A queue as wait() sees it: a thread of this process, for as long as the wait lasts, sleeps where takers sleep.
#include "channel/queue_parts.hpp"
#include "os/clock.hpp"
#include "os/fd.hpp"
#include "os/futex.hpp"
#include "os/thread.hpp"

#include <multihull/detail/queue_core.hpp>

#include <thread>
#include <unistd.h>

namespace multihull::detail {

namespace {

class QueueWaitSource final : public WaitSource {
public:
    explicit QueueWaitSource(ObjectRef object) noexcept
        : object_(std::move(object)), data_(channel::data_of(object_->head())) {}
    ~QueueWaitSource() override { forget(); }
    QueueWaitSource(const QueueWaitSource&) = delete;
    QueueWaitSource& operator=(const QueueWaitSource&) = delete;

    bool ready() override {
        return data_.put_total.load(std::memory_order_seq_cst) != data_.taken_total.load(std::memory_order_acquire) ||
               data_.closed.load(std::memory_order_seq_cst) != 0;
    }
    void prepare(int eventfd) override {
        thread_ = os::start_thread("mh-wait", [this, eventfd] { watch(eventfd); });
    }
    void forget() noexcept override {
        if (!thread_.joinable()) return;
        stop_.store(1);
        while (done_.load() == 0) {
            data_.takers.interrupt(place_.load());
            os::futex_wait(done_, 0, os::now_ns() + kAgain);
        }
        thread_.join();
    }

private:
    static constexpr std::int64_t kAgain = 1'000'000;    // ns

    void watch(int eventfd) {
        const shm::ThreadId self = shm::this_thread();
        while (stop_.load() == 0) {
            if (ready()) {
                const std::uint64_t one = 1;
                static_cast<void>(::write(eventfd, &one, sizeof one));
                // Told once; told again only if the message has gone elsewhere and another has come.
                while (stop_.load() == 0 && ready()) os::futex_wait(stop_, 0, os::now_ns() + kAgain);
                continue;
            }
            const std::uint32_t place = data_.takers.enlist(self);
            place_.store(place);
            bool woken = false;
            if (stop_.load() != 0 || ready()) {
                woken = !data_.takers.withdraw(place);
            } else {
                woken = data_.takers.sleep(place, os::kNever) || !data_.takers.withdraw(place);
            }
            place_.store(shm::WaitSet::kNoPlace);
            // Whoever only looks does not keep a wake-up from one who would take.
            if (woken && ready()) data_.takers.wake_one();
        }
        done_.store(1);
        os::futex_wake_all(done_);
    }

    ObjectRef object_;
    channel::QueueData& data_;
    std::thread thread_;
    std::atomic<std::uint32_t> stop_{0};
    std::atomic<std::uint32_t> done_{0};
    std::atomic<std::uint32_t> place_{shm::WaitSet::kNoPlace};
};

}    // namespace

std::shared_ptr<WaitSource> QueueCore::wait_source() const { return std::make_shared<QueueWaitSource>(object_); }

}    // namespace multihull::detail
