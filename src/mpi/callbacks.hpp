// The thread that calls back for one cluster: one callback at a time, in order.
//
// Thread-safe. A forked child has none; its copy is left behind.
#pragma once

#include "process/self.hpp"

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <mutex>
#include <thread>

namespace multihull::mpi {

class CallbackThread {
public:
    CallbackThread() = default;
    CallbackThread(const CallbackThread&) = delete;
    CallbackThread& operator=(const CallbackThread&) = delete;
    /// Ends the thread, behind what was posted. It may be this one.
    ~CallbackThread();

    /// The thread starts with the first one.
    void post(std::function<void()> call);
    /// Waits until all that was posted has returned; at once in this thread itself.
    void wait_idle();

private:
    struct State {
        std::mutex mutex;
        std::condition_variable changed;
        std::deque<std::function<void()>> calls;
        bool running = false;    // a call
        bool stop = false;
    };
    static void run(const std::shared_ptr<State>& state);

    const std::uint32_t generation_ = multihull::detail::fork_generation();
    std::shared_ptr<State> state_ = std::make_shared<State>();
    std::thread thread_;
};

}    // namespace multihull::mpi
