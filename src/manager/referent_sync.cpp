// Semaphore, BoundedSemaphore, Event and Barrier as referents.
//
// Thread-safe: each has a lock of its own. Nobody answers a client while he holds it.
//
// Invariants
// (1) Waiters are served in the order in which they came. One whose call is claimed by someone else (it timed out, its client ended) is
//     dropped when its turn comes, and the next one has it.
// (2) Whoever holds something has asked to be told of his caller's end before he could get it.
#include "manager/waiters.hpp"

#include "os/clock.hpp"

#include <deque>
#include <iterator>
#include <limits>
#include <map>
#include <mutex>

namespace multihull::detail {

namespace {

class SemaphoreReferent : public ReferentOf<SemaphoreReferent> {
public:
    SemaphoreReferent(Call& call, bool bounded) : bounded_(bounded) {
        const auto args = call.bind({"value"}, 0);
        value_ = args[0] == nullptr ? 1 : args[0]->as_int();
        if (value_ < 0) raise("ValueError", "semaphore initial value must be >= 0");
        initial_ = value_;
    }

    static const Methods<SemaphoreReferent>& methods() {
        using S = SemaphoreReferent;
        static const Methods<S> methods{{"acquire", &S::acquire},
                                        {"release", &S::release},
                                        {"__enter__", &S::acquire},
                                        {"__exit__", &S::exit}};
        return methods;
    }

    std::string repr() override {
        const std::lock_guard guard(mutex_);
        const std::string value = "value=" + std::to_string(value_);
        return bounded_ ? "<BoundedSemaphore: " + value + "/" + std::to_string(initial_) + ">"
                        : "<Semaphore: " + value + ">";
    }

    Object value() override { raise("TypeError", "cannot pickle a semaphore"); }

    // Threads may release what another has acquired, so permits belong to the process.
    void caller_ended(const Caller& caller, bool process_ended) override {
        Answers answers;
        const std::lock_guard guard(mutex_);
        drop_waiters(waiters_, caller, process_ended);
        if (!process_ended) return;
        const auto holder = holders_.find(caller.process);
        if (holder == holders_.end()) return;
        value_ += holder->second;
        holders_.erase(holder);
        pass_on(answers);
    }

    // It did not die with them: as with Python's, a permit may be used up by one process and made by another.
    void let_go(std::uint64_t process) override {
        const std::lock_guard guard(mutex_);
        holders_.erase(process);
    }

private:
    Reply acquire(Call& call) {
        const auto args = call.bind({"blocking", "timeout"}, 0);
        const bool blocks = args[0] == nullptr || truth(*args[0]);
        const bool limited = args[1] != nullptr && !args[1]->is_none();
        if (!blocks && limited) raise("ValueError", "can't specify timeout for non-blocking acquire");
        const std::int64_t deadline = deadline_of(args[1]);
        const Caller caller = call.context.caller();
        call.context.tell_end_to(shared_from_this());
        const std::lock_guard guard(mutex_);
        if (value_ > 0) {
            --value_;
            ++holders_[caller.process];
            return Object(true);
        }
        if (!blocks) return Object(false);
        const auto self = std::static_pointer_cast<SemaphoreReferent>(shared_from_this());
        auto parked = call.context.park(deadline, [self, caller] { self->expire(caller); });
        waiters_.push_back({std::move(parked), caller});
        return Parked{};
    }

    Reply release(Call& call) {
        const auto args = call.bind({"n"}, 0);
        return release(call.context.caller(), args[0] == nullptr ? 1 : args[0]->as_int());
    }

    Reply exit(Call& call) { return release(call.context.caller(), 1); }

    Reply release(const Caller& caller, std::int64_t count) {
        if (count < 1) raise("ValueError", "n must be one or more");
        Answers answers;
        const std::lock_guard guard(mutex_);
        if (count > std::numeric_limits<std::int64_t>::max() - value_) {
            raise("OverflowError", "a semaphore can't have that many permits");
        }
        if (bounded_ && value_ + count > initial_) raise("ValueError", "Semaphore released too many times");
        // One's own first, then whoever's: what is free and what is held are never more than there are, whoever dies.
        std::int64_t left = count;
        const auto take_from = [&](auto holder) {
            const std::int64_t taken = std::min(left, holder->second);
            left -= taken;
            holder->second -= taken;
            return holder->second == 0 ? holders_.erase(holder) : std::next(holder);
        };
        if (const auto own = holders_.find(caller.process); own != holders_.end()) take_from(own);
        for (auto holder = holders_.begin(); left > 0 && holder != holders_.end();) holder = take_from(holder);
        value_ += count;
        pass_on(answers);
        return Object();
    }

