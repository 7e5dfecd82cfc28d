// The result of a task that may not have ended yet.
//
// A Future is a cheap handle: a copy names the same task. Thread-safe as a std::shared_ptr is. It may outlive its pool. In a
// forked child it belongs to the parent still, and must not be used.
#pragma once

#include <multihull/detail/completion.hpp>
#include <multihull/detail/wait_source.hpp>
#include <multihull/error.hpp>

#include <chrono>
#include <exception>
#include <functional>
#include <memory>
#include <optional>
#include <type_traits>
#include <utility>

namespace multihull {

namespace detail {

/// A deadline that lies `timeout` from now, in monotonic nanoseconds.
std::int64_t deadline_after(std::chrono::nanoseconds timeout) noexcept;
inline constexpr std::int64_t kNoDeadline = std::numeric_limits<std::int64_t>::max();

/// How wait() sees a task.
std::shared_ptr<WaitSource> future_source(std::shared_ptr<Completion> completion, std::uint32_t task);

struct Nothing {};
template <class T>
using Stored = std::conditional_t<std::is_void_v<T>, Nothing, T>;

/// A task of this process's own: a promise that has been, or will be, kept by a callback.
template <class T>
class LocalCompletion;

/// What waits for many futures at once sees of each.
struct FutureAccess;

}    // namespace detail

/// Handle of a task's outcome: its value, its own exception, or the account of why there is neither.
template <class T>
class Future {
public:
    using value_type = T;

    /// A future of nothing: every use but assignment and valid() throws Error.
    Future() = default;
    Future(std::shared_ptr<detail::Completion> completion, std::uint32_t task, detail::ReadResult read) noexcept
        : completion_(std::move(completion)), task_(task), read_(read) {}
    Future(const Future& other) noexcept : completion_(other.completion_), task_(other.task_), read_(other.read_) {
        if (completion_) completion_->retain(task_);
    }
    Future(Future&& other) noexcept = default;
    Future& operator=(Future other) noexcept {
        std::swap(completion_, other.completion_);
        std::swap(task_, other.task_);
        std::swap(read_, other.read_);
        return *this;
    }
    ~Future() {
        if (completion_) completion_->release(task_);
    }

    bool valid() const noexcept { return completion_ != nullptr; }

    /// Waits for the task and returns its value. Throws what the task threw (standard types as themselves, others as
    /// RemoteError), WorkerCrashed, TaskTimeout, std::bad_alloc, Cancelled, PoolClosed or BrokenPool. May be called again.
    T get() const {
        wait();
        return take();
    }
    /// The same, but throws WaitTimeout when the task has not ended after `timeout`; the task goes on.
    T get(std::chrono::nanoseconds timeout) const {
        if (!wait_for(timeout)) throw WaitTimeout("the task has not ended within the time given to get(); it goes on");
        return take();
    }
    /// Waits until the task has ended, however it did.
    void wait() const { completion().wait(task_, detail::kNoDeadline); }
    /// Waits for at most `timeout`; false when the task has not ended by then.
    bool wait_for(std::chrono::nanoseconds timeout) const {
        return completion().wait(task_, detail::deadline_after(timeout));
    }
    /// Whether the task has ended.
    bool ready() const { return completion().ready(task_); }
    /// Waits, and returns what get() would throw; empty when there is a value.
    std::exception_ptr exception() const {
        wait();
        return completion().failure(task_);
    }
    /// Keeps a waiting task from starting, and ends the worker of one that runs; get() then throws Cancelled.
    /// False when the task has ended already, or runs in a thread, which nobody can end.
    bool cancel() const { return completion().cancel(task_); }

    /// Calls `callback(future)` once the task has ended: at once when it has, else in a thread of the library, one callback at a
    /// time per pool (of tasks that run in threads: in the thread that ran the task). Those that were added before
    /// its end come in that order. What one throws is logged.
    template <class Callback>
    void add_done_callback(Callback callback) const {
        completion().on_done(task_, [future = *this, callback = std::move(callback)]() mutable {
            detail::run_callback([&] { callback(future); });
        });
    }

    /// A future of `function(value)`, called in this process once the value is there; failures pass through.
    template <class Function>
    auto then(Function function) const;

    /// For multihull::wait.
    std::shared_ptr<detail::WaitSource> wait_source() const {
        static_cast<void>(completion());
        return detail::future_source(completion_, task_);
    }

    /// Whether both name the same task.
    friend bool operator==(const Future& a, const Future& b) noexcept {
        return a.completion_ == b.completion_ && a.task_ == b.task_;
    }

private:
    friend struct detail::FutureAccess;

    detail::Completion& completion() const {
        if (!completion_) throw Error("this Future was moved from or never held a task");
        return *completion_;
    }
    T take() const {
        std::optional<detail::Stored<T>> value;
        completion().read(task_, read_, &value);
        if constexpr (!std::is_void_v<T>) return std::move(*value);
    }

    std::shared_ptr<detail::Completion> completion_;
    std::uint32_t task_ = 0;
    detail::ReadResult read_ = nullptr;
};

}    // namespace multihull

#include <multihull/detail/future_await.hpp>
#include <multihull/detail/local_completion.hpp>
