// Where the results of a generator's loop come from: what takes calls from a range and has them run.
#pragma once

#include <multihull/detail/future_group.hpp>
#include <multihull/detail/imap.hpp>
#include <multihull/detail/parallel_list.hpp>
#include <multihull/detail/parallel_stream.hpp>
#include <multihull/thread_pool_executor.hpp>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <iterator>
#include <memory>
#include <optional>
#include <ranges>
#include <type_traits>
#include <utility>
#include <vector>

namespace multihull::detail {

/// Gives the calls of a loop one by one, made as they are asked for.
template <class C>
class CallSource {
public:
    virtual ~CallSource() = default;
    virtual bool at_end() = 0;
    virtual C take() = 0;
    /// How many they were, where that is known.
    virtual std::optional<std::size_t> size() = 0;
};

template <class View>
class ViewCalls final : public CallSource<CallOf<View>> {
public:
    explicit ViewCalls(View view) : view_(std::move(view)) {}

    bool at_end() override {
        if (!iterator_) iterator_.emplace(std::ranges::begin(view_));
        return *iterator_ == std::ranges::end(view_);
    }
    CallOf<View> take() override {
        CallOf<View> call(**iterator_);
        ++*iterator_;
        return call;
    }
    std::optional<std::size_t> size() override {
        if constexpr (std::ranges::sized_range<View>) {
            return static_cast<std::size_t>(std::ranges::size(view_));
        } else {
            return std::nullopt;
        }
    }

private:
    View view_;
    std::optional<std::ranges::iterator_t<View>> iterator_;
};

/// All of them: made now, so that a snapshot taken afterwards has them.
template <class C>
std::vector<C> take_all(CallSource<C>& source) {
    std::vector<C> calls;
    if (const auto size = source.size()) calls.reserve(*size);
    while (!source.at_end()) calls.push_back(source.take());
    return calls;
}

/// Calls that are run when their result is read.
template <class C>
class SerialStream final : public ImapSource<Stored<typename C::Value>> {
    using Value = typename C::Value;

public:
    SerialStream(const ParallelOptions& options, std::unique_ptr<CallSource<C>> calls)
        : options_(options), calls_(std::move(calls)), report_(options_, 1, calls_->size()) {}

    std::optional<Stored<Value>> next() override {
        if (calls_->at_end()) {
            report_.end();
            return std::nullopt;
        }
        C call = calls_->take();
        report_.one_more();
        if constexpr (std::is_void_v<Value>) {
            std::move(call)();
            return Nothing{};
        } else {
            return std::optional<Value>(std::move(call)());
        }
    }

private:
    const ParallelOptions options_;
    std::unique_ptr<CallSource<C>> calls_;
    ParallelReport report_;
};

/// Results that are there; what a failed call threw among them.
template <class Value>
class ReadyStream final : public ImapSource<Stored<Value>> {
public:
    struct Outcome {
        std::optional<Stored<Value>> value;
        std::exception_ptr failure;
    };
    explicit ReadyStream(std::vector<Outcome> outcomes) : outcomes_(std::move(outcomes)) {}

    std::optional<Stored<Value>> next() override {
        if (next_ == outcomes_.size()) return std::nullopt;
        Outcome& outcome = outcomes_[next_++];
        if (outcome.failure) std::rethrow_exception(outcome.failure);
        return std::move(outcome.value);
    }

private:
    std::vector<Outcome> outcomes_;
    std::size_t next_ = 0;
};

/// Calls of a batch, one after the other in one thread; each has its own outcome.
template <class C>
class ThreadFeeder final : public CallFeeder {
public:
    using Value = typename C::Value;

    ThreadFeeder(const ParallelOptions& options, std::size_t jobs, std::unique_ptr<CallSource<C>> calls)
        : timeout_(options.timeout),
          calls_(std::move(calls)),
          executor_({.max_workers = jobs, .initializer = limit_of_threads(jobs)}) {}
    ~ThreadFeeder() override { *stop_ = true; }