    void expire(const Caller& caller) {
        Answers answers;
        const std::lock_guard guard(mutex_);
        const auto waiter = take_waiter(waiters_, caller);
        if (waiter && waiter->call->claim()) answers.add(waiter->call, Object(false));
    }

    void pass_on(Answers& answers) {
        while (value_ > 0 && !waiters_.empty()) {
            Waiter next = std::move(waiters_.front());
            waiters_.pop_front();
            if (!next.call->claim()) continue;
            --value_;
            ++holders_[next.caller.process];
            answers.add(std::move(next.call), Object(true));
        }
    }

    const bool bounded_;
    std::mutex mutex_;
    std::int64_t initial_ = 1;
    std::int64_t value_ = 1;
    std::map<std::uint64_t, std::int64_t> holders_;    // permits by process
    std::deque<Waiter> waiters_;
};

class EventReferent : public ReferentOf<EventReferent> {
public:
    explicit EventReferent(Call& call) { call.bind({}, 0); }

    static const Methods<EventReferent>& methods() {
        using E = EventReferent;
        static const Methods<E> methods{{"is_set", &E::is_set},
                                        {"set", &E::set},
                                        {"clear", &E::clear},
                                        {"wait", &E::wait}};
        return methods;
    }

    std::string repr() override {
        const std::lock_guard guard(mutex_);
        return set_ ? "<Event: set>" : "<Event: unset>";
    }

    Object value() override { raise("TypeError", "cannot pickle an event"); }

    void caller_ended(const Caller& caller, bool process_ended) override {
        const std::lock_guard guard(mutex_);
        drop_waiters(waiters_, caller, process_ended);
    }

private:
    Reply is_set(Call& call) {
        call.bind({}, 0);
        const std::lock_guard guard(mutex_);
        return Object(set_);
    }

    Reply set(Call& call) {
        call.bind({}, 0);
        Answers answers;
        const std::lock_guard guard(mutex_);
        set_ = true;
        for (Waiter& waiter : waiters_) {
            if (waiter.call->claim()) answers.add(std::move(waiter.call), Object(true));
        }
        waiters_.clear();
        return Object();
    }

    Reply clear(Call& call) {
        call.bind({}, 0);
        const std::lock_guard guard(mutex_);
        set_ = false;
        return Object();
    }

    Reply wait(Call& call) {
        const std::int64_t deadline = deadline_of(call.bind({"timeout"}, 0)[0]);
        const Caller caller = call.context.caller();
        call.context.tell_end_to(shared_from_this());
        const std::lock_guard guard(mutex_);
        if (set_) return Object(true);
        const auto self = std::static_pointer_cast<EventReferent>(shared_from_this());
        auto parked = call.context.park(deadline, [self, caller] { self->expire(caller); });
        waiters_.push_back({std::move(parked), caller});
        return Parked{};
    }

    void expire(const Caller& caller) {
        Answers answers;
        const std::lock_guard guard(mutex_);
        const auto waiter = take_waiter(waiters_, caller);
        if (waiter && waiter->call->claim()) answers.add(waiter->call, Object(false));
    }

    std::mutex mutex_;
    bool set_ = false;
    std::deque<Waiter> waiters_;
};

class BarrierReferent : public ReferentOf<BarrierReferent> {
public:
    explicit BarrierReferent(Call& call) {
        const auto args = call.bind({"parties", "action", "timeout"}, 1);
        parties_ = args[0]->as_int();
        if (parties_ < 1) raise("ValueError", "parties must be > 0");
        if (args[1] != nullptr && !args[1]->is_none()) {
            raise("TypeError", "an action can't be called in this server: the client whose wait() is 0 can do it");
        }
        if (args[2] != nullptr) timeout_ = std::move(*args[2]);
    }

    static const Methods<BarrierReferent>& methods() {
        using B = BarrierReferent;
        static const Methods<B> methods{{"__getattribute__", &B::get}, {"wait", &B::wait},
                                        {"abort", &B::abort},          {"reset", &B::reset},
                                        {"parties", &B::parties},      {"n_waiting", &B::n_waiting},
                                        {"broken", &B::broken}};
        return methods;
    }

    std::string repr() override {
        const std::lock_guard guard(mutex_);
        return broken_ ? "<Barrier: broken>"
                       : "<Barrier: waiters=" + std::to_string(waiters_.size()) + "/" + std::to_string(parties_) + ">";
    }

