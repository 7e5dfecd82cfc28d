// Futures in the order in which their tasks end.
#pragma once

#include <multihull/detail/future_group.hpp>
#include <multihull/error.hpp>
#include <multihull/future.hpp>
#include <multihull/return_when.hpp>

#include <chrono>
#include <cstddef>
#include <iterator>
#include <optional>
#include <ranges>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

namespace multihull {

/// What as_completed() answers: a range that is read once, by one thread.
template <class T>
class AsCompleted {
public:
    class iterator {
    public:
        using value_type = Future<T>;
        using difference_type = std::ptrdiff_t;
        using iterator_concept = std::input_iterator_tag;

        iterator() = default;
        explicit iterator(AsCompleted* range) noexcept : range_(range) {}
        Future<T>& operator*() const noexcept { return *range_->current_; }
        iterator& operator++() {
            range_->advance();
            return *this;
        }
        void operator++(int) { range_->advance(); }
        bool operator==(std::default_sentinel_t) const noexcept { return range_->current_ == nullptr; }

    private:
        AsCompleted* range_ = nullptr;
    };

    /// Those of the caller's own container are told by reference; of others, copies are kept here.
    template <class Range>
    AsCompleted(Range&& futures, std::optional<std::chrono::nanoseconds> timeout)
        : deadline_(timeout ? detail::deadline_after(*timeout) : detail::kNoDeadline) {
        if constexpr (std::is_lvalue_reference_v<Range> &&
                      std::is_same_v<std::ranges::range_reference_t<Range>, Future<T>&> &&
                      std::ranges::forward_range<Range>) {
            for (Future<T>& future : futures) {
                if (group_.add(future)) members_.push_back(&future);
            }
        } else {
            for (auto&& future : futures) {
                if (group_.add(future)) own_.push_back(std::forward<decltype(future)>(future));
            }
            for (Future<T>& future : own_) members_.push_back(&future);
        }
    }
    AsCompleted(AsCompleted&&) noexcept = default;
    AsCompleted& operator=(AsCompleted&&) noexcept = default;

    /// Waits for the first. Throws WaitTimeout when the time is over.
    iterator begin() {
        if (!begun_) advance();
        return iterator(this);
    }
    std::default_sentinel_t end() const noexcept { return {}; }

private:
    void advance() {
        begun_ = true;
        current_ = nullptr;
        if (told_ == members_.size()) return;
        const auto member = group_.next(deadline_);
        if (!member) {
            throw WaitTimeout(std::to_string(members_.size() - told_) + " of " + std::to_string(members_.size()) +
                              " tasks have not ended within the time given to as_completed(); they go on");
        }
        ++told_;
        current_ = members_[*member];
    }

    std::int64_t deadline_;
    detail::FutureGroup group_;
    std::vector<Future<T>> own_;
    std::vector<Future<T>*> members_;
    std::size_t told_ = 0;
    bool begun_ = false;
    Future<T>* current_ = nullptr;
};

/// The futures in the order in which their tasks end, those first that have ended already; one that is given twice comes once.
/// `for (auto& done : as_completed(futures)) use(done.get());`
///
/// The container must stay as it is while this is read; a future that was told may be replaced by another, which is not waited
/// for. With a `timeout`, counted from this call, the range throws WaitTimeout when it is over and some have not ended.
template <detail::FutureRange Range>
auto as_completed(Range&& futures, std::optional<std::chrono::nanoseconds> timeout = std::nullopt) {
    return AsCompleted<typename std::ranges::range_value_t<Range>::value_type>(std::forward<Range>(futures), timeout);
}

}    // namespace multihull
