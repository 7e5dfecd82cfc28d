#include "pool/trace_ring.hpp"

#include "os/clock.hpp"
#include "os/fault.hpp"

#include <algorithm>

namespace multihull::detail {

namespace {

constexpr int kCountShift = 32;
constexpr int kPidShift = 8;
constexpr std::uint64_t kPidMask = 0xffffff;

}    // namespace

TraceWriter::TraceWriter(const PoolHeader& header, std::uint32_t worker) noexcept {
    if (header.trace_offset == 0) return;
    ring_ = TraceRing::at(header.trace_offset, header.trace_capacity, worker);
    mask_ = header.trace_capacity - 1;
}

// Release stores throughout, so that nobody sees a field of this event under the stamp of the one before; they pair with the reader's
// acquire loads. On x86 they are plain stores.
void TraceWriter::write(const TraceEntry& entry) noexcept {
    const std::uint64_t number = ring_->tail.load(std::memory_order_relaxed);
    TraceRing::Event& event = ring_->events()[number & mask_];
    event.stamp.store(0, std::memory_order_relaxed);
    os::kill_point(os::KillPoint::trace_begun);
    event.submitted_ns.store(entry.submitted_ns, std::memory_order_release);
    event.started_ns.store(entry.started_ns, std::memory_order_release);
    event.ended_ns.store(entry.ended_ns, std::memory_order_release);
    event.token.store(entry.token, std::memory_order_release);
    event.leading.store(entry.leading, std::memory_order_release);
    event.first.store(entry.first, std::memory_order_release);
    event.rest.store(std::uint64_t{entry.count} << kCountShift | (entry.pid & kPidMask) << kPidShift | entry.outcome,
                     std::memory_order_release);
    event.stamp.store(number + 1, std::memory_order_release);
    ring_->tail.store(number + 1, std::memory_order_release);
    os::kill_point(os::KillPoint::trace_written);
}

TraceReading read_trace(const TraceRing& ring, std::uint64_t capacity, std::int64_t since_ns) {
    TraceReading reading;
    const std::uint64_t end = ring.tail.load(std::memory_order_acquire);
    const std::uint64_t begin = end - std::min(end, capacity);
    const std::int64_t now = os::now_ns();
    reading.entries.reserve(end - begin);
    for (std::uint64_t number = begin; number != end; ++number) {
        const TraceRing::Event& event = ring.events()[number & (capacity - 1)];
        if (event.stamp.load(std::memory_order_acquire) != number + 1) continue;
        TraceEntry entry;
        entry.submitted_ns = event.submitted_ns.load(std::memory_order_acquire);
        entry.started_ns = event.started_ns.load(std::memory_order_acquire);
        entry.ended_ns = event.ended_ns.load(std::memory_order_acquire);
        entry.token = event.token.load(std::memory_order_acquire);
        entry.leading = event.leading.load(std::memory_order_acquire);
        entry.first = event.first.load(std::memory_order_acquire);
        const std::uint64_t rest = event.rest.load(std::memory_order_acquire);
        if (event.stamp.load(std::memory_order_relaxed) != number + 1) continue;
        entry.count = static_cast<std::uint32_t>(rest >> kCountShift);
        entry.pid = static_cast<std::uint32_t>(rest >> kPidShift & kPidMask);
        entry.outcome = (rest & 1) != 0 ? TraceEntry::exception : TraceEntry::value;
        if (since_ns <= entry.submitted_ns && entry.submitted_ns <= entry.started_ns &&
            entry.started_ns <= entry.ended_ns && entry.ended_ns <= now) {
            reading.entries.push_back(entry);
        }
    }
    reading.dropped = end - reading.entries.size();
    return reading;
}

}    // namespace multihull::detail
