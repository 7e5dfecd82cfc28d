#include "dashboard_history.hpp"

#include <nlohmann/json.hpp>

#include <algorithm>

namespace app {

namespace {

constexpr double kKept = 120;                // seconds
constexpr std::size_t kDrawnWorkers = 64;    // of a pool: more rows than that nobody can look at
constexpr std::size_t kStretches = 400;      // of a worker

}    // namespace

void DashboardHistory::add(std::deque<Stretch>& stretches, const multihull::WorkerStats& worker, double seconds) {
    const bool busy = worker.state == multihull::WorkerState::busy && !worker.task.empty();
    const std::string what = busy ? worker.task : multihull::to_string(worker.state);
    // A task that began after the last look is another one, be it of the same function.
    const double began =
        busy && worker.task_age ? seconds - std::chrono::duration<double>(*worker.task_age).count() : 0;
    const double last = stretches.empty() ? std::max(began, 0.0) : stretches.back().end;
    if (!stretches.empty() && stretches.back().what == what && began <= last) {
        stretches.back().end = seconds;
    } else {
        stretches.push_back({last, seconds, what, busy});
    }
    while (stretches.size() > kStretches || stretches.front().end < seconds - kKept) {
        stretches.pop_front();
    }
}

void DashboardHistory::add(const std::vector<ProgramView>& programs, double seconds) {
    for (const ProgramView& program : programs) {
        for (const PoolView& view : program.pools) {
            const multihull::PoolStats& stats = view.pool.stats;
            Past& past = pasts_[{program.pid, stats.name}];
            past.points.push_back({seconds, view.tasks_per_second, stats.queued, view.memory()});
            while (past.points.front().at < seconds - kKept) {
                past.points.pop_front();
            }
            past.workers.resize(std::min(stats.workers.size(), kDrawnWorkers));
            for (std::size_t i = 0; i < past.workers.size(); ++i) {
                add(past.workers[i], stats.workers[i], seconds);
            }
            past.last = seconds;
        }
    }
    std::erase_if(pasts_, [seconds](const auto& entry) { return entry.second.last < seconds - kKept; });
}

std::string DashboardHistory::to_json_text(const std::vector<ProgramView>& programs, double seconds) const {
    nlohmann::ordered_json json = to_json(programs);
    json["now"] = seconds;
    for (std::size_t p = 0; p < programs.size(); ++p) {
        for (std::size_t i = 0; i < programs[p].pools.size(); ++i) {
            nlohmann::ordered_json& pool = json["programs"][p]["pools"][i];
            nlohmann::ordered_json points = nlohmann::ordered_json::array();
            nlohmann::ordered_json stream = nlohmann::ordered_json::array();
            const auto past = pasts_.find({programs[p].pid, programs[p].pools[i].pool.stats.name});
            if (past != pasts_.end()) {
                for (const Point& point : past->second.points) {
                    points.push_back({point.at, point.tasks_per_second, point.queued, point.memory});
                }
                for (const auto& worker : past->second.workers) {
                    nlohmann::ordered_json row = nlohmann::ordered_json::array();
                    for (const Stretch& stretch : worker) {
                        row.push_back({stretch.begin, stretch.end, stretch.what, stretch.busy});
                    }
                    stream.push_back(std::move(row));
                }
            }
            pool["points"] = std::move(points);
            pool["stream"] = std::move(stream);
        }
    }
    return json.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

}    // namespace app
