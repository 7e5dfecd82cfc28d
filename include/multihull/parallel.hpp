// Parallel loops over ranges, as Python's joblib.
//
// Thread-safe: any number of threads may run loops, also of one Parallel.
#pragma once

#include <multihull/delayed.hpp>
#include <multihull/detail/executor_map.hpp>
#include <multihull/detail/imap.hpp>
#include <multihull/detail/parallel_feeders.hpp>
#include <multihull/detail/parallel_list.hpp>
#include <multihull/detail/parallel_stream.hpp>
#include <multihull/parallel_options.hpp>

#include <cstddef>
#include <memory>
#include <optional>
#include <ranges>
#include <utility>
#include <vector>

namespace multihull {

/// Runs the calls of a range, some at once.
///
/// ```cpp
/// auto calls = std::views::iota(0, 1000) | std::views::transform(delayed(render));
/// std::vector<Image> images = Parallel({.n_jobs = 4})(calls);
/// ```
/// Where a function and its arguments can travel (see docs/travel.md), the calls run in worker processes that the program keeps for
/// its next loop. Others (closures with captures, arguments that can't travel) run in workers that start as a snapshot of the program
/// with all calls made: what they refer to is there, as it is now. What a call changes is changed in its worker alone; only its result
/// comes back, and it must travel. See docs/parallel.md.
class Parallel {
public:
    explicit Parallel(ParallelOptions options = {}) : options_(std::move(options)) {}

    /// Runs all calls and answers a std::vector of their results, in order (nothing for functions without one). When one fails the
    /// rest is cancelled, and what the first of those threw that failed is thrown: the call's own exception, WorkerCrashed,
    /// TaskTimeout. Throws std::invalid_argument for n_jobs 0, Error where the results can't travel.
    template <detail::DelayedCalls Range>
    auto operator()(Range&& calls) const {
        using C = detail::CallOf<Range>;
        using Value = typename C::Value;
        if (options_.pre_dispatch != 0) return collect<Value>(*stream(std::forward<Range>(calls), true));
        const std::size_t jobs = detail::parallel_jobs(options_);
        const detail::ParallelPlace place = detail::parallel_place(options_, jobs);
        if (place.prefer == Prefer::serial || place.runner)
            return collect<Value>(*stream(std::forward<Range>(calls), true));
        std::vector<C> all = detail::take_calls(std::forward<Range>(calls));
        detail::ParallelReport report(options_, jobs, all.size());
        if (place.backend) return detail::list_in_this_process(*place.backend, options_, jobs, all, report);
        return detail::list_in_processes(options_, jobs, all, report);
    }

    /// Answers a range of the results, in order, while the rest still runs. Calls are taken from the range as results are read, except
    /// where a snapshot must have them and the range knows its size. Reading the result of a call that failed throws; the next `++`
    /// goes on behind it. A range that is dropped half-way ends what runs and cancels the rest.
    ///
    /// A function of its own rather than an option: whether there is a vector or a range is for the compiler to know.
    template <detail::DelayedCalls Range>
    auto generator(Range&& calls) const {
        return ResultRange<StoredOf<Range>>(stream(std::forward<Range>(calls), true));
    }
    /// The same in the order in which the results are ready.
    template <detail::DelayedCalls Range>
    auto generator_unordered(Range&& calls) const {
        return ResultRange<StoredOf<Range>>(stream(std::forward<Range>(calls), false));
    }

private:
    template <class Range>
    using StoredOf = detail::Stored<typename detail::CallOf<Range>::Value>;

    template <class Value>
    static detail::MapValue<Value> collect(detail::ImapSource<detail::Stored<Value>>& results) {
        if constexpr (std::is_void_v<Value>) {
            while (results.next()) {}
        } else {
            std::vector<Value> values;
            while (auto value = results.next()) values.push_back(std::move(*value));
            return values;
        }
    }

    template <class Range>
    auto stream(Range&& calls, bool ordered) const {
        using View = decltype(detail::all_of(std::forward<Range>(calls)));
        using C = detail::CallOf<View>;
        std::unique_ptr<detail::CallSource<C>> source =
            std::make_unique<detail::ViewCalls<View>>(detail::all_of(std::forward<Range>(calls)));
        return results<std::ranges::sized_range<View>>(std::move(source), ordered);
    }

    // Beyond here the kind of range makes no difference.
    template <bool kSized, class C>
    auto results(std::unique_ptr<detail::CallSource<C>> calls, bool ordered) const
        -> std::unique_ptr<detail::ImapSource<detail::Stored<typename C::Value>>> {
        using Traits = detail::CallTraits<C>;
        const std::size_t jobs = detail::parallel_jobs(options_);
        const detail::ParallelPlace place = detail::parallel_place(options_, jobs);
        if (place.prefer == Prefer::serial)
            return std::make_unique<detail::SerialStream<C>>(options_, std::move(calls));
        if (place.prefer == Prefer::threads) return feed<detail::ThreadFeeder<C>>(ordered, jobs, std::move(calls));
        if (place.runner) {
            if (!(Traits::kTravels && Traits::kResultTravels)) detail::throw_call_cannot_travel();
        } else if (place.backend) {
            return ready(*place.backend, jobs, detail::take_all(*calls));
        }
        if constexpr (!Traits::kResultTravels) {
            detail::throw_result_cannot_travel();
        } else if constexpr (Traits::kTravels || (Traits::kLazy && !kSized)) {
            return feed<detail::TravellingFeeder<C>>(ordered, place.runner ? place.jobs : jobs, std::move(calls),
                                                     place.runner);
        } else {
            return feed<detail::PreparedFeeder<C>>(ordered, jobs, detail::take_all(*calls));
        }
    }

    template <class Feeder, class... Parts>
    auto feed(bool ordered, std::size_t jobs, Parts... parts) const {
        using Value = detail::Stored<typename Feeder::Value>;
        return std::make_unique<detail::ParallelStream<Value>>(
            options_, jobs, std::make_unique<Feeder>(options_, jobs, std::move(parts)...), ordered, &Feeder::read);
    }

    // Another's loop has run when it returns: the results are all there.
    template <class C>
    auto ready(ParallelBackend& backend, std::size_t jobs, std::vector<C> calls) const {
        using Stream = detail::ReadyStream<typename C::Value>;
        detail::ParallelReport report(options_, jobs, calls.size());
        std::vector<typename Stream::Outcome> outcomes(calls.size());
        backend.run(calls.size(), jobs, options_.batch_size, [&](std::size_t i) {
            try {
                if constexpr (std::is_void_v<typename C::Value>) {
                    detail::run_timed(calls[i], options_.timeout);
                    outcomes[i].value.emplace();
                } else {
                    outcomes[i].value.emplace(detail::run_timed(calls[i], options_.timeout));
                }
                report.one_more();
            } catch (...) {
                outcomes[i].failure = std::current_exception();
            }
        });
        report.end();
        return std::make_unique<Stream>(std::move(outcomes));
    }

    ParallelOptions options_;
};

}    // namespace multihull
