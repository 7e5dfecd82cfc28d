// The table's rows, and what each is compared with: the best that a user has now for the same thing.
#include "harness.hpp"

namespace bench {

const std::vector<Work>& works() {
    static const std::vector<Work> all = {
        {"round-trip", "one task there and back, awake", kTbb, &prepare_round_trip},
        {"round-trip-idle", "the same after 1 ms of idleness", kTbb, &prepare_round_trip_idle},
        {"tiny-tasks", "100,000 tiny tasks with futures, each", kAsio, &prepare_tiny_tasks},
        {"tiny-tasks-traced", "the same with a trace, and without", kUntraced, &prepare_tiny_tasks_traced},
        {"tiny-tasks-watched", "the same looked on, and not", kUnwatched, &prepare_tiny_tasks_watched},
        {"map-vector", "map of 1 M ints x*x, vector to vector", kTbb, &prepare_map_vector},
        {"map-iota", "map of 1 M ints x*x, from iota", kTbb, &prepare_map_iota},
        {"map-lambda", "the same by a lambda", kTbb, &prepare_map_lambda},
        {"map-shared", "the same from one shared array into another", kTbb, &prepare_map_shared},
        {"map-1us", "map of 100,000 tasks of 1 us", kTbb, &prepare_map_microsecond},
        {"map-1us-traced", "the same with a trace, and without", kUntraced, &prepare_map_microsecond_traced},
        {"pool-5", "Pool(2), map of 5, end", kBare, &prepare_pool_of_five},
        {"pool-5-fork", "the same, start method fork", kBare, &prepare_pool_of_five_fork},
        {"pool-999", "Pool(3), 999 tasks, end", kThreadPool, &prepare_pool_of_999},
        {"process-fork", "process, fork", kBare, &prepare_process_fork},
        {"process-forkserver", "process, forkserver", kBare, &prepare_process_forkserver},
        {"process-spawn", "process, spawn", kBare, &prepare_process_spawn},
        {"process-fork-1g", "process, fork, parent of 1 GiB", kBare, &prepare_process_fork_big},
        {"process-forkserver-1g", "process, forkserver, parent of 1 GiB", kBare, &prepare_process_forkserver_big},
        {"process-spawn-1g", "process, spawn, parent of 1 GiB", kBare, &prepare_process_spawn_big},
        {"crash", "a crash, until the next task is done", kBare, &prepare_crash},
    };
    return all;
}

}    // namespace bench
