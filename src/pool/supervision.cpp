// The engine's care for its workers: births, deaths, blame, limits. Runs in the supervisor's thread.
#include "pool/engine.hpp"

#include "os/fault.hpp"
#include "os/poll.hpp"
#include "os/process.hpp"
#include "pool/map_state.hpp"
#include "pool/worker.hpp"
#include "process/throw_trace.hpp"

#include <multihull/log.hpp>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstring>
#include <system_error>
#include <unistd.h>

namespace multihull::detail {

namespace {

constexpr std::size_t kKeptStderr = 4096;
constexpr unsigned kTriedStarts = 5;
// Up to how many tasks are looked through when a worker crashed: a millisecond's worth.
constexpr std::size_t kAudited = 16384;
// So many dead workers' results are kept before it is looked which are still to be read.
constexpr std::size_t kManyLegacies = 64;
// How many tasks are looked at in one of the supervisor's rounds for the shortest limit: some microseconds' worth.
constexpr std::size_t kSweptAtOnce = 1024;
constexpr std::int64_t kNamelessGrace = 1'000'000'000;
constexpr std::int64_t kStackGrace = 200'000'000;    // for a doomed worker to write down where it is

std::string seconds_text(std::int64_t ns) {
    char text[64];
    std::snprintf(text, sizeof text, "%g s", static_cast<double>(ns) / 1e9);
    return text;
}

// A zygote that died before it could name a worker takes it along. Waits until the process is gone that the worker itself said it
// is; what stands there may be anything, so nothing is done to that process, and not for long.
void wait_for_nameless(std::uint32_t pid) {
    if (pid == 0) return;
    try {
        const os::Fd process = os::open_pidfd(static_cast<pid_t>(pid));
        os::wait_readable(process.get(), os::now_ns() + kNamelessGrace);
    } catch (const std::system_error&) {
        // Gone already.
    }
}

}    // namespace

void Engine::Worker::on_born(pid_t born, os::Fd fd) {
    if (const auto owner = engine.lock()) {
        owner->worker_born(*this, born, std::move(fd));
    } else {
        os::signal_process(fd, SIGKILL);
    }
}

void Engine::Worker::on_not_born(int error) {
    if (const auto owner = engine.lock()) owner->worker_not_born(*this, error);
}

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

std::shared_ptr<Zygote> Engine::zygote() const {
    const std::lock_guard guard(zygote_mutex_);
    return zygote_;
}

// Its place is counted in alive_ already, so that nobody finds the pool deserted meanwhile. Without mutex_: the zygote may answer
// at once that it can't.
void Engine::start_worker(std::uint32_t index) {
    auto worker = std::make_shared<Worker>();
    worker->engine = weak_from_this();
    worker->index = index;
    worker->requested_ns = os::now_ns();
    worker->zygote = zygote();
    os::Fd write_end;
    if (options_.capture_stderr) {
        try {
            os::FdPair pipe = os::make_pipe();
            Supervisor::instance().watch(pipe.first.get(), shared_from_this());
            worker->stderr_pipe = std::move(pipe.first);
            write_end = std::move(pipe.second);
        } catch (const std::system_error&) {
            // Out of descriptors: the worker keeps the program's stderr, and its last lines are not known.
        }
    }
    {
        const std::lock_guard guard(mutex_);
        WorkerSlot& shared = home_.workers[index];
        // Not the ring of notices: what the last worker put there may still be unread.
        shared.current.store(0);
        shared.claim.store(0);
        shared.progress.store(0);
        shared.pid.store(0);
        shared.born_ns.store(0);
        shared.ready_ns.store(0);
        shared.start_error[0] = '\0';
        shared.crash.reset();
        shared.phase.store(WorkerSlot::starting);
        workers_[index] = worker;
        ++history_.place(index).starts;
    }
    const std::uint64_t words[] = {home_.offset, index};
    const int fd = write_end.get();
    worker->zygote->fork_child(token_of(reinterpret_cast<const void*>(&worker_entry)), words,
                               std::span(&fd, write_end ? 1 : 0), worker);
}

void Engine::worker_born(Worker& worker, pid_t pid, os::Fd pidfd) {
    const std::lock_guard guard(mutex_);
    worker.pid = pid;
    worker.pidfd = std::move(pidfd);
    if (worker.doom == Doom::none && (terminated_ || broken_)) worker.doom = Doom::terminated;
    // Somebody may have wished it dead before this process knew its name.
    if (worker.doom == Doom::none || worker.killed) return;
    if (worker.kill_at_ns != os::kNever) {
        os::signal_process(worker.pidfd, SIGTERM);    // a gentle end: see terminate_gently()
        limits_watched_ = true;
    } else {
        worker.killed = os::signal_process(worker.pidfd, SIGKILL);
    }
}

void Engine::worker_not_born(Worker& worker, int error) {
    const std::shared_ptr<Worker> keep = worker.shared_from_this();
    if (worker.stderr_pipe) Supervisor::instance().unwatch(worker.stderr_pipe.get());
    std::exception_ptr hopeless;
    const bool zygote_killed = error == ESRCH;    // its twin may have taken over, and lives
    if (zygote_killed) {
        wait_for_nameless(home_.workers[worker.index].pid.load(std::memory_order_acquire));
        hopeless = replace_zygote();
    }
    {
        const std::lock_guard guard(mutex_);
        // It may have been born and have taken a task, and only nobody could say so.
        worker.pid = static_cast<pid_t>(home_.workers[worker.index].pid.load(std::memory_order_acquire));
        const auto held = held_by(worker.index);
        settle_task(worker, -SIGKILL);
        if (worker.pid != 0) record_end(worker, -SIGKILL, held);
        release_spinner(worker);
        if (worker.pid > 0 && ::kill(worker.pid, 0) != 0 && errno == ESRCH) inherit(worker.pid);
        workers_[worker.index].reset();
        if (!hopeless && work_left()) {
            if (!zygote_killed) ++failed_starts_;
            if (alive_ == 1 && failed_starts_ >= kTriedStarts) {
                hopeless = std::make_exception_ptr(BrokenPool(
                    "pool " + options_.name + " can start no worker (" + os::errno_text(error) +
                    "): raise the limits on processes (ulimit -u) and open files (ulimit -n), or free some memory"));
            } else {
                restart_later(worker.index);
            }
        }
        wake_all_workers();
        leave_place();
    }
    if (hopeless) break_pool(hopeless);
    // This may not be the supervisor's thread, which has to see what is to be restarted.
    Supervisor::instance().wake();
}

// Needs mutex_.
void Engine::restart_later(std::uint32_t index) {
    restarts_.emplace_back(os::now_ns() + std::int64_t{10'000'000} * std::max(failed_starts_, 1U), index);
}

// Needs mutex_. The place of the one that waits awake is free again.
void Engine::release_spinner(const Worker& worker) noexcept {
    std::uint32_t spinning = worker.index + 1;
    home_.header.spinner.compare_exchange_strong(spinning, 0, std::memory_order_seq_cst);
}

// The zygote was killed, and its workers with it. A snapshot is gone for good; a program that ran init() can be started anew.
// Answers why there can be none. Not with mutex_ held: a start takes a millisecond.
std::exception_ptr Engine::replace_zygote() {
    {
        const std::lock_guard guard(mutex_);
        if (!work_left()) return nullptr;
    }
    const std::lock_guard guard(zygote_mutex_);
    if (zygote_->alive()) return nullptr;
    std::string why;
    if (method_ == StartMethod::fork) {
        why = "its snapshot of the program is lost: use the start method forkserver or spawn, which can begin again";
    } else if (++lost_zygotes_ > kTriedStarts) {
        why = "it dies whenever it is started";
    } else {
        try {
            if (auto fresh = own_zygote_ ? Zygote::spawn() : Zygote::forkserver()) {
                zygote_ = std::move(fresh);
                return nullptr;
            }
            why = "there is no forkserver";
        } catch (const std::exception& cause) {
            why = cause.what();
        }
    }
    return std::make_exception_ptr(BrokenPool("pool " + options_.name +
                                              " can start no more workers: the process that starts them was killed (" +
                                              why + ")"));
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

// Needs mutex_. Whether some worker has begun its work, so that starting one is not hopeless.
bool Engine::any_ready() const noexcept {
    return std::any_of(workers_.begin(), workers_.end(), [&](const auto& worker) {
        return worker && home_.workers[worker->index].phase.load(std::memory_order_acquire) == WorkerSlot::ready;
    });
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
