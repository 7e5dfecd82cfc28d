// What a pool remembers of its own past, beside what its workers count themselves: births, deaths, and what was lost with them.
//
// Private to the process that made the pool. Not thread-safe: used under the engine's mutex_.
#pragma once

#include <multihull/pool_stats.hpp>
#include <multihull/stack.hpp>

#include <cstddef>
#include <cstdint>
#include <deque>
#include <optional>
#include <string>
#include <vector>

namespace multihull::detail {

/// A task, or a range of a map, that a worker holds or held.
struct HeldTask {
    std::uint64_t token = 0;
    std::uint64_t leading = 0;
    std::int64_t submitted_ns = 0;
    std::int64_t started_ns = 0;    ///< 0: not known.
    std::uint64_t first = 0;
    std::uint32_t count = 0;    ///< 0: a single call.
};

/// One process that had a place.
struct Life {
    std::uint32_t worker = 0;
    int pid = 0;
    std::int64_t requested_ns = 0;
    std::int64_t born_ns = 0;     ///< 0: it never said so.
    std::int64_t ready_ns = 0;    ///< 0: the same.
    std::int64_t ended_ns = 0;    ///< 0: it lives.
};

/// A worker's death, with what it held.
struct Death {
    std::int64_t when_ns = 0;
    std::uint32_t worker = 0;
    int pid = 0;
    TaskOutcome outcome = TaskOutcome::crashed;
    bool held = false;
    HeldTask task{};
    std::string what{};
    Stack stack{};
    std::string last_stderr{};
};

/// A pool at one moment, before any name is looked up: costs microseconds.
struct PoolSnapshot {
    PoolStats stats{};                              ///< WorkerStats::task is empty.
    std::vector<std::optional<HeldTask>> held{};    ///< What each worker is at.
    std::vector<Death> deaths{};                    ///< The last ones, oldest first.
};

class History {
public:
    History(std::size_t workers, bool traced) : places_(workers), kept_(traced ? 16384 : 256) {}

    struct Place {
        std::uint64_t starts = 0;
        std::uint64_t inputs_done = 0;    // of ranges that their worker did not come to the end of
        std::int64_t start_ns = 0;
        std::int64_t init_ns = 0;
        std::int64_t ready_ns = 0;        // all the time between ready and dead
        std::int64_t lost_work_ns = 0;    // in tasks that the worker died of
    };

    std::int64_t made_ns = 0;
    std::int64_t deserted_ns = 0;    ///< When the last worker left; 0 while there are some.
    std::uint64_t crashed = 0;
    std::uint64_t timed_out = 0;
    std::uint64_t cancelled = 0;
    std::uint64_t bytes_sent = 0;

    Place& place(std::uint32_t worker) { return places_[worker]; }
    const Place& place(std::uint32_t worker) const { return places_[worker]; }
    const std::deque<Life>& lives() const noexcept { return lives_; }
    const std::deque<Death>& deaths() const noexcept { return deaths_; }

    /// Counts a task that ended without its worker's word.
    void count_lost(TaskOutcome outcome) noexcept;
    /// A process is gone.
    void ended(const Life& life);
    void died(Death death);
    /// Adds the times of a life to a place's.
    static void add_times(Place& place, const Life& life, std::int64_t now_ns) noexcept;

private:
    std::vector<Place> places_;
    const std::size_t kept_;
    std::deque<Life> lives_;
    std::deque<Death> deaths_;
};

}    // namespace multihull::detail
