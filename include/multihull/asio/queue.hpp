// Queues as asynchronous operations.
#pragma once

#include <multihull/asio/operation.hpp>
#include <multihull/detail/queue_watch.hpp>
#include <multihull/queue.hpp>

#include <exception>
#include <memory>
#include <type_traits>
#include <utility>

namespace multihull::asio {

namespace detail {

/// One who waits to take or to put.
template <class T, multihull::detail::QueueWatch::Side kSide>
class QueueSource {
public:
    explicit QueueSource(Queue<T> queue) : queue_(std::move(queue)) {}

    template <class Told>
    void start(Told told) {
        const bool waits = kSide == multihull::detail::QueueWatch::Side::get ? queue_.empty() : queue_.full();
        if (!waits || queue_.closed()) return told();
        if (!watch_) watch_ = std::make_unique<multihull::detail::QueueWatch>(queue_.core(), kSide);
        watch_->start(std::move(told));
    }
    static bool cancel(net::cancellation_type_t) { return true; }

protected:
    Queue<T> queue_;

private:
    std::unique_ptr<multihull::detail::QueueWatch> watch_;
};

template <class T>
class GetSource : public QueueSource<T, multihull::detail::QueueWatch::Side::get> {
public:
    using Value = T;
    using QueueSource<T, multihull::detail::QueueWatch::Side::get>::QueueSource;

    // In the loop: a message is taken when its handler is about to be called, not before.
    bool take(Result<T>& result) {
        try {
            result.value = this->queue_.try_get();
            return result.value.has_value();
        } catch (...) {
            result.error = std::current_exception();
            return true;
        }
    }
};

template <class T>
class PutSource : public QueueSource<T, multihull::detail::QueueWatch::Side::put> {
public:
    using Value = void;

    PutSource(Queue<T> queue, T value)
        : QueueSource<T, multihull::detail::QueueWatch::Side::put>(std::move(queue)), value_(std::move(value)) {}

    bool take(Result<void>& result) {
        try {
            return this->queue_.try_put(std::as_const(value_));
        } catch (...) {
            result.error = std::current_exception();
            return true;
        }
    }

private:
    T value_;
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
