// Queue, JoinableQueue, LifoQueue and PriorityQueue as referents.
//
// Thread-safe: each has a lock of its own. Nobody answers a client while he holds it.
//
// Invariants
// (1) Getters wait only while the queue is empty, putters only while it is full, joiners only while tasks are unfinished.
// (2) Waiters are served in the order in which they came. One whose call is claimed by someone else (it timed out, its client ended) is
//     dropped when its turn comes; an element is taken out for nobody, and what a putter brought and nobody took in goes with him.
#include "manager/referent.hpp"

#include "os/clock.hpp"

#include <deque>
#include <mutex>

namespace multihull::detail {

namespace {

enum class Order { fifo, lifo, priority };

class QueueReferent : public ReferentOf<QueueReferent> {
public:
    QueueReferent(Call& call, Order order) : order_(order) {
        const auto args = call.bind({"maxsize"}, 0);
        const std::int64_t most = args[0] == nullptr ? 0 : args[0]->as_int();
        most_ = most <= 0 ? std::numeric_limits<std::size_t>::max() : static_cast<std::size_t>(most);
    }

    static const Methods<QueueReferent>& methods() {
        using Q = QueueReferent;
        static const Methods<Q> methods{
            {"empty", &Q::empty},           {"full", &Q::full},   {"get", &Q::get},
            {"get_nowait", &Q::get_nowait}, {"join", &Q::join},   {"put", &Q::put},
            {"put_nowait", &Q::put_nowait}, {"qsize", &Q::qsize}, {"task_done", &Q::task_done}};
        return methods;
    }

    std::string repr() override {
        const std::lock_guard guard(mutex_);
        return "<Queue of " + std::to_string(items_.size()) + ">";
    }

    Object value() override { raise("TypeError", "cannot pickle a queue"); }

    void visit(const std::function<void(const Object&)>& visitor) override {
        const std::lock_guard guard(mutex_);
        std::ranges::for_each(items_, visitor);
        for (const Waiter& putter : putters_) visitor(putter.item);
    }

    void caller_ended(const Caller& caller, bool process_ended) override {
        const auto gone = [&](const Waiter& waiter) {
            return process_ended ? waiter.caller.process == caller.process : waiter.caller == caller;
        };
        const std::lock_guard guard(mutex_);
        std::erase_if(getters_, gone);
        std::erase_if(putters_, gone);
        std::erase_if(joiners_, gone);
    }

private:
    struct Waiter {
        std::shared_ptr<ParkedCall> call;
        Caller caller;
        Object item{};    // of a putter
    };
    using Waiters = std::deque<Waiter>;

    // Whether a call may wait, and until when.
    static std::optional<std::int64_t> patience(const Object* block, const Object* timeout) {
        if (block != nullptr && !truth(*block)) return std::nullopt;
        if (timeout != nullptr && !timeout->is_none() && timeout->as_float() < 0) {
            raise("ValueError", "'timeout' must be a non-negative number");
        }
        return deadline_of(timeout);
    }

    static std::exception_ptr empty_error() { return std::make_exception_ptr(PythonException("_queue", "Empty", {})); }
    static std::exception_ptr full_error() { return std::make_exception_ptr(PythonException("queue", "Full", {})); }

    Reply empty(Call& call) {
        call.bind({}, 0);
        const std::lock_guard guard(mutex_);
        return Object(items_.empty());
    }

    Reply full(Call& call) {
        call.bind({}, 0);
        const std::lock_guard guard(mutex_);
        return Object(items_.size() >= most_);
    }

    Reply qsize(Call& call) {
        call.bind({}, 0);
        const std::lock_guard guard(mutex_);
        return Object(items_.size());
    }

    Reply get(Call& call) {
        const auto args = call.bind({"block", "timeout"}, 0);
        return take(call, patience(args[0], args[1]));
    }

    Reply get_nowait(Call& call) {
        call.bind({}, 0);
        return take(call, std::nullopt);
    }

    Reply take(Call& call, std::optional<std::int64_t> deadline) {
        if (deadline) call.context.tell_end_to(shared_from_this());
        Answers answers;
        const std::lock_guard guard(mutex_);
        if (!items_.empty()) {
            Object item = pop();
            let_putters_in(answers);
            return item;
        }
        if (!deadline) std::rethrow_exception(empty_error());
        park(call, *deadline, &QueueReferent::getters_, {});
        return Parked{};
    }

    Reply put(Call& call) {
        const auto args = call.bind({"item", "block", "timeout"}, 1);
        return give(call, std::move(*args[0]), patience(args[1], args[2]));
    }

