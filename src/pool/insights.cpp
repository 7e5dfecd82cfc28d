// What the engine knows of its past and its present, as values for the user.
#include "pool/engine.hpp"

#include "os/clock.hpp"
#include "pool/fetched_call.hpp"
#include "pool/map_state.hpp"
#include "pool/trace_ring.hpp"
#include "shm/heap.hpp"

#include <algorithm>
#include <bit>
#include <new>
#include <set>
#include <unistd.h>
#include <utility>

namespace multihull::detail {

/// A call or a range, whoever told of it.
struct TracedTask {
    std::uint32_t worker = 0;
    TaskOutcome outcome = TaskOutcome::value;
    TraceEntry entry{};
};

namespace {

constexpr std::uint64_t kLeastCapacity = 64;
constexpr std::uint64_t kMostCapacity = std::uint64_t{1} << 24;
constexpr std::size_t kSlowest = 10;
// So many names in a queue are looked at one by one when somebody asks how many tasks wait.
constexpr std::uint64_t kCountedNames = 4096;

std::chrono::nanoseconds since(std::int64_t begin_ns, std::int64_t ns) {
    return std::chrono::nanoseconds(std::max<std::int64_t>(ns - begin_ns, 0));
}

TracedTask traced(const HeldTask& task, std::uint32_t worker, int pid, std::int64_t ended_ns, TaskOutcome outcome) {
    TraceEntry entry;
    entry.submitted_ns = task.submitted_ns;
    entry.started_ns = task.started_ns;
    entry.ended_ns = ended_ns;
    entry.token = task.token;
    entry.leading = task.leading;
    entry.first = task.first;
    entry.count = task.count;
    entry.pid = static_cast<std::uint32_t>(pid);
    return {worker, outcome, entry};
}

// A worker tells of a task just before it ends it: where it died in between, its word does not count.
bool overruled(const TracedTask& told, const std::deque<Death>& deaths) {
    return std::any_of(deaths.begin(), deaths.end(), [&](const Death& death) {
        return death.held && death.worker == told.worker && death.task.submitted_ns == told.entry.submitted_ns &&
               (death.task.started_ns == told.entry.started_ns ||
                (told.entry.started_ns < death.task.started_ns && death.task.started_ns < told.entry.ended_ns));
    });
}

}    // namespace

void Engine::make_trace_rings() {
    trace_capacity_ = std::bit_ceil(std::clamp<std::uint64_t>(options_.trace_capacity, kLeastCapacity, kMostCapacity));
    trace_block_size_ = TraceRing::size(trace_capacity_) * home_.worker_count;
    trace_block_ = shm::Heap::instance().allocate(trace_block_size_);
    if (trace_block_ == 0) {
        throw StartError("there is no room in shared memory for a trace of " + std::to_string(trace_capacity_) +
                         " tasks of each worker: make .trace_capacity smaller");
    }
    for (std::uint32_t i = 0; i < home_.worker_count; ++i)
        TraceRing::at(trace_block_, trace_capacity_, i)->tail.store(0, std::memory_order_relaxed);
    home_.header.trace_offset = trace_block_;
    home_.header.trace_capacity = trace_capacity_;
    home_.header.keeps_times = 1;
}

// Its parts are queued already: where there is no memory it is just not counted.
void Engine::add_map(const std::shared_ptr<MapState>& map) noexcept try {
    const std::lock_guard guard(mutex_);
    history_.bytes_sent += map->bytes_sent();
    if (maps_.size() >= maps_limit_) {
        std::erase_if(maps_, [](const auto& old) { return old.expired(); });
        maps_limit_ = std::max<std::size_t>(16, 2 * maps_.size());
    }
    maps_.push_back(map);
} catch (const std::bad_alloc&) {}

// Needs mutex_. The call, or the input of a map, that a worker is at: dead or alive.
std::optional<HeldTask> Engine::held_by(std::uint32_t index) const {
    const WorkerSlot& shared = home_.workers[index];
    const std::uint64_t current = shared.current.load(std::memory_order_acquire);
    if (current == 0 || current > records_.size()) return std::nullopt;
    const auto task = static_cast<std::uint32_t>(current - 1);
    const TaskSlot& held = slot(task);
    const std::uint32_t state = held.state.load(std::memory_order_acquire);
    const auto phase = task_state::phase(state);
    const Record& record = records_[task];
    if ((phase != task_state::taken && phase != task_state::condemned) || task_state::worker(state) != index ||
        !record.in_use) {
        return std::nullopt;
    }
    const std::int64_t now = os::now_ns();
    HeldTask answer;
    answer.token = held.token;
    if (home_.header.keeps_times != 0 || (state & task_state::kTimed) != 0) {
        const std::int64_t started = shared.started_ns.load(std::memory_order_acquire);
        answer.started_ns = std::clamp(started, history_.made_ns, now);
        answer.submitted_ns = answer.started_ns;
    }
    if (trace_block_ != 0) {
        answer.submitted_ns = std::clamp(held.submitted_ns, history_.made_ns, now);
        answer.started_ns = std::max(answer.started_ns, answer.submitted_ns);
    }
    if (record.map) {
        const std::uint64_t progress = shared.progress.load(std::memory_order_acquire) >> 1;
        if (progress == 0 || progress > record.map->count) return std::nullopt;    // between two ranges
        answer.leading = leading_bytes(record.map->call_bytes());
        answer.first = progress - 1;
        answer.count = 1;
    } else if ((held.arguments_offset & (kFetched | shm::kForeign)) != 0) {
        answer.leading = 0;    // another process has the call
    } else if (record.block != 0) {
        answer.leading = leading_bytes(std::span(shm::Region::instance().at(record.block), record.block_size));
    } else {
        answer.leading = leading_bytes(held.arguments);
    }
    return answer;
}

// Needs mutex_. Before this process has heard of its birth a worker may be at work: then its own word.
pid_t Engine::pid_of(const Worker& worker) const {
    if (worker.pid != 0) return worker.pid;
    return static_cast<pid_t>(home_.workers[worker.index].pid.load(std::memory_order_acquire));
}

// Needs mutex_.
Life Engine::life_of(const Worker& worker) const {
    const WorkerSlot& shared = home_.workers[worker.index];
    return {worker.index,
            pid_of(worker),
            worker.requested_ns,
            shared.born_ns.load(std::memory_order_acquire),
            shared.ready_ns.load(std::memory_order_acquire),
            0};
}

// Needs mutex_. `held`: what the worker held before it was settled. Answers what is to be said of it; nothing where all is in order.
std::string Engine::record_end(Worker& worker, int code, const std::optional<HeldTask>& held) {
    Life life = life_of(worker);
    life.ended_ns = os::now_ns();
    history_.ended(life);
    const TaskOutcome outcome = outcome_of(worker.doom);
    if (!held && (outcome == TaskOutcome::cancelled || code == 0)) return {};    // in good order, or as was wished
    Death death{.when_ns = life.ended_ns,
                .worker = worker.index,
                .pid = worker.pid,
                .outcome = outcome,
                .held = held.has_value(),
                .last_stderr = worker.last_stderr};
    if (held) death.task = *held;
    std::optional<std::size_t> input;
    if (held && held->count != 0) input = held->first;
    const std::exception_ptr why = explain(worker, code, input);
    try {
        std::rethrow_exception(why);
    } catch (const WorkerCrashed& error) {
        death.what = error.what();
        death.stack = error.stack();
    } catch (const TaskTimeout& error) {
        death.what = error.what();
        death.stack = error.stack();
    } catch (const std::exception& error) {
        death.what = error.what();
    }
    std::string said = outcome == TaskOutcome::cancelled ? std::string() : death.what;
    history_.died(std::move(death));
    return said;
}

// Needs mutex_.
std::uint64_t Engine::restarts() const noexcept {
    std::uint64_t restarts = 0;
    for (std::uint32_t i = 0; i < home_.worker_count; ++i) {
        const std::uint64_t starts = history_.place(i).starts;
        restarts += starts > 1 ? starts - 1 : 0;
    }
    return restarts;
}

// Needs mutex_. Calls in the queue, and inputs of maps that nobody has taken. The maps are `seen`, because who was their last must let
// go of them without the lock.
std::uint64_t Engine::queued_about(std::vector<std::shared_ptr<MapState>>& seen) const {
    const std::uint64_t head = home_.header.head.load(std::memory_order_acquire);
    const std::uint64_t names = tail_ - head;
    std::uint64_t queued = 0;
    if (names <= kCountedNames) {
        // Some name tasks that were cancelled, or taken by a worker that died before it could take the name out.
        for (std::uint64_t place = head; place != tail_; ++place) {
            const std::uint32_t task = home_.ring[place & home_.ring_mask].load(std::memory_order_relaxed);
            if (task >= records_.size() || records_[task].map) continue;
            const std::uint32_t state = slot(task).state.load(std::memory_order_acquire);
            if (task_state::phase(state) == task_state::queued) ++queued;
        }
    } else if (names <= home_.ring_mask + 1) {
        queued = names;    // a few parts of maps make no difference
    }
    for (const auto& entry : maps_) {
        auto map = entry.lock();
        if (!map) continue;
        if (!map->ready(0)) queued += map->unclaimed();
        seen.push_back(std::move(map));
    }
    return queued;
}

// Needs mutex_. All but the name of what it runs.
WorkerStats Engine::worker_stats(std::uint32_t index) const {
    const WorkerSlot& shared = home_.workers[index];
    const History::Place& place = history_.place(index);
    const WorkerCounters& counters = shared.counters;
    WorkerStats stats;
    stats.done = counters.calls_done.load(std::memory_order_relaxed) +
                 counters.inputs_done.load(std::memory_order_relaxed) + place.inputs_done;
    stats.failed =
        counters.calls_failed.load(std::memory_order_relaxed) + counters.inputs_failed.load(std::memory_order_relaxed);
    stats.restarts = place.starts > 1 ? place.starts - 1 : 0;
    const auto& worker = workers_[index];
    if (!worker) return stats;
    stats.pid = pid_of(*worker);
    switch (shared.phase.load(std::memory_order_acquire)) {
        case WorkerSlot::ready:
            stats.state = WorkerState::idle;
            break;
        case WorkerSlot::leaving:
        case WorkerSlot::unusable:
            stats.state = WorkerState::leaving;
            break;
        default:
            stats.state = WorkerState::starting;
    }
    return stats;
}

PoolSnapshot Engine::snapshot(std::size_t deaths) const {
    require_usable();
    PoolSnapshot snapshot;
    PoolStats& stats = snapshot.stats;
    std::vector<std::shared_ptr<MapState>> seen;
    const std::lock_guard guard(mutex_);
    const std::int64_t now = os::now_ns();
    stats.name = options_.name;
    stats.elapsed = since(history_.made_ns, now);
    stats.crashed = history_.crashed;
    stats.timed_out = history_.timed_out;
    stats.cancelled = history_.cancelled;
    stats.restarts = restarts();
    stats.bytes_sent = history_.bytes_sent;
    stats.queued = queued_about(seen);
    for (std::uint32_t i = 0; i < home_.worker_count; ++i) {
        WorkerStats& worker = stats.workers.emplace_back(worker_stats(i));
        stats.done += worker.done;
        stats.failed += worker.failed;
        stats.bytes_received += home_.workers[i].counters.result_bytes.load(std::memory_order_relaxed);
        auto& held = snapshot.held.emplace_back();
        if (worker.state != WorkerState::idle) continue;
        held = held_by(i);
        if (!held) continue;
        worker.state = WorkerState::busy;
        ++stats.running;
        if (held->started_ns != 0) worker.task_age = since(held->started_ns, now);
    }
    const auto& all = history_.deaths();
    snapshot.deaths.assign(all.end() - static_cast<std::ptrdiff_t>(std::min(deaths, all.size())), all.end());
    return snapshot;
}

PoolStats Engine::stats() const {
    PoolSnapshot snapshot = this->snapshot(0);
    for (std::size_t i = 0; i < snapshot.held.size(); ++i) {
        if (snapshot.held[i]) snapshot.stats.workers[i].task = name_of(*snapshot.held[i]);
    }
    return std::move(snapshot.stats);
}

// Needs mutex_. Until when there was something to be seen.
std::int64_t Engine::last_moment() const {
    return alive_ == 0 && history_.deserted_ns != 0 ? history_.deserted_ns : os::now_ns();
}

std::vector<PoolFailure> Engine::failures(const std::deque<Death>& deaths) const {
    std::vector<PoolFailure> failures;
    for (const Death& death : deaths) {
        if (death.outcome == TaskOutcome::cancelled) continue;
        failures.push_back({.when = since(history_.made_ns, death.when_ns),
                            .worker = death.worker,
                            .pid = death.pid,
                            .outcome = death.outcome,
                            .function = death.held ? name_of(death.task) : std::string(),
                            .what = death.what,
                            .stack = death.stack,
                            .last_stderr = death.last_stderr});
    }
    return failures;
}

// What workers told, and what was lost or runs. The rings first: a worker that dies after it told of a task has not ended it, which
// the deaths then say.
std::vector<TracedTask> Engine::traced_tasks(std::uint64_t* dropped) const {
    std::vector<TracedTask> tasks;
    if (trace_block_ == 0) return tasks;
    std::vector<std::int64_t> told_until(home_.worker_count, 0);
    for (std::uint32_t i = 0; i < home_.worker_count; ++i) {
        const TraceReading reading =
            read_trace(*TraceRing::at(trace_block_, trace_capacity_, i), trace_capacity_, history_.made_ns);
        if (dropped != nullptr) *dropped += reading.dropped;
        for (const TraceEntry& entry : reading.entries) {
            const bool failed = entry.outcome == TraceEntry::exception;
            tasks.push_back({i, failed ? TaskOutcome::exception : TaskOutcome::value, entry});
            told_until[i] = entry.ended_ns;
        }
    }
    std::deque<Death> deaths;
    std::vector<TracedTask> running;
    {
        const std::lock_guard guard(mutex_);
        deaths = history_.deaths();
        for (std::uint32_t i = 0; i < home_.worker_count; ++i) {
            const auto held = held_by(i);
            // One that the worker has told of, and is about to end, does not run any more.
            if (!held || !workers_[i] || held->started_ns < told_until[i]) continue;
            running.push_back(traced(*held, i, pid_of(*workers_[i]), os::now_ns(), TaskOutcome::running));
        }
    }
    // There may be many thousand of both: the few that can be the same are found first, and without the pool's lock.
    std::set<std::pair<std::uint32_t, std::int64_t>> lost;
    for (const Death& death : deaths) {
        if (death.held) lost.emplace(death.worker, death.task.submitted_ns);
    }
    if (!lost.empty()) {
        std::erase_if(tasks, [&](const TracedTask& task) {
            return lost.contains({task.worker, task.entry.submitted_ns}) && overruled(task, deaths);
        });
    }
    for (const Death& death : deaths) {
        if (death.held) tasks.push_back(traced(death.task, death.worker, death.pid, death.when_ns, death.outcome));
    }
    tasks.insert(tasks.end(), running.begin(), running.end());
    return tasks;
}

PoolInsights Engine::insights() const {
    require_usable();
    PoolInsights insights;
    insights.traced = trace_block_ != 0;
    std::vector<TracedTask> tasks = traced_tasks(nullptr);
    std::deque<Death> deaths;
    {
        const std::lock_guard guard(mutex_);
        const std::int64_t now = last_moment();
        deaths = history_.deaths();
        insights.elapsed = since(history_.made_ns, now);
        insights.restarts = restarts();
        insights.bytes_sent = history_.bytes_sent;
        for (std::uint32_t i = 0; i < home_.worker_count; ++i) {
            History::Place place = history_.place(i);
            if (workers_[i]) History::add_times(place, life_of(*workers_[i]), now);
            const WorkerCounters& counters = home_.workers[i].counters;
            const WorkerStats stats = worker_stats(i);
            WorkerInsights worker;
            worker.start = since(0, place.start_ns);
            worker.init = since(0, place.init_ns);
            worker.done = stats.done;
            worker.failed = stats.failed;
            worker.restarts = stats.restarts;
            if (insights.traced) {
                std::int64_t work = place.lost_work_ns;
                work += static_cast<std::int64_t>(counters.work_ns.load(std::memory_order_relaxed));
                if (const auto held = held_by(i); held && workers_[i])
                    work += std::max<std::int64_t>(now - held->started_ns, 0);
                worker.work = since(0, std::min(work, place.ready_ns));
                worker.wait = since(0, place.ready_ns) - worker.work;
            }
            insights.bytes_received += counters.result_bytes.load(std::memory_order_relaxed);
            insights.workers.push_back(worker);
        }
    }
    insights.failures = failures(deaths);
    const auto duration = [](const TracedTask& task) { return task.entry.ended_ns - task.entry.started_ns; };
    const auto shown = static_cast<std::ptrdiff_t>(std::min(kSlowest, tasks.size()));
    std::partial_sort(tasks.begin(), tasks.begin() + shown, tasks.end(),
                      [&](const TracedTask& a, const TracedTask& b) { return duration(a) > duration(b); });
    for (const TracedTask& task : std::span(tasks).first(static_cast<std::size_t>(shown))) {
        insights.slowest.push_back({.function = names_.name(task.entry.token, task.entry.leading),
                                    .worker = task.worker,
                                    .wait = since(task.entry.submitted_ns, task.entry.started_ns),
                                    .work = std::chrono::nanoseconds(duration(task)),
                                    .first_input = task.entry.first,
                                    .inputs = task.entry.count,
                                    .outcome = task.outcome});
    }
    return insights;
}

Trace Engine::trace() const {
    require_usable();
    if (trace_block_ == 0)
        throw Error("pool " + options_.name + " keeps no trace: make it with PoolOptions{.trace = true}");
    Trace trace;
    trace.pool = options_.name;
    trace.pid = ::getpid();
    trace.workers = home_.worker_count;
    const std::vector<TracedTask> tasks = traced_tasks(&trace.dropped);
    std::deque<Death> deaths;
    const std::int64_t made = history_.made_ns;
    {
        const std::lock_guard guard(mutex_);
        const std::int64_t now = last_moment();
        trace.elapsed = since(made, now);
        deaths = history_.deaths();
        std::vector<Life> lives(history_.lives().begin(), history_.lives().end());
        for (const auto& worker : workers_) {
            if (worker) lives.push_back(life_of(*worker));
        }
        for (const Life& life : lives) {
            const std::int64_t ended = life.ended_ns != 0 ? life.ended_ns : now;
            const std::int64_t born = life.born_ns == 0 ? ended : std::clamp(life.born_ns, life.requested_ns, ended);
            const std::int64_t ready = life.ready_ns == 0 ? ended : std::clamp(life.ready_ns, born, ended);
            trace.processes.push_back({.worker = life.worker,
                                       .pid = life.pid,
                                       .requested = since(made, life.requested_ns),
                                       .born = since(made, born),
                                       .ready = since(made, ready),
                                       .ended = since(made, ended),
                                       .alive = life.ended_ns == 0});
        }
    }
    std::sort(trace.processes.begin(), trace.processes.end(),
              [](const TraceProcess& a, const TraceProcess& b) { return a.requested < b.requested; });
    trace.failures = failures(deaths);
    std::map<std::pair<Token, std::uint64_t>, std::size_t> by_call;
    std::map<std::string, std::size_t> by_name;
    for (const TracedTask& task : tasks) {
        const TraceEntry& entry = task.entry;
        const auto [known, fresh] = by_call.try_emplace({entry.token, entry.leading}, 0);
        if (fresh) {
            const auto named = by_name.try_emplace(names_.name(entry.token, entry.leading), trace.functions.size());
            if (named.second) trace.functions.push_back(named.first->first);
            known->second = named.first->second;
        }
        trace.events.push_back({.function = known->second,
                                .worker = task.worker,
                                .pid = static_cast<int>(entry.pid),
                                .submitted = since(made, entry.submitted_ns),
                                .started = since(made, entry.started_ns),
                                .ended = since(made, entry.ended_ns),
                                .first_input = entry.first,
                                .inputs = entry.count,
                                .outcome = task.outcome});
    }
    std::stable_sort(trace.events.begin(), trace.events.end(),
                     [](const TraceEvent& a, const TraceEvent& b) { return a.started < b.started; });
    return trace;
}

}    // namespace multihull::detail
