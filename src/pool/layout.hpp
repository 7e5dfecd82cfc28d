// What a pool keeps in shared memory: its home. See README.md for the protocol: who writes each word, and what follows when the
// writer dies before or after it does.
//
// Invariants
// (1) A task slot is filled by the parent before the one release-store that makes it `queued`.
// (2) `state` of a slot changes only by compare-and-swap, except from `free` (the parent alone owns it then).
// (3) A slot is `taken` by the worker that stands in its state word; only that worker or, when it is dead or condemned, the
//     parent's supervisor ends it.
// (4) What lies between `head` and `tail` of the queue names every queued slot at least once. A name of a slot that is not queued
//     any more is skipped by whoever meets it.
// (5) The parent keeps nothing it must rely on here: lists, owners of blocks and outcomes live in its private memory.
#pragma once

#include "process/crash_handler.hpp"
#include "shm/foreign_region.hpp"
#include "shm/pins.hpp"
#include "shm/region.hpp"

#include <atomic>
#include <cstddef>
#include <cstdint>

namespace multihull::detail {

/// One word of a task slot that says everything about where the task is.
namespace task_state {

enum Phase : std::uint32_t { free = 0, queued = 1, taken = 2, condemned = 3, value = 4, exception = 5, lost = 6 };

inline constexpr std::uint32_t kPhaseMask = 7;
inline constexpr std::uint32_t kWaiter = 1U << 3;    ///< Somebody sleeps on this word.
inline constexpr std::uint32_t kNotify = 1U << 4;    ///< The parent wants to hear of the end.
inline constexpr std::uint32_t kTimed = 1U << 5;     ///< The task has a time or CPU limit.
inline constexpr std::uint32_t kWorkerShift = 6;
inline constexpr std::uint32_t kWorkerMask = 0xfffU << kWorkerShift;
inline constexpr std::uint32_t kGenerationShift = 18;

constexpr Phase phase(std::uint32_t state) { return static_cast<Phase>(state & kPhaseMask); }
constexpr bool ended(std::uint32_t state) { return phase(state) >= value; }
constexpr std::uint32_t worker(std::uint32_t state) { return (state & kWorkerMask) >> kWorkerShift; }
constexpr std::uint32_t with_phase(std::uint32_t state, Phase phase) { return (state & ~kPhaseMask) | phase; }
constexpr std::uint32_t taken_by(std::uint32_t state, std::uint32_t worker) {
    return (state & ~(kPhaseMask | kWorkerMask)) | taken | (worker << kWorkerShift);
}

}    // namespace task_state

/// Names a task among those of its pool: the ExchangeScope of the descriptors in its arguments and its result.
constexpr std::uint64_t descriptor_item(std::uint32_t task, std::uint32_t generation) {
    return std::uint64_t{generation} << 32 | task;
}

/// Whose the pins of a task's result are, once its worker has written it.
constexpr shm::PinOwner result_owner(std::uint32_t process, shm::Offset home, std::uint32_t task,
                                     std::uint32_t generation) {
    return {process, static_cast<std::uint32_t>(home >> 12), descriptor_item(task, generation)};
}

inline constexpr std::size_t kInlineArguments = 96;
inline constexpr std::size_t kInlineResult = 64;
inline constexpr std::uint32_t kMaxWorkers = 4096;

struct alignas(64) TaskSlot {
    std::atomic<std::uint32_t> state;
    std::uint8_t is_map;      ///< The task takes part in a map; its arguments are a MapPart.
    std::uint8_t retry_on;    ///< What `exception_retries` count for: RetryOn.
    std::uint64_t token;
    std::uint64_t arguments_offset;    ///< 0: they are in `arguments`.
    std::uint64_t arguments_size;
    std::uint64_t memory_limit;
    std::int64_t time_limit_ns;
    std::int64_t cpu_limit_ns;
    std::int64_t submitted_ns;          ///< 0 where the pool keeps no trace.
    std::uint32_t exception_retries;    ///< How often to run it again when it throws.
    std::uint32_t result_pins;          ///< The first of the pins of what the result names; 0 for none.
    std::byte arguments[kInlineArguments];
    std::uint64_t result_offset;    ///< 0: it is in `result`.
    std::uint64_t result_size;
    std::uint64_t result_block;    ///< The block that the parent gives back; 0 for none.
    std::byte result[kInlineResult];
};
static_assert(sizeof(TaskSlot) == 256);

/// At the start of every block of results that a worker hands to the parent.
struct alignas(64) ResultBlock {
    std::atomic<std::uint32_t> released;    ///< Set by the parent; the worker then uses the memory again.
    std::uint64_t previous;                 ///< The block handed over before, for a map's results; 0 for none.
};

inline constexpr std::uint32_t kNotifyRing = 128;

/// What the workers of one place have done, one after the other. Written by the one that has the place; a successor goes on from
/// what it finds. The parent shows these numbers, and decides nothing by them.
struct WorkerCounters {
    std::atomic<std::uint64_t> calls_done;      ///< Tasks that are one call and have returned.
    std::atomic<std::uint64_t> calls_failed;    ///< The same that have thrown.
    std::atomic<std::uint64_t> inputs_done;     ///< Inputs of maps.
    std::atomic<std::uint64_t> inputs_failed;
    std::atomic<std::uint64_t> result_bytes;
    std::atomic<std::uint64_t> work_ns;    ///< In calls and ranges; counted where the pool keeps a trace.

