// Queues as asynchronous operations.
#pragma once

#include <multihull/asio/operation.hpp>
#include <multihull/detail/queue_watch.hpp>
#include <multihull/queue.hpp>

#include <memory>

namespace multihull::asio {

namespace detail {

template <class T>
class GetSource {
public:
    using Value = T;

    explicit GetSource(Queue<T> queue) : queue_(std::move(queue)) {}

    template <class Told>
    void start(Told told) {
        if (!queue_.empty() || queue_.closed()) return told();
        if (!watch_)
            watch_ = std::make_unique<multihull::detail::QueueWatch>(queue_.core(),
                                                                     multihull::detail::QueueWatch::Side::get);
        watch_->start(std::move(told));
    }
    // In the loop: a message is taken when its handler is about to be called, not before.
    bool take(Result<T>& result) {
        try {
            result.value = queue_.try_get();
            return result.value.has_value();
        } catch (...) {
            result.error = std::current_exception();
            return true;
        }
    }
    static bool cancel(net::cancellation_type_t) { return true; }

private:
    Queue<T> queue_;
    std::unique_ptr<multihull::detail::QueueWatch> watch_;
};

template <class T>
class PutSource {
public:
    using Value = void;

    PutSource(Queue<T> queue, T value) : queue_(std::move(queue)), value_(std::move(value)) {}

    template <class Told>
    void start(Told told) {
        if (!queue_.full() || queue_.closed()) return told();
        if (!watch_)
            watch_ = std::make_unique<multihull::detail::QueueWatch>(queue_.core(),
                                                                     multihull::detail::QueueWatch::Side::put);
        watch_->start(std::move(told));
    }
    bool take(Result<void>& result) {
        try {
            return queue_.try_put(std::as_const(value_));
        } catch (...) {
            result.error = std::current_exception();
            return true;
        }
    }
    static bool cancel(net::cancellation_type_t) { return true; }

private:
    Queue<T> queue_;
    T value_;
    std::unique_ptr<multihull::detail::QueueWatch> watch_;
};

template <class T>
struct GetInitiation {
    template <class Handler>
    void operator()(Handler&& handler, Queue<T> queue) const {
        start_operation(GetSource<T>(std::move(queue)), std::forward<Handler>(handler), net::system_executor());
    }
};

template <class T>
struct PutInitiation {
    template <class Handler>
    void operator()(Handler&& handler, Queue<T> queue, T value) const {
        start_operation(PutSource<T>(std::move(queue), std::move(value)), std::forward<Handler>(handler),
                        net::system_executor());
    }
};

}    // namespace detail

/// Takes the oldest value of a queue when there is one; the handler gets `(std::exception_ptr, T)`, and QueueClosed when the queue was closed
/// and is empty. A value is taken at the moment its handler is called: one whose operation is cancelled, or ends with its context, stays in
/// the queue.
template <class T, class Token>
auto async_get(const Queue<T>& queue, Token&& token) {
    return net::async_initiate<Token, detail::Signature<T>>(detail::GetInitiation<T>{}, token, queue);
}

/// Puts a value when there is room; the handler gets `(std::exception_ptr)`, and QueueClosed when the queue was closed. A cancelled one has put
/// nothing.
template <class T, class Token>
auto async_put(const Queue<T>& queue, std::type_identity_t<T> value, Token&& token) {
    return net::async_initiate<Token, detail::Signature<void>>(detail::PutInitiation<T>{}, token, queue,
                                                               std::move(value));
}

}    // namespace multihull::asio
