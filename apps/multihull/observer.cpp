#include "observer.hpp"

#include <nlohmann/json.hpp>

#include <numeric>

namespace app {

using Json = nlohmann::ordered_json;
using multihull::PublishedFailure;
using multihull::WorkerStats;

namespace {

constexpr auto kWindow = std::chrono::seconds(3);
constexpr auto kForgotten = std::chrono::minutes(2);

double seconds(std::chrono::nanoseconds time) { return std::chrono::duration<double>(time).count(); }

Json to_json(const WorkerStats& worker, std::size_t memory) {
    return {{"pid", worker.pid},       {"state", multihull::to_string(worker.state)},
            {"task", worker.task},     {"task_age", worker.task_age ? Json(seconds(*worker.task_age)) : Json(nullptr)},
            {"memory", memory},        {"done", worker.done},
            {"failed", worker.failed}, {"restarts", worker.restarts}};
}

Json to_json(const PublishedFailure& failure) {
    return {{"age", seconds(failure.age)},  {"worker", failure.worker},
            {"pid", failure.pid},           {"outcome", multihull::to_string(failure.outcome)},
            {"function", failure.function}, {"what", failure.what},
            {"stack", failure.stack},       {"last_stderr", failure.last_stderr}};
}

Json to_json(const PoolView& view) {
    const multihull::PoolStats& stats = view.pool.stats;
    Json workers = Json::array();
    for (std::size_t i = 0; i < stats.workers.size(); ++i) {
        workers.push_back(to_json(stats.workers[i], view.pool.memory[i]));
    }
    Json failures = Json::array();
    for (const PublishedFailure& failure : view.pool.failures) {
        failures.push_back(to_json(failure));
    }
    return {{"name", stats.name},
            {"elapsed", seconds(stats.elapsed)},
            {"tasks_per_second", view.tasks_per_second},
            {"queued", stats.queued},
            {"running", stats.running},
            {"done", stats.done},
            {"failed", stats.failed},
            {"crashed", stats.crashed},
            {"timed_out", stats.timed_out},
            {"cancelled", stats.cancelled},
            {"restarts", stats.restarts},
            {"bytes_sent", stats.bytes_sent},
            {"bytes_received", stats.bytes_received},
            {"memory", view.memory()},
            {"workers", std::move(workers)},
            {"failures", std::move(failures)}};
}

}    // namespace

std::size_t PoolView::memory() const { return std::accumulate(pool.memory.begin(), pool.memory.end(), std::size_t{0}); }

double Observer::rate(const Key& key, std::uint64_t ended) {
    const auto at = Clock::now();
    std::deque<Count>& counts = counts_[key];
    if (!counts.empty() && ended < counts.back().ended) {
        counts.clear();    // another pool of the same name
    }
    counts.push_back({ended, at});
    while (counts.size() > 2 && counts[1].at <= at - kWindow) {
        counts.pop_front();
    }
    const double time = seconds(at - counts.front().at);
    return time > 0 ? static_cast<double>(ended - counts.front().ended) / time : 0;
}

std::vector<ProgramView> Observer::look() {
    std::vector<ProgramView> views;
    for (multihull::PublishedProgram& program : watcher_.look()) {
        ProgramView view{.pid = program.pid,
                         .command = std::move(program.command),
                         .memory = program.memory,
                         .trouble = std::move(program.trouble)};
        for (multihull::PublishedPool& pool : program.pools) {
            const multihull::PoolStats& stats = pool.stats;
            const std::uint64_t ended = stats.done + stats.failed + stats.crashed + stats.timed_out;
            const double speed = rate({view.pid, stats.name}, ended);
            view.pools.push_back({std::move(pool), speed});
        }
        views.push_back(std::move(view));
    }
    // Of programs that are gone.
    std::erase_if(counts_, [](const auto& entry) { return entry.second.back().at < Clock::now() - kForgotten; });
    return views;
}

Json to_json(const std::vector<ProgramView>& programs) {
    Json result = Json::array();
    for (const ProgramView& program : programs) {
        Json pools = Json::array();
        for (const PoolView& pool : program.pools) {
            pools.push_back(to_json(pool));
        }
        result.push_back({{"pid", program.pid},
                          {"command", program.command},
                          {"memory", program.memory},
                          {"trouble", program.trouble},
                          {"pools", std::move(pools)}});
    }
    return {{"programs", std::move(result)}};
}

}    // namespace app