    bool at_end() override { return !late_failure_ && calls_->at_end(); }
    std::optional<std::size_t> total() override { return calls_->size(); }
    ImapUnit submit(std::size_t count) override {
        std::vector<C> calls;
        try {
            while (calls.size() < count && !at_end()) {
                if (late_failure_) std::rethrow_exception(std::exchange(late_failure_, nullptr));
                calls.push_back(calls_->take());
            }
        } catch (...) {
            if (calls.empty()) throw;
            late_failure_ = std::current_exception();
        }
        const std::size_t taken = calls.size();
        auto body = [batch = std::move(calls), timeout = timeout_, stop = stop_]() mutable {
            Outcomes outcomes;
            outcomes.all.resize(batch.size());
            for (std::size_t i = 0; i < batch.size() && !*stop; ++i) {
                try {
                    if constexpr (std::is_void_v<Value>) {
                        run_timed(batch[i], timeout);
                        outcomes.all[i].value.emplace();
                    } else {
                        outcomes.all[i].value.emplace(run_timed(batch[i], timeout));
                    }
                } catch (...) {
                    outcomes.all[i].failure = std::current_exception();
                }
            }
            return outcomes;
        };
        return ImapUnit(FutureAccess::completion(executor_.submit(std::move(body))), 0, taken);
    }
    static std::optional<Stored<Value>> read(ImapUnit& unit) {
        ElementTarget<Stored<Value>> target{unit.next, std::nullopt};
        unit.completion->read(0, &read_outcome, &target);
        return std::move(target.value);
    }

private:
    struct Outcome {
        std::optional<Stored<Value>> value;
        std::exception_ptr failure;
    };
    struct Outcomes {
        std::vector<Outcome> all;

        Outcomes() = default;
        Outcomes(Outcomes&&) noexcept = default;    // and so no copies, which results may not allow
    };

    // Each is read once, by one thread.
    static void read_outcome(const ResultSource& source, void* out) {
        auto& kept = *const_cast<std::optional<Outcomes>*>(static_cast<const std::optional<Outcomes>*>(source.value));
        auto& target = *static_cast<ElementTarget<Stored<Value>>*>(out);
        Outcome& outcome = kept->all[target.index];
        if (outcome.failure) std::rethrow_exception(outcome.failure);
        target.value = std::move(outcome.value);
    }

    std::optional<std::chrono::nanoseconds> timeout_;
    std::unique_ptr<CallSource<C>> calls_;
    std::exception_ptr late_failure_;
    std::shared_ptr<std::atomic<bool>> stop_ = std::make_shared<std::atomic<bool>>(false);
    ThreadPoolExecutor executor_;
};

template <class Value>
std::optional<Stored<Value>> read_unit(ImapUnit& unit) {
    ElementTarget<Stored<Value>> target{unit.next, std::nullopt};
    unit.completion->read(unit.task, &read_imap_element<Stored<Value>>, &target);
    return std::move(target.value);
}

inline TaskOptions stream_task(const ParallelOptions& options) {
    TaskOptions task;
    task.timeout = options.timeout;
    return task;
}

/// All calls are in the workers' snapshot; numbers travel.
template <class C>
class PreparedFeeder final : public CallFeeder {
public:
    using Value = typename C::Value;

    PreparedFeeder(const ParallelOptions& options, std::size_t jobs, std::vector<C> calls)
        : task_(stream_task(options)),
          calls_(std::make_unique<std::vector<C>>(std::move(calls))),
          workers_(ParallelWorkers::snapshot(std::clamp<std::size_t>(calls_->size(), 1, jobs))) {}

