// The part of Parallel that does not depend on types.
#include <multihull/detail/parallel_workers.hpp>

#include "process/inner_limits.hpp"
#include "process/self.hpp"

#include <multihull/error.hpp>

#include <algorithm>
#include <cstdio>
#include <map>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

namespace multihull {

namespace detail {

namespace {

// Long enough that taking a range does not count, short enough that the last ranges end together.
constexpr double kRangeNs = 200'000;

// Threads of one loop, which take ranges of it until none is left.
class ThreadLoop final : public ParallelBackend {
public:
    void run(std::size_t count, std::size_t jobs, std::size_t batch_size,
             const std::function<void(std::size_t)>& body) override {
        const std::size_t workers = std::min(jobs, count);
        const std::size_t share = inner_share(jobs);
        std::atomic<std::size_t> next{0};
        const auto work = [&] {
            using Clock = std::chrono::steady_clock;
            std::size_t size = std::max<std::size_t>(batch_size, 1);
            for (;;) {
                const std::size_t begin = next.fetch_add(size, std::memory_order_relaxed);
                if (begin >= count) return;
                const auto began = Clock::now();
                const std::size_t end = std::min(begin + size, count);
                for (std::size_t i = begin; i < end; ++i) body(i);
                if (batch_size != 0) continue;
                const double took = std::chrono::duration<double, std::nano>(Clock::now() - began).count();
                const double ideal = static_cast<double>(size) * kRangeNs / std::max(took, 1.0);
                const double fair = static_cast<double>(count - end) / static_cast<double>(2 * workers);
                size = static_cast<std::size_t>(std::max(1.0, std::min({ideal, fair, static_cast<double>(size) * 16})));
            }
        };
        std::vector<std::thread> threads;
        threads.reserve(workers);
        try {
            while (threads.size() < workers) {
                threads.emplace_back([&] {
                    set_inner_limits_of_thread(share);
                    work();
                });
            }
        } catch (const std::system_error&) {
            // With those that there are; without any, here.
            if (threads.empty()) work();
        }
        for (std::thread& thread : threads) thread.join();
    }
};

class Backends {
public:
    using Factory = std::function<std::unique_ptr<ParallelBackend>()>;

    static Backends& instance() {
        static auto* const all = new Backends;    // outlives every static object that might run a loop
        return *all;
    }

