// Futures as asynchronous operations.
#pragma once

#include <multihull/asio/operation.hpp>
#include <multihull/detail/future_group.hpp>
#include <multihull/future.hpp>

namespace multihull::asio {

namespace detail {

/// What cancellation does to a task that belongs to the operation.
template <class T>
void cancel_task(const Future<T>& future, net::cancellation_type_t type) {
    if ((type & (net::cancellation_type_t::terminal | net::cancellation_type_t::partial)) !=
        net::cancellation_type_t::none) {
        future.cancel();
        return;
    }
    // "total" asks for an end as if the task had never been: only one that has not begun can have that.
    using Access = multihull::detail::FutureAccess;
    Access::completion(future)->abandon(Access::task(future));
}

/// Waits for a task. What a cancelled one does to the task: `kOwner` ends it, else only the wait ends.
template <class T, bool kOwner>
class FutureSource {
public:
    using Value = T;

    explicit FutureSource(Future<T> future) noexcept : future_(std::move(future)) {}
    /// A task that could not be submitted.
    explicit FutureSource(std::exception_ptr failure) noexcept : failure_(std::move(failure)) {}

    template <class Told>
    void start(Told told) const {
        if (failure_) return told();
        const Future<T> future = future_;
        future.add_done_callback([told = std::move(told)](const Future<T>&) { told(); });
    }
    bool take(Result<T>& result) const {
        result.error = failure_;
        if (failure_) return true;
        if (!future_.ready()) return false;
        try {
            if constexpr (std::is_void_v<T>) {
                future_.get();
            } else {
                result.value.emplace(future_.get());
            }
        } catch (...) {
            result.error = std::current_exception();
        }
        return true;
    }
    bool cancel(net::cancellation_type_t type) const {
        if constexpr (!kOwner) return true;
        if (!failure_) cancel_task(future_, type);
        return false;
    }

private:
    Future<T> future_;
    std::exception_ptr failure_;
};

template <class T>
struct WaitInitiation {
    template <class Handler>
    void operator()(Handler&& handler, Future<T> future) const {
        start_operation(FutureSource<T, false>(std::move(future)), std::forward<Handler>(handler),
                        net::system_executor());
    }
};

}    // namespace detail

/// Waits for a task that was submitted before; the handler gets its result, `(std::exception_ptr, T)`, failures as Future::get throws
/// them. Cancellation ends the wait, with Cancelled, and leaves the task alone: `future.cancel()` ends that.
template <class T, class Token>
auto async_wait(const Future<T>& future, Token&& token) {
    return net::async_initiate<Token, detail::Signature<T>>(detail::WaitInitiation<T>{}, token, future);
}

}    // namespace multihull::asio
