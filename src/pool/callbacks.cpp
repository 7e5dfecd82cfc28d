// The engine's callback thread: hears from workers which tasks ended, and calls back. Started with the first callback.
#include "os/thread.hpp"
#include "pool/engine.hpp"

namespace multihull::detail {

void Engine::on_done(std::uint32_t task, std::function<void()> callback) {
    require_usable();
    {
        const std::lock_guard guard(mutex_);
        auto& word = slot(task).state;
        std::uint32_t state = word.load(std::memory_order_acquire);
        while (!task_state::ended(state)) {
            if ((state & task_state::kNotify) == 0 &&
                !word.compare_exchange_weak(state, state | task_state::kNotify, std::memory_order_acq_rel)) {
                continue;
            }
            ensure_callback_thread();
            Record& record = records_[task];
            record.callbacks.push_back(std::move(callback));
            if (record.callbacks.size() == 1) ++callback_tasks_;
            return;
        }
    }
    callback();
}

// Needs mutex_.
void Engine::ensure_callback_thread() {
    if (callbacks_run_) return;
    // A callback may drop the pool: the thread keeps the engine until its own end.
    callback_thread_ = os::start_thread("mh-callbacks", [self = shared_from_this()] { self->run_callback_thread(); });
    callback_thread_id_ = callback_thread_.get_id();
    callbacks_run_ = true;
    count_own_thread(1);
}

void Engine::notify_callback_thread() noexcept {
    home_.header.notify_epoch.fetch_add(1, std::memory_order_seq_cst);
    os::futex_wake_all(home_.header.notify_epoch);
}

void Engine::run_callback_thread() {
    std::vector<std::uint32_t> tasks;
    for (;;) {
        const std::uint32_t epoch = home_.header.notify_epoch.load(std::memory_order_seq_cst);
        tasks.clear();
        {
            const std::lock_guard guard(mutex_);
            collect_notified(tasks);
            if (tasks.empty() && callback_stop_ && callback_tasks_ == 0) {
                callbacks_run_ = false;
                changed_.notify_all();
                break;
            }
        }
        for (const std::uint32_t task : tasks) run_callbacks(task);
        if (tasks.empty()) os::futex_wait(home_.header.notify_epoch, epoch, os::kNever);
    }
    count_own_thread(-1);
}

// Needs mutex_.
void Engine::collect_notified(std::vector<std::uint32_t>& tasks) {
    tasks.assign(callback_queue_.begin(), callback_queue_.end());
    callback_queue_.clear();
    bool all = false;
    for (std::uint32_t i = 0; i < home_.worker_count; ++i) {
        WorkerSlot& worker = home_.workers[i];
        const std::uint32_t tail = worker.notify_tail.load(std::memory_order_acquire);
        std::uint32_t head = worker.notify_head.load(std::memory_order_relaxed);
        if (worker.notify_overflow.exchange(0, std::memory_order_acq_rel) != 0 || tail - head > kNotifyRing) all = true;
        for (; !all && head != tail; ++head)
            tasks.push_back(worker.notify_ring[head % kNotifyRing].load(std::memory_order_relaxed));
        worker.notify_head.store(tail, std::memory_order_release);
    }
    if (!all) return;
    tasks.clear();
    for (std::uint32_t task = 0; task < records_.size(); ++task) {
        if (!records_[task].callbacks.empty()) tasks.push_back(task);
    }
}

void Engine::run_callbacks(std::uint32_t task) {
    std::vector<std::function<void()>> callbacks;
    {
        const std::lock_guard guard(mutex_);
        if (task >= records_.size() || records_[task].callbacks.empty()) return;
        if (!task_state::ended(slot(task).state.load(std::memory_order_acquire))) return;
        callbacks.swap(records_[task].callbacks);
    }
    for (const auto& callback : callbacks) {
        run_callback(callback);
    }
    callbacks.clear();    // before the count: a callback may hold the last future of its task
    const std::lock_guard guard(mutex_);
    --callback_tasks_;
}

}    // namespace multihull::detail
