// The tasks of one wait() or as_completed().
#pragma once

#include <multihull/future.hpp>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

namespace multihull::detail {

/// Of each future: the task it names.
struct FutureAccess {
    template <class T>
    static const std::shared_ptr<Completion>& completion(const Future<T>& future) {
        static_cast<void>(future.completion());    // throws where there is none
        return future.completion_;
    }
    template <class T>
    static std::uint32_t task(const Future<T>& future) noexcept {
        return future.task_;
    }
};

/// Many tasks, and which of them have ended, in the order in which they did. Used by one thread.
class FutureGroup {
public:
    FutureGroup();
    FutureGroup(FutureGroup&&) noexcept;
    FutureGroup& operator=(FutureGroup&&) noexcept;
    ~FutureGroup();

    /// Adds a task; false where it is a member already. Members count from 0.
    template <class T>
    bool add(const Future<T>& future) {
        return add(FutureAccess::completion(future), FutureAccess::task(future));
    }
    bool add(std::shared_ptr<Completion> completion, std::uint32_t task);
    /// How many members there are.
    std::size_t size() const noexcept;
    /// The next member that has ended, those first that had when it was first asked. Empty when the deadline has passed, or when
    /// all were told.
    std::optional<std::size_t> next(std::int64_t deadline_ns);
    /// Whether this member, which has ended, failed otherwise than by being cancelled.
    bool failed(std::size_t member) const;
    /// Waits until all have ended; false when the deadline has passed.
    bool wait_all(std::int64_t deadline_ns) const;
    bool ready(std::size_t member) const noexcept;

private:
    struct State;
    std::unique_ptr<State> state_;
};

}    // namespace multihull::detail
