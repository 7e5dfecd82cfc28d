// Lock, RLock and Condition as referents.
//
// Thread-safe: each has a lock of its own, which a Condition shares with its Lock. Nobody answers a client while he holds it.
//
// Invariants
// (1) Waiters are served in the order in which they came. One whose call is claimed by someone else (it timed out, its client ended) is
//     dropped when its turn comes, and the next one has it.
// (2) Whoever holds something has asked to be told of his caller's end before he could get it.
#include "manager/waiters.hpp"

#include "os/clock.hpp"

#include <deque>
#include <limits>
#include <mutex>

namespace multihull::detail {

namespace {

/// How long a call may wait: not at all, until a deadline, or for ever.
struct Patience {
    bool waits = true;
    std::int64_t deadline = os::kNever;
};

// acquire(blocking, timeout) of locks, where a timeout of -1 means none.
Patience lock_patience(const Object* blocking, const Object* timeout) {
    const bool blocks = blocking == nullptr || truth(*blocking);
    const bool limited = timeout != nullptr && !timeout->is_none() && timeout->as_float() != -1;
    if (!blocks && limited) raise("ValueError", "can't specify a timeout for a non-blocking call");
    if (!limited) return {.waits = blocks};
    if (timeout->as_float() < 0) raise("ValueError", "timeout value must be a non-negative number");
    return {.deadline = deadline_of(timeout)};
}

class LockReferent : public ReferentOf<LockReferent> {
public:
    explicit LockReferent(bool recursive) : recursive_(recursive) {}

    static const Methods<LockReferent>& methods() {
        using L = LockReferent;
        static const Methods<L> methods{{"acquire", &L::acquire},
                                        {"release", &L::release},
                                        {"__enter__", &L::acquire},
                                        {"__exit__", &L::exit}};
        return methods;
    }

    std::string repr() override {
        const std::lock_guard guard(mutex_);
        return std::string("<") + (depth_ == 0 ? "unlocked" : "locked") + (recursive_ ? " RLock" : " Lock") + ">";
    }

    Object value() override { raise("TypeError", "cannot pickle a lock"); }

    void caller_ended(const Caller& caller, bool process_ended) override {
        Answers answers;
        const std::lock_guard guard(mutex_);
        drop_waiters(waiters_, caller, process_ended);
        if (depth_ == 0) return;
        // A Lock may still be released by another thread of that process, an RLock by none.
        // One that was let go has nobody's number.
        const bool orphaned = process_ended ? owner_.process == caller.process : recursive_ && owner_ == caller;
        if (orphaned) pass_on(answers);
    }

    // It did not die with it: as with Python's, another process may release a Lock. An RLock is released by nobody else.
    void let_go(std::uint64_t process) override {
        const std::lock_guard guard(mutex_);
        if (!recursive_ && owner_.process == process) owner_ = {};
    }

    // The rest is for Condition, too, which holds mutex().

    std::mutex& mutex() noexcept { return mutex_; }

    bool held_by(const Caller& caller) const noexcept { return depth_ != 0 && (!recursive_ || owner_ == caller); }

    Reply acquire(Call& call) {
        const auto args = call.bind({"blocking", "timeout"}, 0);
        const Patience patience = lock_patience(args[0], args[1]);
        const Caller caller = call.context.caller();
        call.context.tell_end_to(shared_from_this());
        const std::lock_guard guard(mutex_);
        if (depth_ == 0) {
            owner_ = caller;
            depth_ = 1;
            return Object(true);
        }
        if (recursive_ && owner_ == caller) {
            ++depth_;
            return Object(true);
        }
        if (!patience.waits) return Object(false);
        wait(call.context, caller, patience.deadline);
        return Parked{};
    }

    Reply release(Call& call) {
        call.bind({}, 0);
        return release(call.context.caller());
    }

    Reply exit(Call& call) { return release(call.context.caller()); }

    // Gives it up wholly, to get it back by get_back(); answers how deep it was held.
    std::size_t give_up(Answers& answers) {
        const std::size_t depth = depth_;
        pass_on(answers);
        return depth;
    }

    // Once the lock is this waiter's, answers it.
    void get_back(Waiter waiter, std::size_t depth, bool answer, Answers& answers) {
        waiters_.push_back({std::move(waiter), depth, answer});
        if (depth_ == 0) pass_on(answers);
    }

private:
    struct LockWaiter : Waiter {
        std::size_t depth = 1;
        bool answer = true;
    };

    Reply release(const Caller& caller) {
        Answers answers;
        const std::lock_guard guard(mutex_);
        if (recursive_ ? !held_by(caller) : depth_ == 0) {
            raise("RuntimeError", recursive_ ? "cannot release un-acquired lock" : "release unlocked lock");
        }
        if (--depth_ == 0) pass_on(answers);
        return Object();
    }

    void wait(CallContext& context, const Caller& caller, std::int64_t deadline) {
        const auto self = std::static_pointer_cast<LockReferent>(shared_from_this());
        const auto parked = context.park(deadline, [self, caller] { self->expire(caller); });
        waiters_.push_back({{parked, caller}});
    }