    Reply put_nowait(Call& call) { return give(call, std::move(*call.bind({"item"}, 1)[0]), std::nullopt); }

    Reply give(Call& call, Object item, std::optional<std::int64_t> deadline) {
        if (deadline) call.context.tell_end_to(shared_from_this());
        Answers answers;
        const std::lock_guard guard(mutex_);
        if (items_.size() < most_) {
            push(std::move(item));
            serve_getters(answers);
            return Object();
        }
        if (!deadline) std::rethrow_exception(full_error());
        park(call, *deadline, &QueueReferent::putters_, std::move(item));
        return Parked{};
    }

    Reply task_done(Call& call) {
        call.bind({}, 0);
        Answers answers;
        const std::lock_guard guard(mutex_);
        if (unfinished_ == 0) raise("ValueError", "task_done() called too many times");
        if (--unfinished_ > 0) return Object();
        for (Waiter& joiner : joiners_) {
            if (joiner.call->claim()) answers.add(std::move(joiner.call), Object());
        }
        joiners_.clear();
        return Object();
    }

    Reply join(Call& call) {
        call.bind({}, 0);
        call.context.tell_end_to(shared_from_this());
        const std::lock_guard guard(mutex_);
        if (unfinished_ == 0) return Object();
        park(call, os::kNever, &QueueReferent::joiners_, {});
        return Parked{};
    }

    void park(Call& call, std::int64_t deadline, Waiters QueueReferent::*waiters, Object item) {
        const auto self = std::static_pointer_cast<QueueReferent>(shared_from_this());
        const Caller caller = call.context.caller();
        auto parked = call.context.park(deadline, [self, caller, waiters] { self->expire(caller, waiters); });
        (this->*waiters).push_back({std::move(parked), caller, std::move(item)});
    }

    void expire(const Caller& caller, Waiters QueueReferent::*waiters) {
        Answers answers;
        const std::lock_guard guard(mutex_);
        Waiters& all = this->*waiters;
        const auto waiter = std::ranges::find_if(all, [&](const Waiter& each) { return each.caller == caller; });
        if (waiter == all.end()) return;
        if (waiter->call->claim()) {
            answers.add(waiter->call, waiters == &QueueReferent::getters_ ? empty_error() : full_error());
        }
        all.erase(waiter);
    }

    void serve_getters(Answers& answers) {
        while (!items_.empty() && !getters_.empty()) {
            Waiter getter = std::move(getters_.front());
            getters_.pop_front();
            if (getter.call->claim()) answers.add(std::move(getter.call), pop());
        }
    }

    void let_putters_in(Answers& answers) {
        while (items_.size() < most_ && !putters_.empty()) {
            Waiter putter = std::move(putters_.front());
            putters_.pop_front();
            if (!putter.call->claim()) continue;
            push(std::move(putter.item));
            answers.add(std::move(putter.call), Object());
        }
    }

    static bool later(const Object& left, const Object& right) { return right < left; }

    // Each element put is a task to be done. An element that can't be compared with the others leaves the queue as it was.
    void push(Object item) {
        if (order_ == Order::priority) {
            // A sorted line: comparing may throw, and a heap would be left in disorder.
            const auto place = std::upper_bound(items_.begin(), items_.end(), item, later);
            items_.insert(place, std::move(item));
        } else {
            items_.push_back(std::move(item));
        }
        ++unfinished_;
    }

    Object pop() {
        Object item;
        if (order_ == Order::fifo) {
            item = std::move(items_.front());
            items_.pop_front();
        } else {
            item = std::move(items_.back());
            items_.pop_back();
        }
        return item;
    }

    const Order order_;
    std::mutex mutex_;
    std::size_t most_ = 0;
    std::deque<Object> items_;    // of a PriorityQueue: the least one last
    std::uint64_t unfinished_ = 0;
    Waiters getters_;
    Waiters putters_;
    Waiters joiners_;
};

ManagerType queue_type(std::string name, Order order) {
    return {.name = std::move(name), .exposed = QueueReferent::methods().names(), .create = [order](Call& call) {
                return std::make_shared<QueueReferent>(call, order);
            }};
}

}    // namespace

void add_queue_types(ManagerTypes& types) {
    types.add(queue_type("Queue", Order::fifo));
    types.add(queue_type("JoinableQueue", Order::fifo));
    types.add(queue_type("LifoQueue", Order::lifo));
    types.add(queue_type("PriorityQueue", Order::priority));
}

}    // namespace multihull::detail
