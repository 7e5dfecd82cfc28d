#include <multihull/detail/local_completion.hpp>

#include "os/clock.hpp"

#include <multihull/log.hpp>

namespace multihull::detail {

std::int64_t deadline_after(std::chrono::nanoseconds timeout) noexcept { return os::deadline_after(timeout); }

void run_callback(const std::function<void()>& callback) noexcept {
    try {
        callback();
    } catch (const std::exception& error) {
        log(LogLevel::error, std::string("a future's callback threw: ") + error.what());
    } catch (...) {
        log(LogLevel::error, "a future's callback threw something that is no std::exception");
    }
}

bool LocalCompletionBase::ready(std::uint32_t) noexcept {
    const std::lock_guard guard(mutex_);
    return done_;
}

bool LocalCompletionBase::wait(std::uint32_t, std::int64_t deadline_ns) {
    std::unique_lock guard(mutex_);
    if (deadline_ns == kNoDeadline) {
        changed_.wait(guard, [&] { return done_; });
        return true;
    }
    while (!done_) {
        const std::int64_t left = deadline_ns - os::now_ns();
        if (left <= 0) return false;
        changed_.wait_for(guard, std::chrono::nanoseconds(left));
    }
    return true;
}

std::exception_ptr LocalCompletionBase::failure(std::uint32_t) {
    const std::lock_guard guard(mutex_);
    return failure_;
}

bool LocalCompletionBase::cancel(std::uint32_t) {
    return fail(std::make_exception_ptr(Cancelled("the continuation was cancelled before it ran")));
}

void LocalCompletionBase::on_done(std::uint32_t, std::function<void()> callback) {
    {
        const std::lock_guard guard(mutex_);
        if (!done_) {
            callbacks_.push_back(std::move(callback));
            return;
        }
    }
    callback();
}

bool LocalCompletionBase::fail(std::exception_ptr failure) {
    return finish(std::move(failure), [] {});
}

bool LocalCompletionBase::finish(std::exception_ptr failure, const std::function<void()>& store) {
    std::vector<std::function<void()>> callbacks;
    {
        const std::lock_guard guard(mutex_);
        if (done_) return false;
        store();
        failure_ = std::move(failure);
        done_ = true;
        callbacks.swap(callbacks_);
        changed_.notify_all();
    }
    for (const auto& callback : callbacks) {
        run_callback(callback);
    }
    return true;
}

}    // namespace multihull::detail
