// Limits of time on tasks: whose are over, and when to look again. Runs in the supervisor's thread.
#include "pool/engine.hpp"

#include "os/process.hpp"

#include <algorithm>
#include <csignal>
#include <utility>

namespace multihull::detail {

namespace {

// How many tasks are looked at in one of the supervisor's rounds for the shortest limit: some microseconds' worth.
constexpr std::size_t kSweptAtOnce = 1024;
constexpr std::int64_t kStackGrace = 200'000'000;    // for a doomed worker to write down where it is

}    // namespace

// Needs mutex_. Answers when to look again: at the first deadline, or when a task that starts now could first exceed its limit.
std::int64_t Engine::check_limits(std::int64_t now_ns) {
    std::int64_t next = os::kNever;
    bool busy = !queue_empty();
    for (const auto& worker : workers_) {
        if (!worker || worker->pid == 0) continue;
        const std::int64_t when = check_worker(*worker, now_ns);
        next = std::min(next, when);
        busy = busy || when != os::kNever;
    }
    if (!busy && live_timed_possible()) busy = true;
    if (!busy) {
        limits_watched_ = false;
        return os::kNever;
    }
    sweep_limits();
    return std::min(next, shortest_limit_ns_ == os::kNever ? os::kNever : now_ns + shortest_limit_ns_);
}

// Needs mutex_. A short limit is to cost wake-ups only while a task that has it may still run. Workers begin and end tasks without
// this process, so it looks: at some at a time, for what waits may be much.
void Engine::sweep_limits() noexcept {
    const std::size_t end = std::min(records_.size(), sweep_next_ + kSweptAtOnce);
    for (; sweep_next_ < end; ++sweep_next_) {
        const Record& record = records_[sweep_next_];
        if (!record.in_use || record.shortest_limit_ns >= sweep_shortest_ns_) continue;
        const auto task = static_cast<std::uint32_t>(sweep_next_);
        if (!task_state::ended(slot(task).state.load(std::memory_order_acquire)))
            sweep_shortest_ns_ = record.shortest_limit_ns;
    }
    if (sweep_next_ < records_.size()) return;
    shortest_limit_ns_ = std::exchange(sweep_shortest_ns_, os::kNever);
    sweep_next_ = 0;
}

// Needs mutex_. Whether a worker holds a task that has limits.
bool Engine::live_timed_possible() const noexcept {
    for (const auto& worker : workers_) {
        if (!worker) continue;
        const std::uint64_t current = home_.workers[worker->index].current.load(std::memory_order_acquire);
        if (current == 0 || current > records_.size()) continue;
        const std::uint32_t state = slot(static_cast<std::uint32_t>(current - 1)).state.load(std::memory_order_acquire);
        if ((state & task_state::kTimed) && !task_state::ended(state)) return true;
    }
    return false;
}

std::int64_t Engine::check_worker(Worker& worker, std::int64_t now_ns) {
    WorkerSlot& shared = home_.workers[worker.index];
    if (worker.doom != Doom::none) {
        if (worker.killed) return os::kNever;
        if (shared.crash.stack_ready.load(std::memory_order_acquire) == 0 && now_ns < worker.kill_at_ns)
            return now_ns + 1'000'000;
        worker.killed = os::signal_process(worker.pidfd, SIGKILL);
        return os::kNever;
    }
    const std::uint64_t current = shared.current.load(std::memory_order_acquire);
    if (current == 0 || current > records_.size()) return os::kNever;
    const auto task = static_cast<std::uint32_t>(current - 1);
    TaskSlot& held = slot(task);
    std::uint32_t state = held.state.load(std::memory_order_acquire);
    if (task_state::phase(state) != task_state::taken || task_state::worker(state) != worker.index ||
        !(state & task_state::kTimed)) {
        return os::kNever;
    }
    // A worker writes the time before it says what it begins: what is read here is never earlier than the element's own start.
    std::uint64_t progress = shared.progress.load(std::memory_order_acquire);
    const std::int64_t started = shared.started_ns.load(std::memory_order_acquire);
    const std::int64_t cpu_started = shared.cpu_started_ns.load(std::memory_order_acquire);
    std::int64_t next = os::kNever;
    Doom doom = Doom::none;
    std::int64_t limit = 0;
    if (held.time_limit_ns > 0) {
        const std::int64_t end = started > os::kNever - held.time_limit_ns ? os::kNever : started + held.time_limit_ns;
        if (now_ns >= end) {
            doom = Doom::timeout;
            limit = held.time_limit_ns;
        }
        next = std::min(next, end);
    }
    if (doom == Doom::none && held.cpu_limit_ns > 0) {
        const std::int64_t used = os::process_cpu_ns(worker.pid) - cpu_started;
        if (used >= held.cpu_limit_ns) {
            doom = Doom::cpu_time;
            limit = held.cpu_limit_ns;
        } else {
            // It can't get there sooner than with every processor to itself.
            next = std::min(next, now_ns + std::max<std::int64_t>(1'000'000, (held.cpu_limit_ns - used) / home_.cpus));
        }
    }
    if (doom == Doom::none) return next;
    // Whoever changes the word first decides: the worker, that it has finished, or this, that it has not.
    if (records_[task].map) {
        if (progress == 0 || shared.claim.load(std::memory_order_acquire) == 0) return now_ns + 1'000'000;
        if (!shared.progress.compare_exchange_strong(progress, progress | 1, std::memory_order_acq_rel))
            return now_ns + 1'000'000;
    } else if (!held.state.compare_exchange_strong(state, task_state::with_phase(state, task_state::condemned),
                                                   std::memory_order_acq_rel)) {
        return now_ns + 1'000'000;
    }
    doom_worker(worker, doom, limit);
    return now_ns + 1'000'000;
}

void Engine::doom_worker(Worker& worker, Doom doom, std::int64_t limit_ns) {
    worker.doom = doom;
    worker.doom_limit_ns = limit_ns;
    worker.kill_at_ns = os::now_ns() + kStackGrace;
    home_.workers[worker.index].crash.stack_requested.store(1, std::memory_order_release);
    os::signal_process(worker.pidfd, stack_signal());
}

}    // namespace multihull::detail
