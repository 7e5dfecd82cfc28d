// Who waits for which tasks, over all of the program's waits.
//
// Thread-safe. A task's callback can't be taken back, so each task has one at most, for as long as it runs; it wakes whoever waits
// then, and what waits no more has left nothing behind.
#pragma once

#include <multihull/detail/completion.hpp>

#include <atomic>
#include <cstdint>
#include <mutex>
#include <unordered_map>
#include <utility>
#include <vector>

namespace multihull::detail {

/// Told of tasks that may have ended.
class TaskListener {
public:
    /// With the lock of all waits held: it must be short, and wait for nothing. Where the task turns out not to have ended, what told
    /// was the callback of an earlier task in the same place, which has gone with it: add() again.
    virtual void task_done(std::uint64_t tag) noexcept = 0;

protected:
    ~TaskListener() = default;
};

class FutureWaits {
public:
    using Key = std::pair<Completion*, std::uint32_t>;

    static FutureWaits& instance();
    /// In a forked child: it has no futures, and the lock may be held for ever.
    static void after_fork() noexcept;

    /// Has the listener told once; perhaps before this returns. Once more with the same tag changes nothing.
    void add(const Key& key, TaskListener& listener, std::uint64_t tag);
    /// It is not told any more when this has returned.
    void remove(const Key& key, const TaskListener& listener) noexcept;

private:
    struct Hash {
        std::size_t operator()(const Key& key) const noexcept {
            return (reinterpret_cast<std::uintptr_t>(key.first) >> 4) * 0x9e3779b97f4a7c15U + key.second;
        }
    };
    using Entry = std::vector<std::pair<TaskListener*, std::uint64_t>>;

    void done(const Key& key) noexcept;

    std::mutex mutex_;
    std::unordered_map<Key, Entry, Hash> entries_;    // of tasks that have a callback
};

}    // namespace multihull::detail
