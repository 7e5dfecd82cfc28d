// Waiting for some or all of many futures.
//
// Thread-safe: nothing is changed by waiting.
#pragma once

#include <multihull/detail/future_group.hpp>
#include <multihull/future.hpp>

#include <chrono>
#include <concepts>
#include <optional>
#include <ranges>
#include <vector>

namespace multihull {

/// What wait() waits for. The names are Python's.
// NOLINTBEGIN(readability-identifier-naming)
enum class ReturnWhen {
    FIRST_COMPLETED,    ///< One has ended, however it did.
    FIRST_EXCEPTION,    ///< One has failed (being cancelled is no failure), or all have ended.
    ALL_COMPLETED,      ///< All have ended.
};
// NOLINTEND(readability-identifier-naming)
using enum ReturnWhen;

/// The futures given to wait(), without duplicates, each part in the order in which they were given.
template <class T>
struct DoneAndNotDone {
    std::vector<Future<T>> done;
    std::vector<Future<T>> not_done;
};

namespace detail {

template <class F>
inline constexpr bool kIsFuture = false;
template <class T>
inline constexpr bool kIsFuture<Future<T>> = true;

template <class Range>
concept FutureRange = std::ranges::input_range<Range> && kIsFuture<std::ranges::range_value_t<Range>>;

/// Waits until what `when` says has happened, or the deadline has passed.
void wait_group(FutureGroup& group, ReturnWhen when, std::int64_t deadline_ns);

}    // namespace detail

/// Waits until what `when` says has happened, for at most `timeout` where there is one, and answers which futures have ended:
/// `auto [done, not_done] = wait(futures, multihull::ALL_COMPLETED, 2s)`. Never throws what a task threw.
///
/// `wait(futures)` without `when`, of <multihull/wait.hpp>, is another: it waits for the first of any kind of objects.
template <detail::FutureRange Range>
auto wait(Range&& futures, ReturnWhen when, std::optional<std::chrono::nanoseconds> timeout = std::nullopt) {
    using FutureType = std::ranges::range_value_t<Range>;
    const std::int64_t deadline = timeout ? detail::deadline_after(*timeout) : detail::kNoDeadline;
    detail::FutureGroup group;
    std::vector<FutureType> members;
    for (auto&& future : futures) {
        if (group.add(future)) members.push_back(future);
    }
    detail::wait_group(group, when, deadline);
    DoneAndNotDone<typename FutureType::value_type> answer;
    for (std::size_t i = 0; i < members.size(); ++i) {
        (group.ready(i) ? answer.done : answer.not_done).push_back(std::move(members[i]));
    }
    return answer;
}

}    // namespace multihull
