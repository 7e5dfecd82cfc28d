// What the dashboard remembers of the last two minutes: how fast each pool was, and what each worker was at.
//
// Not thread-safe.
#pragma once

#include "observer.hpp"

#include <chrono>
#include <cstdint>
#include <deque>
#include <map>
#include <string>
#include <utility>
#include <vector>

namespace app {

class DashboardHistory {
public:
    /// Adds a look, taken `seconds` after the dashboard's start.
    void add(const std::vector<ProgramView>& programs, double seconds);

    /// The look, and the past of what is in it, as the page reads it.
    std::string to_json_text(const std::vector<ProgramView>& programs, double seconds) const;

private:
    /// A worker was at the same task, or in the same state without one.
    struct Stretch {
        double begin = 0;
        double end = 0;
        std::string what{};    ///< The function, or the state where it is not busy.
        bool busy = false;
    };
    static void add(std::deque<Stretch>& stretches, const multihull::WorkerStats& worker, double seconds);

    struct Point {
        double at = 0;
        double tasks_per_second = 0;
        std::uint64_t queued = 0;
        std::size_t memory = 0;
    };
    struct Past {
        std::deque<Point> points{};
        std::vector<std::deque<Stretch>> workers{};
        double last = 0;    // when it was last seen
    };
    using Key = std::pair<int, std::string>;    // the program and the pool's name

    std::map<Key, Past> pasts_;
};

}    // namespace app