    void expire(const Caller& caller) {
        Answers answers;
        const std::lock_guard guard(mutex_);
        const auto waiter = take_waiter(waiters_, caller);
        if (waiter && waiter->call->claim()) answers.add(waiter->call, Object(false));
    }

    void pass_on(Answers& answers) {
        depth_ = 0;
        while (!waiters_.empty() && depth_ == 0) {
            LockWaiter next = std::move(waiters_.front());
            waiters_.pop_front();
            if (!next.call->claim()) continue;
            owner_ = next.caller;
            depth_ = next.depth;
            answers.add(std::move(next.call), Object(next.answer));
        }
    }

    const bool recursive_;
    std::mutex mutex_;
    Caller owner_;
    std::size_t depth_ = 0;    // 0: free
    std::deque<LockWaiter> waiters_;
};

class ConditionReferent : public ReferentOf<ConditionReferent> {
public:
    explicit ConditionReferent(Call& call) {
        const auto args = call.bind({"lock"}, 0);
        if (args[0] == nullptr || args[0]->is_none()) {
            lock_ = std::make_shared<LockReferent>(true);
            return;
        }
        lock_ = std::dynamic_pointer_cast<LockReferent>(call.context.referent_of(*args[0]));
        if (lock_ == nullptr) raise("TypeError", "a Condition's lock must be a Lock or an RLock of this server");
    }

    static const Methods<ConditionReferent>& methods() {
        using C = ConditionReferent;
        static const Methods<C> methods{
            {"acquire", &C::acquire},       {"release", &C::release},   {"wait", &C::wait},    {"notify", &C::notify},
            {"notify_all", &C::notify_all}, {"__enter__", &C::acquire}, {"__exit__", &C::exit}};
        return methods;
    }

    std::string repr() override {
        const std::string lock = lock_->repr();
        const std::lock_guard guard(lock_->mutex());
        return "<Condition(" + lock + ", " + std::to_string(waiters_.size()) + ")>";
    }

    Object value() override { raise("TypeError", "cannot pickle a condition"); }

    void caller_ended(const Caller& caller, bool process_ended) override {
        {
            const std::lock_guard guard(lock_->mutex());
            drop_waiters(waiters_, caller, process_ended);
        }
        lock_->caller_ended(caller, process_ended);
    }

private:
    struct ConditionWaiter : Waiter {
        std::size_t depth = 1;
    };

    Reply acquire(Call& call) { return lock_->acquire(call); }
    Reply release(Call& call) { return lock_->release(call); }
    Reply exit(Call& call) { return lock_->exit(call); }

    Reply wait(Call& call) {
        const auto args = call.bind({"timeout"}, 0);
        const std::int64_t deadline = deadline_of(args[0]);
        const Caller caller = call.context.caller();
        call.context.tell_end_to(shared_from_this());
        Answers answers;
        const std::lock_guard guard(lock_->mutex());
        if (!lock_->held_by(caller)) raise("RuntimeError", "cannot wait on un-acquired lock");
        const auto self = std::static_pointer_cast<ConditionReferent>(shared_from_this());
        auto parked = call.context.park(deadline, [self, caller] { self->expire(caller); });
        const std::size_t depth = lock_->give_up(answers);
        waiters_.push_back({{std::move(parked), caller}, depth});
        return Parked{};
    }

    void expire(const Caller& caller) {
        Answers answers;
        const std::lock_guard guard(lock_->mutex());
        auto waiter = take_waiter(waiters_, caller);
        if (!waiter) return;    // notified in time: it waits for the lock
        const std::size_t depth = waiter->depth;
        lock_->get_back(std::move(*waiter), depth, false, answers);
    }

    Reply notify(Call& call) {
        const auto args = call.bind({"n"}, 0);
        return wake(call, args[0] == nullptr ? 1 : args[0]->as_int());
    }

    Reply notify_all(Call& call) {
        call.bind({}, 0);
        return wake(call, std::numeric_limits<std::int64_t>::max());
    }

    Reply wake(Call& call, std::int64_t count) {
        Answers answers;
        const std::lock_guard guard(lock_->mutex());
        if (!lock_->held_by(call.context.caller())) raise("RuntimeError", "cannot notify on un-acquired lock");
        for (; count > 0 && !waiters_.empty(); --count) {
            ConditionWaiter woken = std::move(waiters_.front());
            waiters_.pop_front();
            lock_->get_back(std::move(woken), woken.depth, true, answers);
        }
        return Object();
    }

    std::shared_ptr<LockReferent> lock_;
    std::deque<ConditionWaiter> waiters_;    // under the lock's mutex
};

ManagerType lock_type(std::string name, bool recursive) {
    return {.name = std::move(name), .exposed = LockReferent::methods().names(), .create = [recursive](Call& call) {
                call.bind({}, 0);
                return std::make_shared<LockReferent>(recursive);
            }};
}

}    // namespace

void add_lock_types(ManagerTypes& types) {
    types.add(lock_type("Lock", false));
    types.add(lock_type("RLock", true));
    types.add(type_of<ConditionReferent>("Condition"));
}

}    // namespace multihull::detail
