// Threads for calls that may wait or take long: one each while it runs.
//
// Thread-safe.
#pragma once

#include <condition_variable>
#include <cstddef>
#include <deque>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

namespace multihull::detail {

class SlowCalls {
public:
    SlowCalls() = default;
    SlowCalls(const SlowCalls&) = delete;
    SlowCalls& operator=(const SlowCalls&) = delete;
    /// Waits for the calls that run.
    ~SlowCalls();

    /// Runs it on a thread that has nothing else to do; a new one where there is none.
    void run(std::function<void()> call);

private:
    void work();

    std::mutex mutex_;
    std::condition_variable changed_;
    std::deque<std::function<void()>> calls_;
    std::vector<std::thread> threads_;
    std::size_t idle_ = 0;
    bool ending_ = false;
};

}    // namespace multihull::detail
