// What one worker has run and when, in shared memory: a ring that it writes and the parent reads at any time.
//
// Safe across processes: one writer, the worker that has the place; its successor goes on behind it. Readers never wait, and never
// make the writer wait. Survives the writer's death at any instruction: see README.md, "Traces".
//
// Invariants
// (1) tail_ is written by the worker only. Events [tail - capacity, tail) were whole when it was stored.
// (2) An event's `stamp` is 0 while it is written, and its number + 1 when it is whole. A reader that finds another stamp, before
//     or after it copies, skips the event.
// (3) Sizes and places are the reader's own, never read from the ring: what a worker gone wild writes there is at worst shown.
#pragma once

#include "pool/layout.hpp"

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <vector>

namespace multihull::detail {

/// One call, or one range of a map's inputs, that a worker has run.
struct TraceEntry {
    enum Outcome : std::uint8_t { value = 0, exception = 1 };

    std::int64_t submitted_ns = 0;
    std::int64_t started_ns = 0;
    std::int64_t ended_ns = 0;
    std::uint64_t token = 0;    ///< Of the thunk.
    std::uint64_t leading =
        0;    ///< The first bytes of the call: the function's own token, where it is called by a pointer.
    std::uint64_t first = 0;    ///< First input of the range.
    std::uint32_t count = 0;    ///< Inputs in the range; 0 for a single call.
    std::uint32_t pid = 0;      ///< 24 bits of it travel.
    Outcome outcome = value;
};

/// The first bytes of an encoded call, as TraceEntry::leading has them; 0 where there are fewer.
inline std::uint64_t leading_bytes(std::span<const std::byte> call) noexcept {
    std::uint64_t leading = 0;
    if (call.size() >= sizeof leading) std::memcpy(&leading, call.data(), sizeof leading);
    return leading;
}

struct alignas(64) TraceRing {
    struct alignas(64) Event {
        std::atomic<std::uint64_t> stamp;
        std::atomic<std::int64_t> submitted_ns;
        std::atomic<std::int64_t> started_ns;
        std::atomic<std::int64_t> ended_ns;
        std::atomic<std::uint64_t> token;
        std::atomic<std::uint64_t> leading;
        std::atomic<std::uint64_t> first;
        std::atomic<std::uint64_t> rest;    ///< count << 32 | pid << 8 | outcome
    };

    std::atomic<std::uint64_t> tail;

    Event* events() noexcept { return reinterpret_cast<Event*>(this + 1); }
    const Event* events() const noexcept { return reinterpret_cast<const Event*>(this + 1); }

    /// Bytes of one ring.
    static std::size_t size(std::uint64_t capacity) noexcept { return sizeof(TraceRing) + capacity * sizeof(Event); }
    static TraceRing* at(shm::Offset block, std::uint64_t capacity, std::uint32_t worker) noexcept {
        return shm::Region::instance().at<TraceRing>(block + worker * size(capacity));
    }
};
static_assert(sizeof(TraceRing::Event) == 64 && sizeof(TraceRing) == 64);

/// The worker's end. Allocates nothing, and calls nothing.
class TraceWriter {
public:
    TraceWriter(const PoolHeader& header, std::uint32_t worker) noexcept;

    /// Whether the pool keeps a trace.
    explicit operator bool() const noexcept { return ring_ != nullptr; }
    void write(const TraceEntry& entry) noexcept;

private:
    TraceRing* ring_ = nullptr;
    std::uint64_t mask_ = 0;
};

/// What a worker's ring holds.
struct TraceReading {
    std::vector<TraceEntry> entries;    ///< In the order in which they ended.
    std::uint64_t dropped = 0;          ///< Older ones that were overwritten, and damaged ones.
};

/// The parent's end: whole events with times that make sense, in [since_ns, now].
TraceReading read_trace(const TraceRing& ring, std::uint64_t capacity, std::int64_t since_ns);

}    // namespace multihull::detail