    void set(std::string name, Factory factory) {
        const std::lock_guard guard(mutex_);
        factories_[std::move(name)] = std::move(factory);
    }
    std::unique_ptr<ParallelBackend> make(const std::string& name) {
        Factory factory;
        {
            const std::lock_guard guard(mutex_);
            const auto entry = factories_.find(name);
            if (entry != factories_.end()) factory = entry->second;
        }
        if (auto backend = factory ? factory() : nullptr) return backend;
        throw std::invalid_argument("there is no Parallel backend named \"" + name +
                                    "\": register_parallel_backend() makes one known; \"processes\", \"threads\" and "
                                    "\"serial\" are always there");
    }

private:
    std::mutex mutex_;
    std::map<std::string, Factory> factories_;
};

std::optional<Prefer> own_backend(const std::string& name) {
    if (name == "processes") return Prefer::processes;
    if (name == "threads") return Prefer::threads;
    if (name == "serial") return Prefer::serial;
    return std::nullopt;
}

double seconds(std::chrono::nanoseconds time) { return std::chrono::duration<double>(time).count(); }

}    // namespace

std::size_t parallel_jobs(const ParallelOptions& options) {
    if (options.n_jobs == 0) {
        throw std::invalid_argument(
            "n_jobs of 0 has no meaning: give how many calls may run at once, or -1 for as many as there are "
            "processors");
    }
    if (options.n_jobs > 0) return static_cast<std::size_t>(options.n_jobs);
    const auto processors = static_cast<long>(processors_to_share());
    return static_cast<std::size_t>(std::max(processors + 1L + options.n_jobs, 1L));
}

ParallelPlace parallel_place(const ParallelOptions& options, std::size_t jobs) {
    ParallelPlace place{options.prefer, nullptr, nullptr, jobs};
    if (!options.backend.empty()) {
        if (const auto own = own_backend(options.backend)) {
            place.prefer = *own;
        } else {
            place.backend = Backends::instance().make(options.backend);
            place.prefer = Prefer::processes;
        }
    }
    if (place.backend && options.n_jobs != 1) place.runner = place.backend->runner();
    if (place.runner) {
        if (options.n_jobs < 0) place.jobs = place.runner->workers();
        return place;
    }
    if (jobs == 1) return {Prefer::serial, nullptr, nullptr, 1};
    if (!place.backend && place.prefer == Prefer::threads) place.backend = std::make_unique<ThreadLoop>();
    return place;
}

ParallelReport::ParallelReport(const ParallelOptions& options, std::size_t jobs, std::optional<std::size_t> total)
    : options_(options), jobs_(jobs), total_(total) {
    if (options.progress || options.verbose >= 10) {
        period_ = std::chrono::milliseconds(100);
    } else if (options.verbose > 0) {
        period_ = std::chrono::seconds(1);
    }
    next_ = began_ + period_;
}

void ParallelReport::at(std::size_t done) {
    if (period_.count() == 0) return;
    const std::unique_lock guard(mutex_, std::try_to_lock);
    if (!guard || std::chrono::steady_clock::now() < next_) return;
    say(done);
}

void ParallelReport::one_more() {
    if (period_.count() == 0) return;
    at(done_.fetch_add(1, std::memory_order_relaxed) + 1);
}

void ParallelReport::end() {
    if (period_.count() == 0) return;
    const std::lock_guard guard(mutex_);
    say(total_.value_or(done_.load(std::memory_order_relaxed)));
}

// Needs mutex_.
void ParallelReport::say(std::size_t done) {
    const Progress now{done, total_, std::chrono::steady_clock::now() - began_};
    next_ = std::chrono::steady_clock::now() + period_;
    if (options_.verbose > 0) {
        std::string line = "Parallel(n_jobs=" + std::to_string(jobs_) + "): " + std::to_string(done);
        if (total_) line += " of " + std::to_string(*total_);
        char times[64];
        std::snprintf(times, sizeof times, " done, %.1f s", seconds(now.elapsed));
        line += times;
        if (total_ && done != 0 && done < *total_) {
            const double left = seconds(now.elapsed) * static_cast<double>(*total_ - done) / static_cast<double>(done);
            std::snprintf(times, sizeof times, ", about %.1f s left", left);
            line += times;
        }
        line += '\n';
        std::fputs(line.c_str(), stderr);
    }
    if (options_.progress) options_.progress(now);
}

std::function<void()> limit_of_threads(std::size_t jobs) {
    return [share = inner_share(jobs)] { set_inner_limits_of_thread(share); };
}

void throw_late_call(std::chrono::nanoseconds limit) {
    throw TaskTimeout(
        "a call took longer than its time-out; it ran in a thread, which nobody can end, so it was left to finish",
        limit, Stack());
}

void throw_result_cannot_travel() {
    throw Error(
        "the result of these calls can't travel from another process: return something else (see docs/travel.md), or "
        "use Parallel({.prefer = multihull::Prefer::threads})");
}

void throw_call_cannot_travel() {
    throw Error(
        "these calls can't travel to another machine: a closure with captures refers to this process's memory; pass "
        "what "
        "it captures as arguments, or make it a struct whose fields can travel (see docs/travel.md)");
}

void throw_function_after_snapshot() {
    throw Error(
        "a call's function was made after the workers' snapshot of the program was taken, and can't travel: make it "
        "once, with delayed(), before the loop; or give a range that knows its size, or a list of calls");
}

}    // namespace detail

void register_parallel_backend(std::string name, std::function<std::unique_ptr<ParallelBackend>()> factory) {
    if (name.empty() || detail::own_backend(name)) {
        throw std::invalid_argument("a Parallel backend can't be named \"" + name +
                                    "\": that name is taken; choose another");
    }
    detail::Backends::instance().set(std::move(name), std::move(factory));
}

}    // namespace multihull
