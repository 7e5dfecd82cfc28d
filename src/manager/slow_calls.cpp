#include "manager/slow_calls.hpp"

#include "os/thread.hpp"

namespace multihull::detail {

SlowCalls::~SlowCalls() {
    std::vector<std::thread> threads;
    {
        const std::lock_guard guard(mutex_);
        ending_ = true;
        threads.swap(threads_);
    }
    changed_.notify_all();
    for (std::thread& thread : threads) thread.join();
}

void SlowCalls::run(std::function<void()> call) {
    const std::lock_guard guard(mutex_);
    calls_.push_back(std::move(call));
    if (idle_ >= calls_.size()) {
        changed_.notify_one();
        return;
    }
    try {
        threads_.push_back(os::start_thread("mh-slow-calls", [this] { work(); }));
    } catch (...) {
        // One that is busy will take it, if there is any.
        if (!threads_.empty()) return;
        calls_.pop_back();
        throw;
    }
}

void SlowCalls::work() {
    std::unique_lock lock(mutex_);
    for (;;) {
        ++idle_;
        changed_.wait(lock, [&] { return ending_ || !calls_.empty(); });
        --idle_;
        if (calls_.empty()) return;
        {
            const std::function<void()> call = std::move(calls_.front());
            calls_.pop_front();
            lock.unlock();
            call();
        }
        lock.lock();
    }
}

}    // namespace multihull::detail
