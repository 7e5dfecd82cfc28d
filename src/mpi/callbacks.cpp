#include "mpi/callbacks.hpp"

#include "mpi/threads.hpp"

#include <multihull/detail/completion.hpp>

#include <memory>
#include <new>
#include <utility>

namespace multihull::mpi {

CallbackThread::~CallbackThread() {
    if (generation_ != multihull::detail::fork_generation()) {
        // The copy in a forked child: the thread does not exist, and an object of one that was not joined must not be destroyed.
        if (thread_.joinable()) new (std::nothrow) std::thread(std::move(thread_));
        return;
    }
    {
        const std::lock_guard guard(state_->mutex);
        state_->stop = true;
    }
    state_->changed.notify_all();
    if (!thread_.joinable()) return;
    if (thread_.get_id() == std::this_thread::get_id()) {
        thread_.detach();    // the last owner was one of its callbacks
    } else {
        thread_.join();
    }
}

void CallbackThread::post(std::function<void()> call) {
    const std::lock_guard guard(state_->mutex);
    if (!thread_.joinable()) thread_ = start_thread("mh-callbacks", [state = state_] { run(state); });
    state_->calls.push_back(std::move(call));
    state_->changed.notify_all();
}

void CallbackThread::wait_idle() {
    std::unique_lock guard(state_->mutex);
    if (thread_.get_id() == std::this_thread::get_id()) return;
    state_->changed.wait(guard, [&] { return state_->calls.empty() && !state_->running; });
}

void CallbackThread::run(const std::shared_ptr<State>& state) {
    std::unique_lock guard(state->mutex);
    for (;;) {
        state->changed.wait(guard, [&] { return !state->calls.empty() || state->stop; });
        if (state->calls.empty()) return;
        auto call = std::move(state->calls.front());
        state->calls.pop_front();
        state->running = true;
        guard.unlock();
        multihull::detail::run_callback(call);
        call = nullptr;    // it may hold the last future of its task
        guard.lock();
        state->running = false;
        state->changed.notify_all();
    }
}

}    // namespace multihull::mpi
