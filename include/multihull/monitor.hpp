// Looking on: what the pools of this user's running programs are at, as far as those programs publish it. Read-only.
//
// A program publishes its pools by PoolOptions::publish or the environment variable MULTIHULL_MONITOR=1. It answers out of the thread
// that supervises its workers, without ever waiting; nothing of it is left when it is killed. Programs of other users, and those in
// another network namespace (a container), are not seen.
#pragma once

#include <multihull/pool_stats.hpp>

#include <chrono>
#include <cstddef>
#include <memory>
#include <optional>
#include <string>
#include <vector>

namespace multihull {

/// A worker's death, or the end of a task by a limit, as looked at from another process.
struct PublishedFailure {
    std::chrono::nanoseconds age{0};    ///< How long ago.
    std::size_t worker = 0;             ///< Which place.
    int pid = 0;
    TaskOutcome outcome = TaskOutcome::crashed;
    std::string function{};    ///< What it ran; empty where it held no task.
    std::string what{};        ///< A sentence.
    std::string stack{};       ///< A frame a line; empty where none is known.
    std::string last_stderr{};
};

/// A pool of a running program.
struct PublishedPool {
    PoolStats stats{};
    /// Bytes of private memory of each worker, as the system counts them now; 0 where it is gone.
    std::vector<std::size_t> memory{};
    std::vector<PublishedFailure> failures{};    ///< The last ones, oldest first.
};

/// A running program that publishes its pools.
struct PublishedProgram {
    int pid = 0;
    std::string command{};    ///< Its name.
    std::size_t memory = 0;
    std::string trouble{};    ///< Why there is nothing of its pools, a sentence; empty where there is.
    std::vector<PublishedPool> pools{};
};

/// Looks at the pools of this user's programs, again and again. Remembers the names of functions that it has looked up.
///
/// Not thread-safe.
class PoolWatcher {
public:
    PoolWatcher();
    PoolWatcher(const PoolWatcher&) = delete;
    PoolWatcher& operator=(const PoolWatcher&) = delete;
    ~PoolWatcher();

    /// Asks all programs at once and waits for the slowest, for at most `patience`: one that is stopped has `trouble` then. Ordered by
    /// process id.
    std::vector<PublishedProgram> look(std::chrono::nanoseconds patience = std::chrono::milliseconds(500));

private:
    struct State;
    std::unique_ptr<State> state_;
};

}    // namespace multihull