    /// For the one writer.
    static void add(std::atomic<std::uint64_t>& counter, std::uint64_t n) noexcept {
        counter.store(counter.load(std::memory_order_relaxed) + n, std::memory_order_relaxed);
    }
};

struct alignas(64) WorkerSlot {
    enum Phase : std::uint32_t { absent = 0, starting = 1, ready = 2, leaving = 3, unusable = 4 };

    std::atomic<std::uint64_t>
        current;    ///< Slot index + 1 of the task that it takes or runs; written before it is taken.
    std::atomic<std::uint64_t>
        claim;    ///< Of a map: 0 none, kResume, or index + 1 of the claim that it makes or runs.
    std::atomic<std::uint64_t>
        progress;    ///< Of a map: (element + 1) << 1 of the element that runs, or the range's end; bit 0: condemned.
    std::atomic<std::int64_t> started_ns;
    std::atomic<std::int64_t> cpu_started_ns;
    std::atomic<std::uint32_t> phase;
    std::atomic<std::uint32_t> pid;    ///< Written by the worker before anything else.
    WorkerCounters counters;
    std::atomic<std::int64_t> born_ns;     ///< When the worker began.
    std::atomic<std::int64_t> ready_ns;    ///< When its initializer had returned; 0 before.

    alignas(64) std::atomic<std::uint32_t> notify_tail;    ///< Written by the worker.
    std::atomic<std::uint32_t> notify_overflow;    ///< Set by the worker when its ring is full; cleared by the parent.
    std::atomic<std::uint32_t> notify_head;        ///< Written by the parent.
    std::atomic<std::uint32_t> notify_ring[kNotifyRing];

    char start_error[1024];    ///< Why the worker is `unusable`.
    CrashRecord crash;
};

inline constexpr std::uint64_t kResume = ~std::uint64_t{0};

/// What a worker with nothing to do does for a moment before it sleeps, if no other does so.
enum class IdleWorker : std::uint32_t {
    sleeps,       ///< That moment is left out: there is one processor.
    watches,      ///< Waits awake.
    gives_way,    ///< Waits awake, and lets others run each time it has looked.
};

struct PoolHeader {
    enum Mode : std::uint32_t { open = 0, closing = 1, stopped = 2 };

    // Written by the parent before the first worker is born.
    std::uint64_t slot_capacity;
    std::uint64_t ring_mask;
    std::uint64_t ring_offset;    ///< From the home's beginning, as the next two.
    std::uint64_t slots_offset;
    std::uint64_t workers_offset;
    std::uint64_t memory_limit;
    std::uint64_t max_tasks;
    std::uint64_t max_growth;
    std::uint64_t initializer_offset;    ///< An encoded call: token, then function and arguments; 0 for none.
    std::uint64_t initializer_size;
    std::uint64_t exit_offset;
    std::uint64_t exit_size;
    std::uint32_t owner_number;    ///< Of the process that made the pool.
    std::uint32_t cpus;
    IdleWorker idle_worker;
    std::uint32_t worker_count;
    std::uint32_t inner_cpus;        ///< A worker's share of the processors.
    std::uint32_t inner_threads;     ///< For libraries with threads of their own; 0: what they like.
    std::uint32_t keeps_times;       ///< Workers note when each task begins, even where it has no limit.
    std::uint64_t trace_offset;      ///< The block of the workers' trace rings, in the parent's heap; 0 for no trace.
    std::uint64_t trace_capacity;    ///< Events of one ring: a power of two.
    char name[64];
    char owner_name[64];
    std::uint64_t parent_entry_address;    ///< Where the process that made the pool has worker_entry.
    shm::RegionAddress lender;             ///< Of another family, in whose region arguments may lie.

    std::atomic<std::uint64_t>
        entry_address;    ///< Where workers have worker_entry: the program's place in their memory.

