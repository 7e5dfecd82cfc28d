// What was taken from a queue and is not done yet: JoinableQueue.
#include <multihull/queue.hpp>

#include "channel/queue_parts.hpp"
#include "sync/wait.hpp"

#include <string>

namespace multihull {

namespace detail {

using channel::QueueData;

namespace {

bool all_done(const QueueData& data) {
    const std::uint32_t highest = shm::Region::instance().header().process_high_water.load(std::memory_order_relaxed);
    if (data.put_total.load(std::memory_order_acquire) != data.taken_total.load(std::memory_order_acquire))
        return false;
    // Somebody is about to write down that he has taken one.
    if (data.pending_take.number.load(std::memory_order_acquire) != 0) return false;
    for (std::uint32_t number = 1; number <= highest; ++number) {
        if (data.taken_by[number].load(std::memory_order_acquire) !=
            data.done_by[number].load(std::memory_order_acquire)) {
            return false;
        }
    }
    return true;
}

}    // namespace

void QueueCore::task_done() const {
    auto& data = channel::data_of(object_->head());
    const std::uint32_t number = shm::this_thread() & shm::kNumberMask;
    {
        const shm::Guard guard(object_->head());
        const std::uint16_t done = data.done_by[number].load(std::memory_order_relaxed);
        if (done == data.taken_by[number].load(std::memory_order_acquire)) {
            throw SyncError("task_done() was called more often than this process has taken values from the queue");
        }
        data.done_by[number].store(static_cast<std::uint16_t>(done + 1), std::memory_order_release);
    }
    if (data.joiners.anybody() && all_done(data)) data.joiners.wake_all();
}

bool QueueCore::join(std::int64_t deadline) const {
    auto& head = object_->head();
    auto& data = channel::data_of(head);
    const bool done = sync::wait_until(
        head, data.joiners, deadline, [&] { return all_done(data); },
        [&] {
            sync::look_for_dead([&](std::uint32_t n) {
                return data.taken_by[n].load(std::memory_order_relaxed) !=
                       data.done_by[n].load(std::memory_order_relaxed);
            });
        });
    if (const std::uint32_t lost = data.lost_tasks.exchange(0, std::memory_order_relaxed); lost != 0)
        throw TasksLost(lost);
    return done;
}

}    // namespace detail

TasksLost::TasksLost(std::size_t count)
    : Error(std::to_string(count) +
            " values of the queue were taken by processes that died before they called task_done(): put "
            "them again, or do without"),
      count_(count) {}

}    // namespace multihull
