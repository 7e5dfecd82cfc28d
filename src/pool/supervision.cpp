// What deaths of workers mean: blame, inheritance, the pool's own end; and what workers say on stderr. Runs in the supervisor's thread.
#include "pool/engine.hpp"

#include "os/poll.hpp"
#include "os/process.hpp"
#include "pool/map_state.hpp"
#include "pool/worker.hpp"
#include "process/throw_trace.hpp"

#include <multihull/log.hpp>

#include <algorithm>
#include <csignal>
#include <cstdio>
#include <cstring>
#include <unistd.h>

namespace multihull::detail {

namespace {

constexpr std::size_t kKeptStderr = 4096;
// Up to how many tasks are looked through when a worker crashed: a millisecond's worth.
constexpr std::size_t kAudited = 16384;
// So many dead workers' results are kept before it is looked which are still to be read.
constexpr std::size_t kManyLegacies = 64;

std::string seconds_text(std::int64_t ns) {
    char text[64];
    std::snprintf(text, sizeof text, "%g s", static_cast<double>(ns) / 1e9);
    return text;
}

}    // namespace

void Engine::Worker::on_died(int code) {
    if (const auto owner = engine.lock()) owner->worker_died(*this, code);
}

bool Engine::queue_empty() const noexcept {
    std::uint64_t head = home_.header.head.load(std::memory_order_acquire);
    if (tail_ - head > home_.ring_mask + 1) return true;    // not a place in this queue: see spoiled()
    // Names of tasks that were cancelled count for nothing.
    for (; head != tail_; ++head) {
        const std::uint32_t task = home_.ring[head & home_.ring_mask].load(std::memory_order_relaxed);
        if (task < home_.slot_capacity &&
            task_state::phase(slot(task).state.load(std::memory_order_acquire)) == task_state::queued) {
            return false;
        }
    }
    return true;
}

// Needs mutex_. Whether a worker has overwritten what it may not write: then nothing in the home can be relied on.
bool Engine::spoiled() const noexcept {
    const PoolHeader& header = home_.header;
    return spoiled_ || std::memcmp(&header, plan_.data(), plan_.size()) != 0 ||
           header.tail.load(std::memory_order_acquire) != tail_ ||
           tail_ - header.head.load(std::memory_order_acquire) > home_.ring_mask + 1;
}

// Needs mutex_. The same for the words of the tasks.
bool Engine::tasks_spoiled() const noexcept {
    for (std::uint32_t task = 0; task < records_.size(); ++task) {
        if (!records_[task].in_use) continue;
        const std::uint32_t state = slot(task).state.load(std::memory_order_acquire);
        if (state >> task_state::kGenerationShift != records_[task].generation) return true;
        switch (task_state::phase(state)) {
            case task_state::taken:
            case task_state::condemned:
                if (task_state::worker(state) >= workers_.size() || !workers_[task_state::worker(state)]) return true;
                break;
            case task_state::queued:
            case task_state::value:
            case task_state::exception:
                break;
            case task_state::lost:
                if (!records_[task].lost) return true;
                break;
            default:
                return true;
        }
    }
    return false;
}

// Needs mutex_.
bool Engine::work_left() const noexcept { return !terminated_ && !broken_ && (!closed_ || !queue_empty()); }

// Needs mutex_. One worker less is alive or on its way.
void Engine::leave_place() noexcept {
    --alive_;
    history_.deserted_ns = alive_ == 0 ? os::now_ns() : 0;
    end_if_deserted();
    changed_.notify_all();
}

// Needs mutex_. Nobody is left, and nobody will come, to run what has not ended.
void Engine::end_if_deserted() noexcept {
    if (alive_ != 0) return;
    if (broken_) {
        fail_everything(broken_);
    } else if (terminated_) {
        fail_everything(std::make_exception_ptr(Cancelled("the task was cancelled: its pool was terminated")));
    }
}

// Needs mutex_. The place of the one that waits awake is free again.
void Engine::release_spinner(const Worker& worker) noexcept {
    std::uint32_t spinning = worker.index + 1;
    home_.header.spinner.compare_exchange_strong(spinning, 0, std::memory_order_seq_cst);
}

void Engine::worker_died(Worker& worker, int code) {
    const std::shared_ptr<Worker> keep = worker.shared_from_this();
    // Known to be dead from its zygote, except when that was killed itself: then death is on its way.
    if (worker.pidfd && !os::wait_readable(worker.pidfd.get(), 0)) {
        os::signal_process(worker.pidfd, SIGKILL);
        os::wait_readable(worker.pidfd.get(), os::kNever);
    }
    if (worker.stderr_pipe) {
        Supervisor::instance().unwatch(worker.stderr_pipe.get());
        drain_stderr(worker, true);
    }
    // A snapshot's end is the pool's: the tasks that its workers leave behind are not to be run again.
    std::exception_ptr hopeless = worker.zygote->alive() ? nullptr : replace_zygote();
    bool replace = false;
    std::string said;
    {
        const std::lock_guard guard(mutex_);
        WorkerSlot& shared = home_.workers[worker.index];
        const std::uint32_t phase = shared.phase.load(std::memory_order_acquire);
        worker.was_ready = phase == WorkerSlot::ready || phase == WorkerSlot::leaving;
        const auto held = held_by(worker.index);
        settle_task(worker, code);
        said = record_end(worker, code, held);
        release_spinner(worker);
        inherit(worker.pid);
        workers_[worker.index].reset();
        const bool crashed = code != 0 && worker.doom == Doom::none && worker.zygote->alive();
        if (crashed && (spoiled() || (code != -SIGKILL && live_ <= kAudited && tasks_spoiled()))) {
            hopeless = std::make_exception_ptr(BrokenPool("a worker of pool " + options_.name +
                                                          " overwrote memory that the pool shares (process " +
                                                          std::to_string(worker.pid) +
                                                          " was found dead, but it may have been another)"));
        }
        if (worker.was_ready) {
            failed_starts_ = 0;
            lost_zygotes_ = 0;
        } else if (worker.doom == Doom::none && worker.zygote->alive() && !hopeless) {
            ++failed_starts_;
            if (phase == WorkerSlot::unusable) {
                const std::size_t length = ::strnlen(shared.start_error, sizeof shared.start_error);
                hopeless = std::make_exception_ptr(BrokenPool("the initializer of pool " + options_.name +
                                                              " failed: " + std::string(shared.start_error, length)));
            } else if (failed_starts_ >= kTriedStarts && !any_ready()) {
                std::string why;
                try {
                    std::rethrow_exception(explain(worker, code, std::nullopt));
                } catch (const std::exception& error) {
                    why = error.what();
                }
                hopeless = std::make_exception_ptr(BrokenPool("the workers of pool " + options_.name +
                                                              " die while they start: " + why));
            }
        }
        // A wake-up that the dead worker had received is passed on.
        wake_all_workers();
        replace = !hopeless && work_left();
        if (replace && failed_starts_ > 1) {
            restart_later(worker.index);
            replace = false;
        }
        if (!replace) leave_place();
        changed_.notify_all();
    }
    if (!said.empty() && log_enabled(LogLevel::info))
        log(LogLevel::info, "pool " + options_.name + ", place " + std::to_string(worker.index) + ": " + said);
    if (replace) start_worker(worker.index);
    if (hopeless) break_pool(hopeless);
}

// Takes no more tasks; what waits or runs fails once the last worker is dead.
void Engine::break_pool(std::exception_ptr why) {
    const std::lock_guard guard(mutex_);
    if (broken_) return;
    broken_ = std::move(why);
    kill_all_workers();
}

// Needs mutex_. None begins another task; those that are on their way are killed when they are born.
void Engine::kill_all_workers() noexcept {
    home_.header.mode.store(PoolHeader::stopped, std::memory_order_seq_cst);
    for (const auto& worker : workers_) {
        if (!worker) continue;
        if (worker->doom == Doom::none) worker->doom = Doom::terminated;
        worker->killed = os::signal_process(worker->pidfd, SIGKILL);
    }
    end_if_deserted();
    changed_.notify_all();
}

// Needs mutex_. Decides what becomes of the task that a dead worker held, if it held one.
void Engine::settle_task(Worker& worker, int code) {
    WorkerSlot& shared = home_.workers[worker.index];
    const std::uint64_t current = shared.current.load(std::memory_order_acquire);
    if (current == 0 || current > records_.size()) return;
    const auto task = static_cast<std::uint32_t>(current - 1);
    auto& word = slot(task).state;
    const std::uint32_t state = word.load(std::memory_order_acquire);
    const auto phase = task_state::phase(state);
    const bool held =
        (phase == task_state::taken || phase == task_state::condemned) && task_state::worker(state) == worker.index;
    if (!held) {
        // It may have ended the task and died before it told those who wait.
        os::futex_wake_all(word);
        if (records_[task].in_use && !records_[task].callbacks.empty()) {
            callback_queue_.push_back(task);
            notify_callback_thread();
        }
        return;
    }
    Record& record = records_[task];
    record.bereaved = true;
    if (record.cancelled && phase == task_state::condemned && worker.doom == Doom::none) worker.doom = Doom::cancelled;
    if (record.map) {
        settle_map_part(worker, task, code);
        return;
    }
    const bool late = worker.doom == Doom::timeout || worker.doom == Doom::cpu_time;
    const bool again = worker.doom == Doom::none || late;
    if (again && !terminated_ && !broken_ && record.attempts_left > 0 &&
        (record.retry_on & (late ? RetryOn::timeout : RetryOn::crash))) {
        --record.attempts_left;
        requeue(task);
        return;
    }
    end_lost(task, explain(worker, code, std::nullopt), outcome_of(worker.doom));
}

// Needs mutex_. Puts a task of a dead worker back into the queue.
void Engine::requeue(std::uint32_t task) noexcept {
    auto& word = slot(task).state;
    std::uint32_t state = word.load(std::memory_order_acquire);
    while (!word.compare_exchange_weak(state, task_state::with_phase(state, task_state::queued),
                                       std::memory_order_acq_rel)) {}
    push(task);
}

// Needs mutex_. The dead worker's range goes on behind the element that it died of.
void Engine::settle_map_part(Worker& worker, std::uint32_t task, int code) {
    WorkerSlot& shared = home_.workers[worker.index];
    Record& record = records_[task];
    const bool barren = record.map->barren(record.part, shared.claim.load(std::memory_order_acquire) != 0);
    if (worker.doom == Doom::cancelled || terminated_ || broken_ || barren) {
        end_lost(task, explain(worker, code, std::nullopt), outcome_of(worker.doom));
        return;
    }
    MapState& map = *record.map;
    const std::uint64_t claim = shared.claim.load(std::memory_order_acquire);
    const std::uint64_t progress = shared.progress.load(std::memory_order_acquire) >> 1;
    auto range = map.outstanding(record.part, claim, worker.index);
    if (range.first < range.second && progress != 0 && claim != 0) {
        // progress is one more than the index of the element that ran, or of the range's end.
        const std::uint64_t element = progress - 1;
        if (element == range.second) {
            range.first = range.second;
        } else if (element >= range.first && element < range.second) {
            const bool late = worker.doom == Doom::timeout || worker.doom == Doom::cpu_time;
            history_.place(worker.index).inputs_done += element - range.first;
            range.first = element;
            if (!map.retry_element(record.part, element,
                                   (record.retry_on & (late ? RetryOn::timeout : RetryOn::crash)))) {
                map.fail_element(element, explain(worker, code, element));
                history_.count_lost(outcome_of(worker.doom));
                range.first = element + 1;
            }
        }
    }
    map.resume(record.part, range.first, range.second);
    requeue(task);
}

std::exception_ptr Engine::explain(Worker& worker, int code, std::optional<std::size_t> element) {
    const CrashRecord& crash = home_.workers[worker.index].crash;
    const std::string which = element ? "the task for input " + std::to_string(*element) : std::string("the task");
    switch (worker.doom) {
        case Doom::timeout:
        case Doom::cpu_time: {
            Stack stack;
            if (crash.stack_ready.load(std::memory_order_acquire) != 0)
                stack = Stack(translate(copy_frames(crash.stuck_stack)));
            const std::chrono::nanoseconds limit(worker.doom_limit_ns);
            if (worker.doom == Doom::timeout) {
                return std::make_exception_ptr(TaskTimeout(which + " ran longer than its time-out of " +
                                                               seconds_text(worker.doom_limit_ns) + " and was ended",
                                                           limit, std::move(stack)));
            }
            return std::make_exception_ptr(CpuTimeExceeded(which + " used more CPU time than its limit of " +
                                                               seconds_text(worker.doom_limit_ns) + " and was ended",
                                                           limit, std::move(stack)));
        }
        case Doom::cancelled:
            return std::make_exception_ptr(Cancelled(which + " was cancelled while it ran; its worker was ended"));
        case Doom::terminated:
            if (broken_) return broken_;
            return std::make_exception_ptr(Cancelled(which + " was cancelled: its pool was terminated"));
        case Doom::none:
            break;
    }
    CrashReport report;
    report.pid = worker.pid;
    report.map_index = element;
    report.last_stderr = worker.last_stderr;
    if (code >= 0) {
        report.exit_status = code;
    } else {
        report.signal = -code;
    }
    // What the worker itself wrote down is about the signal that killed it only if they agree.
    if (crash.written.load(std::memory_order_acquire) != CrashRecord::kNothing && crash.signal == report.signal) {
        report.code = crash.code;
        report.address = crash.address;
        report.sender_pid = crash.sender;
        if (crash.written.load(std::memory_order_acquire) == CrashRecord::kWhole) {
            report.stack = Stack(translate(copy_frames(crash.stack)));
        }
    }
    return std::make_exception_ptr(WorkerCrashed(std::move(report)));
}

// A worker of a program that was started anew has the program at another place.
std::vector<std::uintptr_t> Engine::translate(std::vector<std::uintptr_t> frames) const {
    const auto here = reinterpret_cast<std::uintptr_t>(&worker_entry);
    const std::uintptr_t there = home_.header.entry_address.load(std::memory_order_acquire);
    if (there != 0 && there != here) {
        for (auto& frame : frames) {
            // Of another library, whose place there is not known, it is left as it is.
            if (same_module(frame - there + here, here)) frame = frame - there + here;
        }
    }
    frames.resize(frames_of_task(frames));
    return frames;
}

// Needs mutex_. Results of a dead worker stay until those who may still read them are gone.
void Engine::inherit(pid_t dead) {
    auto& region = shm::Region::instance();
    const std::uint32_t number = dead == 0 ? 0 : region.number_of(dead);
    if (number == 0) return;
    if (live_ == 0) {
        region.release_owned(number);
    } else {
        region.mark_dead(number);
        legacies_.push_back({number, next_sequence_ - 1, live_});
        if (legacies_.size() % kManyLegacies == 0) release_unread_legacies();
    }
}

// Needs mutex_. One future that is kept for long must not keep the results of every worker that has died since.
void Engine::release_unread_legacies() {
    auto& region = shm::Region::instance();
    std::vector<std::uint32_t> read;
    std::uint64_t oldest_map = ~std::uint64_t{0};
    for (std::uint32_t task = 0; task < records_.size(); ++task) {
        const Record& record = records_[task];
        if (!record.in_use) continue;
        if (record.map) {
            oldest_map = std::min(oldest_map, record.sequence);    // may have results of anybody who died since
        } else if (task_state::ended(slot(task).state.load(std::memory_order_acquire))) {
            read.push_back(region.owner_of(slot(task).result_block));
        }
    }
    std::erase_if(legacies_, [&](const Legacy& legacy) {
        if (legacy.last_sequence >= oldest_map || std::find(read.begin(), read.end(), legacy.number) != read.end()) {
            return false;
        }
        region.release_owned(legacy.number);
        return true;
    });
}

std::int64_t Engine::tick(std::int64_t now_ns) {
    std::vector<std::uint32_t> due;
    std::int64_t next = os::kNever;
    bool overwritten = false;
    {
        const std::lock_guard guard(mutex_);
        std::erase_if(restarts_, [&](const auto& restart) {
            if (restart.first > now_ns) {
                next = std::min(next, restart.first);
                return false;
            }
            if (work_left()) {
                due.push_back(restart.second);
                ++alive_;
            }
            return true;
        });
        overwritten = spoiled() && !broken_ && !terminated_;
        if (stalled_stderr_) {
            if (os::writable(STDERR_FILENO)) {
                stalled_stderr_ = false;
                for (const auto& worker : workers_) {
                    if (!worker || !std::exchange(worker->stalled, false)) continue;
                    Supervisor::instance().watch(worker->stderr_pipe.get(), shared_from_this());
                }
            } else {
                next = std::min(next, now_ns + 20'000'000);
            }
        }
        if (limits_watched_) next = std::min(next, check_limits(now_ns));
        next = std::min(next, give_back_slots(now_ns));
    }
    for (const std::uint32_t index : due) start_worker(index);
    if (overwritten) {
        break_pool(std::make_exception_ptr(BrokenPool("a worker of pool " + options_.name +
                                                      " overwrote memory that the pool shares")));
    }
    return next;
}

void Engine::on_readable(int fd) {
    std::shared_ptr<Worker> worker;
    {
        const std::lock_guard guard(mutex_);
        for (const auto& candidate : workers_) {
            if (candidate && candidate->stderr_pipe.get() == fd) worker = candidate;
        }
    }
    if (worker) {
        drain_stderr(*worker, false);
    } else {
        Supervisor::instance().unwatch(fd);
    }
}

// Passes a worker's stderr on and keeps its last lines. What can't be written without waiting stays in the pipe: the worker then
// waits on its stderr as it would without us, and the supervisor does not. A dead worker's rest is taken in any case.
void Engine::drain_stderr(Worker& worker, bool dead) {
    char buffer[4096];
    for (int rounds = 0; rounds < 64; ++rounds) {
        const bool can_write = !options_.pass_stderr || os::writable(STDERR_FILENO);
        if (!can_write && !dead) {
            const std::lock_guard guard(mutex_);
            stalled_stderr_ = true;
            worker.stalled = true;
            Supervisor::instance().unwatch(worker.stderr_pipe.get());
            Supervisor::instance().wake();
            return;
        }
        std::size_t got = 0;
        const bool open = os::read_available(worker.stderr_pipe, buffer, got);
        if (got == 0) {
            if (!open && !dead) Supervisor::instance().unwatch(worker.stderr_pipe.get());
            return;
        }
        if (can_write && options_.pass_stderr) os::write_all(STDERR_FILENO, std::span(buffer, got));
        worker.last_stderr.append(buffer, got);
        if (worker.last_stderr.size() > 2 * kKeptStderr)
            worker.last_stderr.erase(0, worker.last_stderr.size() - kKeptStderr);
    }
}

}    // namespace multihull::detail