    alignas(64) std::atomic<std::uint64_t> head;    ///< Moved on by workers, each time by one, by compare-and-swap.
    alignas(64) std::atomic<std::uint64_t> tail;    ///< Written by the parent, from its own copy.
    /// Raised whenever there is something to see; workers sleep on it.
    alignas(64) std::atomic<std::uint32_t> epoch;
    /// At least the number of workers that sleep, or are about to: they add themselves, wakers take them off.
    std::atomic<std::uint32_t> sleepers;
    std::atomic<std::uint32_t> spinner;    ///< Index + 1 of the one worker that waits awake; 0 for none.
    std::atomic<std::uint32_t> mode;
    alignas(64) std::atomic<std::uint32_t> notify_epoch;    ///< Raised by workers that end a task with kNotify.
};

/// A map: one function over many inputs, which workers take by ranges. Lies in the parent's heap.
struct MapPart {
    std::uint64_t map;     ///< Offset of the MapHeader.
    std::uint32_t part;    ///< Which of its parts this task is.
};

struct alignas(64) MapPartState {
    // Written by the parent before the part is queued (again).
    std::uint64_t resume_begin;
    std::uint64_t resume_end;
    // Written by the worker that runs the part.
    std::atomic<std::uint32_t> resume_done;
    std::atomic<std::uint32_t> pins;    ///< The first of the pins of what its results name.
    std::atomic<std::uint64_t>
        error_element;    ///< Index + 1 of the first element that threw; 0 for none. Written after the rest.
    std::uint64_t error_offset;
    std::uint64_t error_size;
    std::atomic<std::uint64_t> blocks;    ///< The last of a chain of result blocks.
};

struct MapHeader {
    std::uint64_t count;
    std::uint64_t call_offset;    ///< The encoded function.
    std::uint64_t call_size;
    std::uint64_t input_offset;
    std::uint64_t output_offset;
    std::uint64_t parts_offset;
    std::uint64_t claims_offset;
    std::uint32_t claim_capacity;
    std::uint32_t part_count;
    std::uint32_t timed;              ///< Elements have time limits, so that each start is a compare-and-swap.
    std::uint32_t cells;              ///< The output is an array of ResultCell instead of plain values.
    std::uint64_t output_size;        ///< Bytes of one plain result.
    std::uint64_t fixed_chunk;        ///< 0: by measuring.
    std::uint32_t stop_on_failure;    ///< The first element that fails cancels the map.
    alignas(64) std::atomic<std::uint32_t> next_claim;    ///< A hint: no claim below it is free.
    std::atomic<std::uint32_t> cancelled;
};

/// A claim is one word, from 0 to its value by one compare-and-swap: who took the elements from where the one before it ends.
namespace map_claim {

inline constexpr int kWorkerShift = 48;

constexpr std::uint64_t make(std::uint64_t end, std::uint32_t worker) {
    return end | (std::uint64_t{worker} + 1) << kWorkerShift;
}
constexpr std::uint64_t end(std::uint64_t claim) { return claim & ((std::uint64_t{1} << kWorkerShift) - 1); }
constexpr std::uint32_t worker(std::uint64_t claim) { return static_cast<std::uint32_t>(claim >> kWorkerShift) - 1; }

}    // namespace map_claim

/// The result of one element of a map whose results are not plain values.
struct ResultCell {
    enum Kind : std::uint64_t { none = 0, value = 1, exception = 2 };
    std::uint64_t offset;
    std::uint64_t size;
    std::atomic<std::uint64_t> kind;    ///< Written last.
};

/// A pool's home, as one process sees it. Sizes are read once: nobody's bounds move when a worker gone wild overwrites them.
struct PoolHome {
    explicit PoolHome(shm::Offset home_offset)
        : PoolHome(home_offset, *shm::Region::instance().at<PoolHeader>(home_offset)) {}
    PoolHome(shm::Offset home_offset, PoolHeader& home_header)
        : offset(home_offset),
          header(home_header),
          workers(at<WorkerSlot>(home_header.workers_offset)),
          ring(at<std::atomic<std::uint32_t>>(home_header.ring_offset)),
          slots(at<TaskSlot>(home_header.slots_offset)),
          ring_mask(home_header.ring_mask),
          slot_capacity(home_header.slot_capacity),
          worker_count(home_header.worker_count),
          cpus(home_header.cpus) {}

    template <class T>
    T* at(std::uint64_t within) const {
        return shm::Region::instance().at<T>(offset + within);
    }

    shm::Offset offset;
    PoolHeader& header;
    WorkerSlot* workers;
    std::atomic<std::uint32_t>* ring;
    TaskSlot* slots;
    std::uint64_t ring_mask;
    std::uint64_t slot_capacity;
    std::uint32_t worker_count;
    std::uint32_t cpus;
};

}    // namespace multihull::detail