    bool at_end() override { return next_ == calls_->size(); }
    std::optional<std::size_t> total() override { return calls_->size(); }
    ImapUnit submit(std::size_t count) override {
        const std::uint64_t end = next_ + std::min<std::uint64_t>(count, calls_->size() - next_);
        auto [completion, size] = start_map<false, true>(workers_.engine(), RunPreparedCall<C>{address_of(*calls_)},
                                                         std::views::iota(next_, end), task_, 1);
        next_ = end;
        return ImapUnit(std::move(completion), 0, size);
    }
    static std::optional<Stored<Value>> read(ImapUnit& unit) { return read_unit<Value>(unit); }
    void finished() noexcept override { workers_.finished(); }

private:
    TaskOptions task_;
    std::unique_ptr<std::vector<C>> calls_;
    std::uint64_t next_ = 0;
    ParallelWorkers workers_;
};

/// Arguments travel; so does the function, or the workers' snapshot has it. `runner` takes them anywhere, where there is one.
template <class C>
class TravellingFeeder final : public CallFeeder {
    static constexpr bool kFunctionTravels = CallTraits<C>::kFunctionTravels;

public:
    using Value = typename C::Value;

    TravellingFeeder(const ParallelOptions& options, std::size_t jobs, std::unique_ptr<CallSource<C>> calls,
                     std::shared_ptr<CallRunner> runner)
        : task_(stream_task(options)),
          calls_(std::move(calls)),
          first_(runner ? std::nullopt : take_first(*calls_)),
          runner_(std::move(runner)) {
        if (runner_) return;
        workers_.emplace(kFunctionTravels && !options.snapshot ? ParallelWorkers::reusable(options, jobs)
                                                               : ParallelWorkers::snapshot(jobs));
    }

    bool at_end() override { return !late_failure_ && !first_ && calls_->at_end(); }
    std::optional<std::size_t> total() override { return calls_->size(); }
    ImapUnit submit(std::size_t count) override {
        std::vector<WireCall<C>> inputs;
        try {
            while (inputs.size() < count && !at_end()) inputs.push_back(take());
        } catch (...) {
            if (inputs.empty()) throw;
            late_failure_ = std::current_exception();
        }
        const std::ranges::subrange moved(std::move_iterator(inputs.begin()), std::move_sentinel(inputs.end()));
        if constexpr (kFunctionTravels) {
            if (runner_) return unit_of(start_map<false, true>(runner_, RunWireCall<C>{}, moved, task_, 1));
        }
        return unit_of(start_map<false, true>(workers_->engine(), RunWireCall<C>{}, moved, task_, 1));
    }
    static std::optional<Stored<Value>> read(ImapUnit& unit) { return read_unit<Value>(unit); }
    void finished() noexcept override {
        if (workers_) workers_->finished();
    }

private:
    // The function of the first call is there before the snapshot is taken, and kept, so that no other can be at its place.
    static std::optional<C> take_first(CallSource<C>& calls) {
        if (calls.at_end()) return std::nullopt;
        return calls.take();
    }
    static ImapUnit unit_of(std::pair<std::shared_ptr<Completion>, std::uint64_t> map) {
        return ImapUnit(std::move(map.first), 0, map.second);
    }

    WireCall<C> take() {
        if (late_failure_) std::rethrow_exception(std::exchange(late_failure_, nullptr));
        C call = first_ ? std::move(*std::exchange(first_, std::nullopt)) : calls_->take();
        if constexpr (kFunctionTravels) {
            return WireCall<C>(std::move(call), false);
        } else {
            if (!known_) known_.emplace(call.function());
            const bool there = known_->same(call.function());
            if (!there && !CallTraits<C>::kPlainFunction) throw_function_after_snapshot();
            return WireCall<C>(std::move(call), there);
        }
    }

    TaskOptions task_;
    std::unique_ptr<CallSource<C>> calls_;
    std::optional<C> first_;
    std::optional<SharedFunction<typename C::Function>> known_;
    std::exception_ptr late_failure_;
    std::shared_ptr<CallRunner> runner_;
    std::optional<ParallelWorkers> workers_;    // a snapshot is taken when the first call is there
};

}    // namespace multihull::detail
