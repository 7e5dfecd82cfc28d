#include <multihull/thread_pool_executor.hpp>

#include "process/inner_limits.hpp"
#include "process/self.hpp"

#include <algorithm>
#include <condition_variable>
#include <deque>
#include <mutex>
#include <new>
#include <pthread.h>
#include <stdexcept>
#include <thread>
#include <vector>

namespace multihull {

namespace detail {

bool ThreadTaskBase::cancel(std::uint32_t) {
    return refuse(std::make_exception_ptr(Cancelled("the task was cancelled before it started")));
}

bool ThreadTaskBase::refuse(std::exception_ptr why) { return claim() && fail(std::move(why)); }

std::size_t checked_workers(std::size_t max_workers) {
    if (max_workers == 0)
        throw std::invalid_argument(
            "an executor of 0 workers can run nothing: give at least 1, or no number for one a processor");
    return max_workers;
}

// Invariants
// (1) Everything but the constants is read and written with mutex_ held, which is never held while a task or a callback runs.
// (2) A task is in queue_, or belongs to the one thread that took it out. A thread leaves only when it is closed and queue_ is
//     empty, or it is broken, which empties queue_.
// (3) idle_ is how many threads wait for changed_; each task put wakes one of them, or there is none and a thread is started for it,
//     or all that may be are at work.
class ThreadCrew final : public std::enable_shared_from_this<ThreadCrew> {
public:
    explicit ThreadCrew(ThreadPoolOptions options) : options_(std::move(options)) {
        if (options_.max_workers == 0) options_.max_workers = processors_to_share();
        if (options_.name.empty()) options_.name = "mh-thread";
        watch_forks();
    }

    ~ThreadCrew() {
        if (ours()) return;
        // The copy in a forked child: the threads do not exist here, and objects of some that were not joined must not be destroyed.
        new (std::nothrow) std::vector<std::thread>(std::move(threads_));
    }

    bool ours() const noexcept { return generation_ == fork_generation(); }
    std::size_t max_workers() const noexcept { return options_.max_workers; }

    void submit(std::shared_ptr<ThreadTaskBase> task) {
        require_usable();
        std::unique_lock guard(mutex_);
        if (broken_) std::rethrow_exception(broken_);
        if (closed_) throw PoolClosed("executor " + options_.name + " was shut down: it takes no more tasks");
        queue_.push_back(std::move(task));
        if (idle_ >= queue_.size()) {
            guard.unlock();
            changed_.notify_one();
        } else if (threads_.size() < options_.max_workers) {
            start_thread();
        }
    }

    void close(bool cancel_futures) {
        require_usable();
        std::deque<std::shared_ptr<ThreadTaskBase>> cancelled;
        {
            const std::lock_guard guard(mutex_);
            closed_ = true;
            if (cancel_futures) cancelled.swap(queue_);
        }
        changed_.notify_all();
        for (const auto& task : cancelled) task->cancel(0);
    }

    // Any number of threads may wait; one of them joins.
    void wait() {
        if (is_own_thread()) throw Error("an executor's own task can't wait for its end: use shutdown(false)");
        std::vector<std::thread> threads;
        {
            std::unique_lock guard(mutex_);
            left_.wait(guard, [&] { return running_ == 0; });
            threads.swap(threads_);
        }
        for (std::thread& thread : threads) thread.join();
    }

    // As wait(); the last owner may be one of the tasks, which then goes on with the others.
    void end() {
        if (!is_own_thread()) return wait();
        const std::lock_guard guard(mutex_);
        for (std::thread& thread : threads_) thread.detach();
        threads_.clear();
    }

private:
    void require_usable() const {
        if (!ours())
            throw PoolClosed("executor " + options_.name +
                             " belongs to the process that made it, not to this forked child: make one here");
    }

    bool is_own_thread() const noexcept { return current_crew == this; }

    // Needs mutex_. Where no thread can be started, those that there are do the work.
    void start_thread() {
        try {
            threads_.emplace_back([self = shared_from_this()] { self->run(); });
            ++running_;
        } catch (const std::system_error& error) {
            if (running_ != 0) return;
            queue_.pop_back();
            throw StartError(std::string("no thread can be started (") + error.what() +
                             "): raise the limit on processes (ulimit -u), or free some memory");
        }
    }

    void run() {
        current_crew = this;
        ::pthread_setname_np(::pthread_self(), options_.name.substr(0, 15).c_str());
        if (initialized()) {
            while (const auto task = next()) task->run();
        }
        const std::lock_guard guard(mutex_);
        if (--running_ == 0) left_.notify_all();
    }

    bool initialized() {
        if (!options_.initializer) return true;
        std::string why;
        try {
            options_.initializer();
            return true;
        } catch (const std::exception& error) {
            why = error.what();
        } catch (...) {
            why = "it threw something that is no std::exception";
        }
        std::deque<std::shared_ptr<ThreadTaskBase>> lost;
        const auto broken =
            std::make_exception_ptr(BrokenPool("the initializer of executor " + options_.name + " failed: " + why));
        {
            const std::lock_guard guard(mutex_);
            if (!broken_) broken_ = broken;
            lost.swap(queue_);
        }
        changed_.notify_all();
        for (const auto& task : lost) task->refuse(broken);
        return false;
    }

    std::shared_ptr<ThreadTaskBase> next() {
        std::unique_lock guard(mutex_);
        ++idle_;
        changed_.wait(guard, [&] { return !queue_.empty() || closed_ || broken_; });
        --idle_;
        if (queue_.empty()) return nullptr;
        auto task = std::move(queue_.front());
        queue_.pop_front();
        return task;
    }

    static thread_local const ThreadCrew* current_crew;

    ThreadPoolOptions options_;
    const std::uint32_t generation_ = fork_generation();
    std::mutex mutex_;
    std::condition_variable changed_;
    std::condition_variable left_;
    std::deque<std::shared_ptr<ThreadTaskBase>> queue_;
    std::vector<std::thread> threads_;
    std::size_t running_ = 0;
    std::size_t idle_ = 0;
    std::exception_ptr broken_;
    bool closed_ = false;
};

thread_local const ThreadCrew* ThreadCrew::current_crew = nullptr;

std::shared_ptr<ThreadCrew> make_thread_crew(ThreadPoolOptions options) {
    return std::make_shared<ThreadCrew>(std::move(options));
}

void submit_task(ThreadCrew& crew, std::shared_ptr<ThreadTaskBase> task) { crew.submit(std::move(task)); }

}    // namespace detail

ThreadPoolExecutor::ThreadPoolExecutor(std::size_t max_workers)
    : ThreadPoolExecutor(ThreadPoolOptions{.max_workers = detail::checked_workers(max_workers)}) {}

ThreadPoolExecutor::ThreadPoolExecutor(ThreadPoolOptions options)
    : crew_(detail::make_thread_crew(std::move(options))) {}

ThreadPoolExecutor::~ThreadPoolExecutor() {
    if (!crew_->ours()) return;
    crew_->close(false);
    crew_->end();
}

void ThreadPoolExecutor::shutdown(bool wait, bool cancel_futures) {
    crew_->close(cancel_futures);
    if (wait) crew_->wait();
}

void ThreadPoolExecutor::terminate_workers() {
    throw Error(
        "a thread can't be ended from outside: use shutdown(false, true), which cancels what waits, or a "
        "ProcessPoolExecutor, whose workers can be ended at any time");
}

void ThreadPoolExecutor::kill_workers() { terminate_workers(); }

std::size_t ThreadPoolExecutor::max_workers() const noexcept { return crew_->max_workers(); }

}    // namespace multihull
