#include "pool/future_waits.hpp"

#include "process/self.hpp"

#include <algorithm>

namespace multihull::detail {

namespace {

constinit std::atomic<FutureWaits*> the_waits{nullptr};
const ForkChildHook kForgetWaits(&FutureWaits::after_fork);

}    // namespace

FutureWaits& FutureWaits::instance() {
    FutureWaits* current = the_waits.load(std::memory_order_acquire);
    if (current != nullptr) return *current;
    auto* const fresh = new FutureWaits;
    if (the_waits.compare_exchange_strong(current, fresh, std::memory_order_acq_rel)) return *fresh;
    delete fresh;
    return *current;
}

void FutureWaits::after_fork() noexcept { the_waits.store(nullptr); }

void FutureWaits::add(const Key& key, TaskListener& listener, std::uint64_t tag) {
    {
        const std::lock_guard guard(mutex_);
        const auto [entry, is_new] = entries_.try_emplace(key);
        const std::pair<TaskListener*, std::uint64_t> who(&listener, tag);
        if (std::ranges::find(entry->second, who) == entry->second.end()) entry->second.push_back(who);
        if (!is_new) return;
    }
    // Without the lock: a task that has ended calls back at once.
    try {
        key.first->on_done(key.second, [key] { instance().done(key); });
    } catch (...) {
        const std::lock_guard guard(mutex_);
        entries_.erase(key);
        throw;
    }
}

void FutureWaits::remove(const Key& key, const TaskListener& listener) noexcept {
    const std::lock_guard guard(mutex_);
    const auto entry = entries_.find(key);
    if (entry != entries_.end()) std::erase_if(entry->second, [&](const auto& who) { return who.first == &listener; });
}

void FutureWaits::done(const Key& key) noexcept {
    const std::lock_guard guard(mutex_);
    const auto entry = entries_.find(key);
    if (entry == entries_.end()) return;
    for (const auto& [listener, tag] : entry->second) listener->task_done(tag);
    entries_.erase(entry);
}

}    // namespace multihull::detail
