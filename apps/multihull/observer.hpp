// What `multihull top` and `multihull dashboard` show: the published pools, with what only two looks can tell.
//
// Not thread-safe.
#pragma once

#include <multihull/monitor.hpp>
#include <nlohmann/json_fwd.hpp>

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <map>
#include <string>
#include <utility>
#include <vector>

namespace app {

/// A pool, and how fast it is.
struct PoolView {
    multihull::PublishedPool pool;
    double tasks_per_second = 0;    ///< Over the last three seconds, or since it was first seen.

    std::size_t memory() const;    ///< Of all workers, bytes.
};

struct ProgramView {
    int pid = 0;
    std::string command{};
    std::size_t memory = 0;
    std::string trouble{};
    std::vector<PoolView> pools{};
};

class Observer {
public:
    using Clock = std::chrono::steady_clock;

    /// Asks every program.
    std::vector<ProgramView> look();

private:
    struct Count {
        std::uint64_t ended = 0;
        Clock::time_point at{};
    };
    using Key = std::pair<int, std::string>;    // the program and the pool's name

    double rate(const Key& key, std::uint64_t ended);

    multihull::PoolWatcher watcher_;
    std::map<Key, std::deque<Count>> counts_;    // of the last seconds, oldest first
};

/// As scripts and the page read it: sizes in bytes, times in seconds.
nlohmann::ordered_json to_json(const std::vector<ProgramView>& programs);

}    // namespace app
