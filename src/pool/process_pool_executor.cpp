#include <multihull/process_pool_executor.hpp>

#include "os/clock.hpp"
#include "os/process.hpp"
#include "pool/engine.hpp"

#include <multihull/log.hpp>

#include <csignal>

namespace multihull {

namespace detail {

namespace {

constexpr std::int64_t kTerminateGrace = 1'000'000'000;

}    // namespace

void Engine::cancel_waiting() {
    require_usable();
    const std::lock_guard guard(mutex_);
    const auto why =
        std::make_exception_ptr(Cancelled("the task was cancelled before it started: its pool was shut down"));
    for (std::uint32_t task = 0; task < records_.size(); ++task) {
        if (!records_[task].in_use) continue;
        std::uint32_t state = slot(task).state.load(std::memory_order_acquire);
        while (task_state::phase(state) == task_state::queued && !try_end(task, state, why, TaskOutcome::cancelled)) {}
    }
}

bool Engine::takes_tasks() const {
    const std::lock_guard guard(mutex_);
    return !closed_ && !broken_;
}

void Engine::terminate_gently() {
    require_usable();
    {
        const std::lock_guard guard(mutex_);
        closed_ = true;
        terminated_ = true;
        home_.header.mode.store(PoolHeader::stopped, std::memory_order_seq_cst);
        for (const auto& worker : workers_) {
            if (!worker || worker->doom != Doom::none) continue;
            worker->doom = Doom::terminated;
            worker->kill_at_ns = os::now_ns() + kTerminateGrace;
            os::signal_process(worker->pidfd, SIGTERM);
        }
        limits_watched_ = true;    // check_worker() kills those that stay
        wake_all_workers();
        end_if_deserted();
        changed_.notify_all();
    }
    Supervisor::instance().wake();
}

}    // namespace detail

namespace {

PoolOptions options_for(std::size_t max_workers) {
    PoolOptions options;
    options.processes = detail::checked_workers(max_workers);
    return options;
}

}    // namespace

ProcessPoolExecutor::ProcessPoolExecutor(std::size_t max_workers) : ProcessPoolExecutor(options_for(max_workers)) {}

ProcessPoolExecutor::ProcessPoolExecutor(PoolOptions options) : engine_(detail::make_engine(std::move(options))) {}

ProcessPoolExecutor::~ProcessPoolExecutor() {
    if (!engine_->ours()) return;
    try {
        shutdown();
    } catch (const std::exception& error) {
        log(LogLevel::error, std::string("while an executor ended: ") + error.what());
    }
}

void ProcessPoolExecutor::shutdown(bool wait, bool cancel_futures) {
    engine_->close();
    if (cancel_futures) engine_->cancel_waiting();
    if (wait) engine_->join();
}

void ProcessPoolExecutor::terminate_workers() { engine_->terminate_gently(); }

void ProcessPoolExecutor::kill_workers() {
    engine_->require_usable();
    engine_->terminate();
}

std::size_t ProcessPoolExecutor::max_workers() const noexcept { return engine_->workers(); }
PoolStats ProcessPoolExecutor::stats() const { return engine_->stats(); }
PoolInsights ProcessPoolExecutor::insights() const { return engine_->insights(); }
Trace ProcessPoolExecutor::trace() const { return engine_->trace(); }

}    // namespace multihull
