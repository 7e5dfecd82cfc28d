// One asynchronous operation: a handler, and a source that it waits for.
//
// A source is a movable object with
//   `using Value`                 what the operation answers: its handler is called with (std::exception_ptr, Value), or (std::exception_ptr);
//   `void start(told)`            has `told()` called, once, from any thread, when the source may be ready; may throw. The source may be
//                                 destroyed by another thread before start() returns: what it still needs then it must hold itself;
//   `bool take(Result<Value>&)`   called on the handler's executor: takes what has come; false to be started again;
//   `bool cancel(type)`           asks for an early end; true where the operation is to stop waiting now, false where it will be told.
//
// Life of an operation: its body (handler, source, work) belongs to it while it waits (see Operations), and to the Step that was posted to
// the executor from then on; a Step that finds nothing gives it back and waits again. A body that is destroyed before the handler was
// called takes the handler with it: that is how operations end with their execution context.
#pragma once

#include <multihull/asio/net.hpp>
#include <multihull/asio/operations.hpp>
#include <multihull/error.hpp>

#include <atomic>
#include <exception>
#include <memory>
#include <optional>
#include <type_traits>
#include <utility>

namespace multihull::asio::detail {

struct Nothing {};

/// What an operation ends with.
template <class T>
struct Result {
    std::exception_ptr error{};
    std::optional<std::conditional_t<std::is_void_v<T>, Nothing, T>> value{};
};

template <class T>
struct SignatureOf {
    static_assert(
        std::is_default_constructible_v<T>,
        "multihull: an asynchronous operation needs something to answer when it fails: a result type without a "
        "default constructor must be wrapped in a std::optional");
    using Type = void(std::exception_ptr, T);
};
template <>
struct SignatureOf<void> {
    using Type = void(std::exception_ptr);
};
template <class T>
using Signature = typename SignatureOf<T>::Type;

/// Keeps the operations of an execution context, and ends them with it.
class OperationService final : public net::execution_context::service {
public:
    using key_type = OperationService;
    static inline net::execution_context::id id;

    explicit OperationService(net::execution_context& context)
        : net::execution_context::service(context), operations_(std::make_shared<Operations>()) {}

    const std::shared_ptr<Operations>& operations() const noexcept { return operations_; }

private:
    void shutdown() noexcept override { operations_->shut_down(); }

    std::shared_ptr<Operations> operations_;
};

template <class Executor>
std::shared_ptr<Operations> operations_of(const Executor& executor) {
    if constexpr (net::can_query_v<const Executor&, net::execution::context_t>) {
        net::execution_context& context = net::query(executor, net::execution::context);
        return net::use_service<OperationService>(context).operations();
    } else {
        // That of use_future belongs to no context: it calls in the system's.
        return operations_of(net::system_executor());
    }
}

template <class Source, class Handler, class Executor>
class Operation final : public WaitingOperation,
                        public std::enable_shared_from_this<Operation<Source, Handler, Executor>> {
public:
    using Allocator = net::associated_allocator_t<Handler>;
    using Value = typename Source::Value;

    Operation(Source source, Handler handler, const Executor& executor)
        : operations_(operations_of(executor)), body_(make_body(std::move(source), std::move(handler), executor)) {}

    void start() {
        const auto slot = net::get_associated_cancellation_slot(body_->handler);
        if (slot.is_connected()) {
            auto listening = slot;
            listening.assign([weak = this->weak_from_this()](net::cancellation_type_t type) {
                if (const auto self = weak.lock()) self->cancel(type);
            });
        }
        wait();
    }

private:
    struct Body {
        Handler handler;
        Source source;
        net::executor_work_guard<Executor> work;
    };
    using BodyAllocator = typename std::allocator_traits<Allocator>::template rebind_alloc<Body>;
    struct Free {
        BodyAllocator allocator;
        void operator()(Body* body) {
            std::allocator_traits<BodyAllocator>::destroy(allocator, body);
            std::allocator_traits<BodyAllocator>::deallocate(allocator, body, 1);
        }
    };
    using BodyPtr = std::unique_ptr<Body, Free>;

    static BodyPtr make_body(Source source, Handler handler, const Executor& executor) {
        using Traits = std::allocator_traits<BodyAllocator>;
        BodyAllocator allocator(net::get_associated_allocator(handler));
        Body* const place = Traits::allocate(allocator, 1);
        try {
            ::new (static_cast<void*>(place))
                Body{std::move(handler), std::move(source), net::executor_work_guard<Executor>(executor)};
        } catch (...) {
            Traits::deallocate(allocator, place, 1);
            throw;
        }
        return BodyPtr(place, Free{allocator});
    }

    // What is posted to the handler's executor.
    class Step {
    public:
        using allocator_type = Allocator;
        Step(BodyPtr body, std::shared_ptr<Operation> operation) noexcept
            : operation_(std::move(operation)), body_(std::move(body)) {}
        allocator_type get_allocator() const noexcept { return allocator_type(body_.get_deleter().allocator); }
        void operator()() { operation_->run(std::move(body_), std::move(operation_)); }

    private:
        std::shared_ptr<Operation> operation_;
        BodyPtr body_;
    };

    // Puts it among those that wait. The body is then another thread's as soon as the source tells.
    void wait() {
        Source* const source = &body_->source;
        const auto self = this->shared_from_this();
        if (!operations_->add(self)) return drop();
        try {
            source->start([self] { self->told(); });
        } catch (...) {
            failure_ = std::current_exception();
            told();
        }
    }

    void told() {
        operations_->remove(*this, [this] {
            const Executor executor = body_->work.get_executor();
            net::post(executor, Step(std::move(body_), this->shared_from_this()));
        });
    }

    // On the handler's executor.
    void run(BodyPtr body, std::shared_ptr<Operation> self) {
        Result<Value> result;
        if (failure_) {
            result.error = failure_;
        } else if (!body->source.take(result)) {
            if (!cancelled_) {
                body_ = std::move(body);
                return wait();
            }
            result.error = std::make_exception_ptr(Cancelled("the operation was cancelled before it had ended"));
        }
        auto slot = net::get_associated_cancellation_slot(body->handler);
        if (slot.is_connected()) slot.clear();
        // The handler may start the next operation: its memory is free for that.
        Handler handler(std::move(body->handler));
        const auto work = std::move(body->work);
        body.reset();
        self.reset();
        if constexpr (std::is_void_v<Value>) {
            std::move(handler)(std::move(result.error));
        } else {
            std::move(handler)(std::move(result.error), result.value ? std::move(*result.value) : Value{});
        }
    }

    // Asio has it come from where the operation's handler can't run at the same time: the body stays where it is, whoever it belongs to.
    void cancel(net::cancellation_type_t type) {
        if (type == net::cancellation_type_t::none) return;
        cancelled_ = true;
        Source* source = nullptr;
        operations_->if_waiting(*this, [&] { source = &body_->source; });
        if (source != nullptr && source->cancel(type)) told();
    }

    void drop() noexcept override { body_.reset(); }

    const std::shared_ptr<Operations> operations_;
    BodyPtr body_;
    std::exception_ptr failure_;
    bool cancelled_ = false;
};

/// Starts an operation. `fallback` is the executor of handlers that have none.
template <class Source, class Handler, class Fallback>
void start_operation(Source source, Handler handler, const Fallback& fallback) {
    const auto executor = net::get_associated_executor(handler, fallback);
    using Executor = std::remove_cvref_t<decltype(executor)>;
    using Op = Operation<Source, Handler, Executor>;
    std::make_shared<Op>(std::move(source), std::move(handler), executor)->start();
}

}    // namespace multihull::asio::detail
