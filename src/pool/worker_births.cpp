// How the engine's workers come to be, and what happens when they don't.
#include "pool/engine.hpp"

#include "os/poll.hpp"
#include "os/process.hpp"
#include "pool/worker.hpp"

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <system_error>

namespace multihull::detail {

namespace {

constexpr std::int64_t kNamelessGrace = 1'000'000'000;

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

// Needs mutex_. Whether some worker has begun its work, so that starting one is not hopeless.
bool Engine::any_ready() const noexcept {
    return std::any_of(workers_.begin(), workers_.end(), [&](const auto& worker) {
        return worker && home_.workers[worker->index].phase.load(std::memory_order_acquire) == WorkerSlot::ready;
    });
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

}    // namespace multihull::detail
