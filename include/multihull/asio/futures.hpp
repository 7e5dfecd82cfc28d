// The futures of several tasks as one asynchronous operation.
#pragma once

#include <multihull/asio/future.hpp>

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <exception>
#include <memory>
#include <ranges>
#include <type_traits>
#include <utility>
#include <vector>

namespace multihull::asio::detail {

/// What tasks answer together.
template <class T>
struct AllOfTasks {
    using Type = std::vector<T>;
};
template <>
struct AllOfTasks<void> {
    using Type = void;
};
template <class T>
using AllOf = typename AllOfTasks<T>::Type;

/// Tasks that are cancelled together, unless they are taken out.
template <class TaskFuture>
struct TaskGroup {
    std::vector<TaskFuture> futures{};

    TaskGroup() = default;
    TaskGroup(const TaskGroup&) = delete;
    TaskGroup& operator=(const TaskGroup&) = delete;
    ~TaskGroup() {
        for (const auto& future : std::views::reverse(futures)) future.cancel();
    }
};

/// Waits for several tasks, whose owner it is.
template <class T>
class FuturesSource {
public:
    using Value = AllOf<T>;

    explicit FuturesSource(std::vector<Future<T>> futures) noexcept : futures_(std::move(futures)) {}
    /// Tasks that could not be submitted.
    explicit FuturesSource(std::exception_ptr failure) noexcept : failure_(std::move(failure)) {}

    template <class Told>
    void start(Told told) const {
        if (failure_ || futures_.empty()) return told();
        struct Waiting {
            Waiting(std::size_t count, Told callback) : left(count), told(std::move(callback)) {}
            std::atomic<std::size_t> left;
            Told told;
        };
        const auto futures = futures_;
        const auto waiting = std::make_shared<Waiting>(futures.size(), std::move(told));
        for (const auto& future : futures) {
            future.add_done_callback([waiting](const Future<T>&) {
                if (waiting->left.fetch_sub(1, std::memory_order_acq_rel) == 1) waiting->told();
            });
        }
    }
    bool take(Result<Value>& result) const {
        result.error = failure_;
        if (failure_) return true;
        if (!std::ranges::all_of(futures_, [](const auto& future) { return future.ready(); })) return false;
        try {
            if constexpr (std::is_void_v<T>) {
                for (const auto& future : futures_) future.get();
            } else {
                std::vector<T> values;
                values.reserve(futures_.size());
                for (const auto& future : futures_) values.push_back(future.get());
                result.value.emplace(std::move(values));
            }
        } catch (...) {
            result.error = std::current_exception();
        }
        return true;
    }
    bool cancel(net::cancellation_type_t type) const {
        // From the end: no worker that becomes free takes one of those that are yet to be cancelled.
        for (const auto& future : std::views::reverse(futures_)) cancel_task(future, type);
        return false;
    }

private:
    std::vector<Future<T>> futures_;
    std::exception_ptr failure_;
};

}    // namespace multihull::asio::detail
