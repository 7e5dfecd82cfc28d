// What a pool has done so far, as plain values: counters that cost nothing to keep, and insights into where the time went.
//
// Values: a copy of what was known when they were asked for. Numbers that workers keep are taken while they work, so they may differ
// by the tasks that end at that moment; after join() they stand still. An input of a map counts as a task.
#pragma once

#include <multihull/stack.hpp>

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace multihull {

/// What a place for a worker is at.
enum class WorkerState {
    absent,      ///< Nobody has it now: the pool has ended, or a successor will be started.
    starting,    ///< A process that has not yet come to its first task, with its initializer included.
    idle,
    busy,
    leaving,    ///< Runs the exit function.
};

/// "absent", "starting", ...
const char* to_string(WorkerState state) noexcept;

/// How a task ended.
enum class TaskOutcome {
    value,
    exception,
    crashed,      ///< Its worker died.
    timed_out,    ///< Ended for its time-out, or its limit on processor time.
    cancelled,    ///< By cancel(), or with its pool.
    running,      ///< Not yet at all.
};

/// "value", "exception", "crashed", "timed out", "cancelled", "running".
const char* to_string(TaskOutcome outcome) noexcept;

/// One of a pool's places for workers. A process that dies or is replaced leaves its place to the next.
struct WorkerStats {
    int pid = 0;    ///< 0: absent, or not born yet.
    WorkerState state = WorkerState::absent;
    std::uint64_t done = 0;      ///< Tasks that have returned, of all processes that had this place.
    std::uint64_t failed = 0;    ///< Tasks that have thrown.
    std::uint64_t restarts = 0;
    std::string task{};    ///< The function that runs; empty where none does.
    /// How long it has been running; of a map, since the range of inputs at hand was begun. Empty without `trace` or a time limit.
    std::optional<std::chrono::nanoseconds> task_age{};
};

/// Counters of a pool since it was made.
struct PoolStats {
    std::string name{};
    std::chrono::nanoseconds elapsed{0};
    std::uint64_t done = 0;         ///< Tasks that have returned.
    std::uint64_t failed = 0;       ///< That have thrown.
    std::uint64_t crashed = 0;      ///< Whose worker died, and which were not tried again.
    std::uint64_t timed_out = 0;    ///< That were ended for a limit of time.
    std::uint64_t cancelled = 0;    ///< Inputs of a cancelled map that were never begun do not count.
    std::uint64_t queued =
        0;    ///< Of more than 4096 about: a task that was cancelled while it waited may still count.
    std::uint64_t running = 0;           ///< Workers that are at a task.
    std::uint64_t restarts = 0;          ///< Workers started in the place of one that died or was replaced.
    std::uint64_t bytes_sent = 0;        ///< Functions, arguments and inputs, encoded.
    std::uint64_t bytes_received = 0;    ///< Results, encoded.
    std::vector<WorkerStats> workers{};
};

/// Where the time of one place's workers went. All of them together fill the time that processes had the place.
struct WorkerInsights {
    std::chrono::nanoseconds start{0};    ///< From the wish for a process to its first line.
    std::chrono::nanoseconds init{0};     ///< In the initializer, and what else comes before the first task.
    std::chrono::nanoseconds wait{0};     ///< Without a task. With `trace` only, as work.
    std::chrono::nanoseconds work{0};     ///< In tasks.
    std::uint64_t done = 0;
    std::uint64_t failed = 0;
    std::uint64_t restarts = 0;
};

/// A task, or a range of a map's inputs, that took long.
struct SlowTask {
    std::string function{};
    std::size_t worker = 0;              ///< Which place.
    std::chrono::nanoseconds wait{0};    ///< From when it was submitted until it began.
    std::chrono::nanoseconds work{0};
    std::size_t first_input = 0;    ///< Of a map.
    std::size_t inputs = 0;         ///< 0 for a single call.
    TaskOutcome outcome = TaskOutcome::value;
};

/// A worker's death that was not in good order, or the end of a task by a limit.
struct PoolFailure {
    std::chrono::nanoseconds when{0};    ///< Since the pool was made.
    std::size_t worker = 0;              ///< Which place.
    int pid = 0;
    TaskOutcome outcome = TaskOutcome::crashed;
    std::string function{};    ///< What it ran; empty where it held no task.
    std::string what{};        ///< A sentence: the signal and address, the limit.
    Stack stack{};
    std::string last_stderr{};    ///< What the worker had last written to its stderr.
};

/// Where a pool's time went.
struct PoolInsights {
    std::chrono::nanoseconds elapsed{
        0};                 ///< Since the pool was made; until its last worker left, where it has ended.
    bool traced = false;    ///< Made with `trace`: wait, work and the slowest tasks are known.
    std::vector<WorkerInsights> workers{};
    std::vector<SlowTask> slowest{};        ///< Longest first, of those that the trace still holds; ten at most.
    std::vector<PoolFailure> failures{};    ///< The last ones, oldest first.
    std::uint64_t restarts = 0;
    std::uint64_t bytes_sent = 0;
    std::uint64_t bytes_received = 0;

    /// The same as a table for people, a few lines.
    std::string to_string() const;
};

}    // namespace multihull
