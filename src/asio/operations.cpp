#include <multihull/asio/operations.hpp>

#include "process/self.hpp"

#include <array>
#include <atomic>
#include <new>
#include <utility>

namespace multihull::asio::detail {

namespace {

// Few contexts share many lists' locks, so that a forked child, where another thread may have held one, can have them made anew.
std::array<std::mutex, 16> the_locks;
std::atomic<std::size_t> next_lock{0};

const multihull::detail::ForkChildHook kNewLocks([] {
    for (std::mutex& lock : the_locks) new (&lock) std::mutex;
});

std::mutex& choose_lock() {
    multihull::detail::watch_forks();
    return the_locks[next_lock.fetch_add(1, std::memory_order_relaxed) % the_locks.size()];
}

}    // namespace

Operations::Operations() : mutex_(choose_lock()), generation_(multihull::detail::fork_generation()) {}

// Needs mutex_. In a forked child the list may have been cut in the middle of a change: it begins anew.
void Operations::forget_parents() noexcept {
    const std::uint32_t current = multihull::detail::fork_generation();
    if (std::exchange(generation_, current) != current) first_ = nullptr;
}

bool Operations::add(std::shared_ptr<WaitingOperation> operation) {
    const std::lock_guard guard(mutex_);
    forget_parents();
    if (shut_) return false;
    WaitingOperation& entry = *operation;
    entry.generation_ = generation_;
    entry.previous_ = nullptr;
    entry.next_ = first_;
    if (first_ != nullptr) first_->previous_ = &entry;
    first_ = &entry;
    entry.self_ = std::move(operation);
    return true;
}

// Needs mutex_.
std::shared_ptr<WaitingOperation> Operations::unlink(WaitingOperation& operation) noexcept {
    (operation.previous_ != nullptr ? operation.previous_->next_ : first_) = operation.next_;
    if (operation.next_ != nullptr) operation.next_->previous_ = operation.previous_;
    return std::move(operation.self_);
}

void Operations::shut_down() noexcept {
    for (;;) {
        std::shared_ptr<WaitingOperation> operation;
        {
            const std::lock_guard guard(mutex_);
            shut_ = true;
            forget_parents();
            if (first_ == nullptr) return;
            operation = unlink(*first_);
        }
        // What the handler owned may end other operations, or try to begin some.
        operation->drop();
    }
}

}    // namespace multihull::asio::detail
