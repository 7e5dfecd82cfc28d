// The worker processes of Parallel: of one loop, or kept for the next one.
//
// Thread-safe. The kept ones belong to the process that made them: a forked child has none, and makes its own.
//
// Invariants
// (1) An engine is kept, or retired; only the kept one is lent. A retired one is ended when the last loop has given it back.
// (2) The caretaker thread lives while there is something to end or to wait for; it is joined when the program ends, and then
//     everything is ended.
// (3) mutex_ is not held while an engine is started or ended.
#include <multihull/detail/parallel_workers.hpp>

#include "os/thread.hpp"
#include "pool/engine.hpp"
#include "process/self.hpp"

#include <multihull/log.hpp>

#include <algorithm>
#include <condition_variable>
#include <map>
#include <thread>

namespace multihull {

namespace detail {

namespace {

using Clock = std::chrono::steady_clock;
constexpr std::chrono::hours kLongest{24 * 365};    // of a wait, so that its end is a time

void end_engine(Engine& engine, bool now) noexcept {
    if (!engine.ours()) return;
    try {
        if (now) {
            engine.terminate();
        } else {
            engine.close();
        }
        engine.join();
    } catch (const std::exception& error) {
        log(LogLevel::error, std::string("while the workers of a Parallel ended: ") + error.what());
    }
}

std::shared_ptr<Engine> start_engine(std::size_t jobs, StartMethod method) {
    static std::atomic<unsigned> count{0};
    PoolOptions options;
    options.processes = jobs;
    options.start_method = method;
    options.name = "Parallel-" + std::to_string(count.fetch_add(1) + 1);
    return make_engine(std::move(options));
}

class KeptWorkers {
public:
    static KeptWorkers& instance() {
        KeptWorkers* current = the_workers.load(std::memory_order_acquire);
        if (current != nullptr) return *current;
        auto* const fresh = new KeptWorkers;
        if (the_workers.compare_exchange_strong(current, fresh, std::memory_order_acq_rel)) return *fresh;
        delete fresh;
        return *current;
    }
    static KeptWorkers* existing() noexcept { return the_workers.load(std::memory_order_acquire); }
    static void after_fork() noexcept { the_workers.store(nullptr); }

    std::shared_ptr<Engine> lend(std::size_t jobs, StartMethod method, std::chrono::nanoseconds idle_timeout) {
        {
            const std::lock_guard guard(mutex_);
            idle_timeout_ = std::clamp<std::chrono::nanoseconds>(idle_timeout, std::chrono::nanoseconds{0}, kLongest);
            if (kept_ && kept_->workers() == jobs && method_ == method && kept_->takes_tasks()) {
                ++loops_[kept_];
                return kept_;
            }
        }
        auto fresh = start_engine(jobs, method);
        const std::lock_guard guard(mutex_);
        ensure_caretaker();
        retire();
        kept_ = std::move(fresh);
        method_ = method;
        ++loops_[kept_];
        return kept_;
    }

    void give_back(const std::shared_ptr<Engine>& engine) {
        const std::lock_guard guard(mutex_);
        if (--loops_[engine] != 0) return;
        loops_.erase(engine);
        if (engine == kept_) {
            idle_since_ = Clock::now();
        } else {
            to_end_.push_back(engine);
        }
        changed_.notify_all();
    }

    // Returns when they have left.
    void end_idle() {
        std::unique_lock guard(mutex_);
        if (kept_ && !loops_.contains(kept_)) retire();
        changed_.notify_all();
        ended_.wait(guard, [&] { return to_end_.empty() && !ending_; });
    }

    void end_program() {
        std::thread caretaker;
        {
            const std::lock_guard guard(mutex_);
            stop_ = true;
            // A thread that still runs a loop will not get to its end.
            if (kept_) to_end_.push_back(std::move(kept_));
            kept_.reset();
            changed_.notify_all();
            caretaker = std::move(caretaker_);
        }
        if (caretaker.joinable()) caretaker.join();
    }

private:
    // Needs mutex_.
    void retire() {
        if (!kept_) return;
        if (!loops_.contains(kept_)) to_end_.push_back(kept_);
        kept_.reset();
        changed_.notify_all();
    }

    // Needs mutex_. Started with the first workers, so that nobody has to wait for the last.
    void ensure_caretaker() {
        if (caretaker_.joinable()) return;
        static const struct AtEnd {
            ~AtEnd() {
                if (KeptWorkers* const workers = existing()) workers->end_program();
            }
        } at_end;
        count_own_thread(1);    // before it is there, so that nobody takes it for the program's
        try {
            caretaker_ = os::start_thread("mh-caretaker", [this] { take_care(); });
        } catch (...) {
            count_own_thread(-1);
            throw;
        }
    }

    void take_care() {
        std::unique_lock guard(mutex_);
        while (!stop_ || !to_end_.empty()) {
            if (!to_end_.empty()) {
                const auto engine = std::move(to_end_.back());
                to_end_.pop_back();
                ending_ = true;
                guard.unlock();
                end_engine(*engine, true);
                guard.lock();
                ending_ = false;
                ended_.notify_all();
            } else if (!kept_ || loops_.contains(kept_)) {
                changed_.wait(guard);
            } else if (Clock::now() - idle_since_ >= idle_timeout_) {
                retire();
            } else {
                changed_.wait_until(guard, idle_since_ + idle_timeout_);
            }
        }
        count_own_thread(-1);
    }

    static constinit std::atomic<KeptWorkers*> the_workers;

    std::mutex mutex_;
    std::condition_variable changed_;
    std::condition_variable ended_;
    std::shared_ptr<Engine> kept_;
    StartMethod method_ = StartMethod::fork;
    std::map<std::shared_ptr<Engine>, std::size_t> loops_;    // that use each
    std::vector<std::shared_ptr<Engine>> to_end_;
    bool ending_ = false;
    Clock::time_point idle_since_{};
    std::chrono::nanoseconds idle_timeout_{0};
    std::thread caretaker_;
    bool stop_ = false;
};

// A forked child leaves its copy behind, whose lock may be held for ever.
constinit std::atomic<KeptWorkers*> KeptWorkers::the_workers{nullptr};
const ForkChildHook kForgetWorkers(&KeptWorkers::after_fork);

}    // namespace

ParallelWorkers ParallelWorkers::reusable(const ParallelOptions& options, std::size_t jobs) {
    return ParallelWorkers(KeptWorkers::instance().lend(jobs, default_start_method(), options.idle_timeout), false);
}

ParallelWorkers ParallelWorkers::snapshot(std::size_t jobs) {
    return ParallelWorkers(start_engine(jobs, StartMethod::fork), true);
}

ParallelWorkers::~ParallelWorkers() {
    if (!engine_ || !engine_->ours()) return;
    if (own_) {
        end_engine(*engine_, !finished_);
    } else {
        KeptWorkers::instance().give_back(engine_);
    }
}

}    // namespace detail

void end_reusable_workers() {
    if (auto* const workers = detail::KeptWorkers::existing()) workers->end_idle();
}

}    // namespace multihull
