// The operations that wait for something outside of their event loop.
//
// Thread-safe: any thread may end an operation's wait. Knows no Asio: it is the same for standalone Asio and Boost's.
//
// Invariants
// (1) An operation is in its list exactly while it waits. Whoever takes it out, under the list's lock, decides what becomes of it: it
//     is posted to its executor, or dropped because its execution context ends.
// (2) Posting happens under the lock, and shut_down() takes it: nothing is posted to a context that is gone.
// (3) No handler runs, and none is destroyed, under the lock.
// (4) A forked child has none of its parent's operations: their handlers are the parent's to call, and are neither called nor
//     destroyed in the child.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>

namespace multihull::asio::detail {

class Operations;

/// One operation, as its list sees it.
class WaitingOperation {
public:
    WaitingOperation() = default;
    WaitingOperation(const WaitingOperation&) = delete;
    WaitingOperation& operator=(const WaitingOperation&) = delete;
    virtual ~WaitingOperation() = default;

private:
    friend class Operations;
    /// Destroys the handler without calling it.
    virtual void drop() noexcept = 0;

    std::shared_ptr<WaitingOperation> self_;    // while it waits
    std::uint32_t generation_ = 0;              // of the process that it waits in
    WaitingOperation* next_ = nullptr;
    WaitingOperation* previous_ = nullptr;
};

/// Those of one execution context.
class Operations {
public:
    Operations();
    Operations(const Operations&) = delete;
    Operations& operator=(const Operations&) = delete;
    ~Operations() = default;

    /// From now on it waits. False when the context has been shut down.
    bool add(std::shared_ptr<WaitingOperation> operation);
    /// Ends its wait, and calls `then` with the lock held; false when it did not wait any more.
    template <class Then>
    bool remove(WaitingOperation& operation, Then then) {
        std::shared_ptr<WaitingOperation> self;    // let go of without the lock
        const std::lock_guard guard(mutex_);
        if (!waits_here(operation)) return false;
        self = unlink(operation);
        then();
        return true;
    }
    /// Calls `then` with the lock held where the operation waits.
    template <class Then>
    void if_waiting(const WaitingOperation& operation, Then then) {
        const std::lock_guard guard(mutex_);
        if (waits_here(operation)) then();
    }
    /// Drops all that wait, and takes no more.
    void shut_down() noexcept;

private:
    void forget_parents() noexcept;
    bool waits_here(const WaitingOperation& operation) noexcept {
        forget_parents();
        return operation.self_ != nullptr && operation.generation_ == generation_;
    }
    std::shared_ptr<WaitingOperation> unlink(WaitingOperation& operation) noexcept;

    std::mutex& mutex_;
    std::uint32_t generation_;    // of the process that the operations belong to
    WaitingOperation* first_ = nullptr;
    bool shut_ = false;
};

}    // namespace multihull::asio::detail
