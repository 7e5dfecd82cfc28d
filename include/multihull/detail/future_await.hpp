// co_await on a Future.
#pragma once

#include <multihull/future.hpp>

#include <coroutine>

namespace multihull {

namespace detail {

template <class T>
class FutureAwaiter {
public:
    explicit FutureAwaiter(Future<T> future) noexcept : future_(std::move(future)) {}

    bool await_ready() const { return future_.ready(); }
    void await_suspend(std::coroutine_handle<> coroutine) const {
        // The coroutine may be resumed, and this object be gone, before the call returns.
        const Future<T> future = future_;
        future.add_done_callback([coroutine](const auto&) { coroutine.resume(); });
    }
    T await_resume() const { return future_.get(); }

private:
    Future<T> future_;
};

}    // namespace detail

/// `T value = co_await future;` in any coroutine. It goes on at once where the task has ended; else later, in the thread that calls
/// the task's callbacks: of a pool its one callback thread, so it must not wait there for another task of the same pool (it may
/// co_await it); of an executor of threads the thread that ran the task. Failures are thrown as by Future::get.
template <class T>
detail::FutureAwaiter<T> operator co_await(Future<T> future) {
    return detail::FutureAwaiter<T>(std::move(future));
}

}    // namespace multihull
