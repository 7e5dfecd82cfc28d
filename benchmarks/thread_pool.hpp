// The thread pool that most programs have: a queue, a mutex, a condition variable, a std::packaged_task for each task.
#pragma once

#include <condition_variable>
#include <cstddef>
#include <deque>
#include <functional>
#include <future>
#include <memory>
#include <mutex>
#include <thread>
#include <type_traits>
#include <utility>
#include <vector>

namespace bench {

class ThreadPool {
public:
    explicit ThreadPool(std::size_t threads) {
        for (std::size_t i = 0; i < threads; ++i) threads_.emplace_back([this] { run(); });
    }
    ThreadPool(const ThreadPool&) = delete;
    ThreadPool& operator=(const ThreadPool&) = delete;
    ~ThreadPool() {
        {
            const std::lock_guard guard(mutex_);
            stopping_ = true;
        }
        changed_.notify_all();
        for (std::thread& thread : threads_) thread.join();
    }

    template <class Function>
    auto submit(Function function) {
        using Result = std::invoke_result_t<Function>;
        auto task = std::make_shared<std::packaged_task<Result()>>(std::move(function));
        auto future = task->get_future();
        {
            const std::lock_guard guard(mutex_);
            queue_.emplace_back([task] { (*task)(); });
        }
        changed_.notify_one();
        return future;
    }

    /// Calls `function(begin, end)` for `count` indices cut into four pieces a thread.
    template <class Function>
    void for_each_piece(std::size_t count, Function function) {
        const std::size_t pieces = threads_.size() * 4;
        std::vector<std::future<void>> futures;
        for (std::size_t i = 0; i < pieces; ++i) {
            futures.push_back(submit([=] { function(count * i / pieces, count * (i + 1) / pieces); }));
        }
        for (auto& future : futures) future.get();
    }

private:
    void run() {
        for (;;) {
            std::function<void()> task;
            {
                std::unique_lock guard(mutex_);
                changed_.wait(guard, [this] { return stopping_ || !queue_.empty(); });
                if (queue_.empty()) return;
                task = std::move(queue_.front());
                queue_.pop_front();
            }
            task();
        }
    }

    std::mutex mutex_;
    std::condition_variable changed_;
    std::deque<std::function<void()>> queue_;
    std::vector<std::thread> threads_;
    bool stopping_ = false;
};

}    // namespace bench