    Object value() override { raise("TypeError", "cannot pickle a barrier"); }

    // Who waited and has died would be missing: the others must not wait for it.
    void caller_ended(const Caller& caller, bool process_ended) override {
        Answers answers;
        const std::lock_guard guard(mutex_);
        const std::size_t before = waiters_.size();
        drop_waiters(waiters_, caller, process_ended);
        if (waiters_.size() != before) break_it(answers);
    }

private:
    static std::exception_ptr broken_error() {
        return std::make_exception_ptr(PythonException("threading", "BrokenBarrierError", {}));
    }

    // Python's proxy asks for attributes; one that Python makes up by itself can only call methods.
    Reply get(Call& call) {
        const std::string name = call.bind({"name"}, 1)[0]->as_str();
        call.args.clear();
        if (name == "parties") return parties(call);
        if (name == "n_waiting") return n_waiting(call);
        if (name == "broken") return broken(call);
        raise("AttributeError", "'Barrier' object has no attribute '" + name + "'");
    }

    Reply parties(Call& call) {
        call.bind({}, 0);
        return Object(parties_);
    }

    Reply n_waiting(Call& call) {
        call.bind({}, 0);
        const std::lock_guard guard(mutex_);
        return Object(waiters_.size());
    }

    Reply broken(Call& call) {
        call.bind({}, 0);
        const std::lock_guard guard(mutex_);
        return Object(broken_);
    }

    Reply wait(Call& call) {
        const auto args = call.bind({"timeout"}, 0);
        const Object* const timeout = args[0] == nullptr || args[0]->is_none() ? &timeout_ : args[0];
        const std::int64_t deadline = deadline_of(timeout);
        const Caller caller = call.context.caller();
        call.context.tell_end_to(shared_from_this());
        Answers answers;
        const std::lock_guard guard(mutex_);
        if (broken_) std::rethrow_exception(broken_error());
        if (static_cast<std::int64_t>(waiters_.size()) + 1 == parties_) {
            std::int64_t index = 0;
            for (Waiter& waiter : waiters_) {
                if (waiter.call->claim()) answers.add(std::move(waiter.call), Object(index));
                ++index;
            }
            waiters_.clear();
            return Object(index);
        }
        const auto self = std::static_pointer_cast<BarrierReferent>(shared_from_this());
        auto parked = call.context.park(deadline, [self, caller] { self->expire(caller); });
        waiters_.push_back({std::move(parked), caller});
        return Parked{};
    }

    void expire(const Caller& caller) {
        Answers answers;
        const std::lock_guard guard(mutex_);
        if (std::ranges::any_of(waiters_, [&](const Waiter& each) { return each.caller == caller; })) {
            break_it(answers);
        }
    }

    void fail_waiters(Answers& answers) {
        for (Waiter& waiter : waiters_) {
            if (waiter.call->claim()) answers.add(std::move(waiter.call), broken_error());
        }
        waiters_.clear();
    }

    void break_it(Answers& answers) {
        broken_ = true;
        fail_waiters(answers);
    }

    Reply abort(Call& call) {
        call.bind({}, 0);
        Answers answers;
        const std::lock_guard guard(mutex_);
        break_it(answers);
        return Object();
    }

    Reply reset(Call& call) {
        call.bind({}, 0);
        Answers answers;
        const std::lock_guard guard(mutex_);
        broken_ = false;
        fail_waiters(answers);
        return Object();
    }

    std::mutex mutex_;
    std::int64_t parties_ = 1;
    Object timeout_;
    bool broken_ = false;
    std::deque<Waiter> waiters_;
};

ManagerType semaphore_type(std::string name, bool bounded) {
    return {.name = std::move(name), .exposed = SemaphoreReferent::methods().names(), .create = [bounded](Call& call) {
                return std::make_shared<SemaphoreReferent>(call, bounded);
            }};
}

}    // namespace

void add_sync_types(ManagerTypes& types) {
    types.add(semaphore_type("Semaphore", false));
    types.add(semaphore_type("BoundedSemaphore", true));
    types.add(type_of<EventReferent>("Event"));
    types.add(type_of<BarrierReferent>("Barrier"));
    // A pool's tasks are functions, which a pickle must never be able to name.
    types.add({.name = "Pool", .exposed = {}, .create = [](Call&) -> std::shared_ptr<Referent> {
                   raise("NotImplementedError",
                         "this server runs no Python, so it has no Pool: make the pool in the client");
               }});
}

}    // namespace multihull::detail
