// What the rings of a queue (queue.cpp) and its blocks (queue_blocks.cpp) share.
#pragma once

#include "channel/queue_layout.hpp"
#include "os/clock.hpp"

#include <atomic>
#include <new>

namespace multihull::channel {

inline QueueData& data_of(shm::ObjectHead& head) { return *reinterpret_cast<QueueData*>(&head + 1); }
inline shm::ObjectHead& head_of(QueueData& data) { return *(reinterpret_cast<shm::ObjectHead*>(&data) - 1); }

inline Block* block_at(const QueueData& data, std::uint32_t index) {
    return shm::Region::instance().at<Block>(data.blocks) + index;
}

/// A process that is killed leaves the stores before some instruction and none behind it. This keeps the compiler from moving them.
inline void in_order() { std::atomic_signal_fence(std::memory_order_seq_cst); }

/// One of the queue's own locks. Who comes after a dead owner makes its note come true.
class Hold {
public:
    using Repair = void (*)(QueueData&);
    Hold(QueueData& data, shm::RobustLock& lock, shm::ThreadId self, Repair repair) noexcept
        : lock_(lock), self_(self) {
        // A recovery that has it already was cut off by a death, and this one is in its place.
        if (lock.lock(self, os::kNever) != shm::Acquired::yes) {
            repair(data);
            lock.mark_consistent(self);
        }
    }
    ~Hold() { lock_.unlock(self_); }
    Hold(const Hold&) = delete;
    Hold& operator=(const Hold&) = delete;

private:
    shm::RobustLock& lock_;
    shm::ThreadId self_;
};

/// Tries again where there was no memory, once that of the dead has been collected. Throws std::bad_alloc.
template <class Attempt>
void with_memory(Attempt attempt) {
    for (bool swept = false; !attempt(); swept = true) {
        if (swept) throw std::bad_alloc();
        shm::Region::instance().sweep_dead();
    }
}

/// Blocks that a dead process had on loan are free again.
void recover_blocks(QueueData& data, std::uint32_t number);

}    // namespace multihull::channel
