// Executors' map: some of the inputs are on their way, results come back in order.
#pragma once

#include <multihull/detail/imap.hpp>
#include <multihull/detail/thread_task.hpp>
#include <multihull/executor.hpp>

#include <algorithm>
#include <cstddef>
#include <deque>
#include <exception>
#include <memory>
#include <optional>
#include <ranges>
#include <stdexcept>
#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>

namespace multihull::detail {

// So many are submitted at once where the map may choose: of a range that knows its end, and of one that may have none.
inline constexpr std::size_t kEagerUnits = 65536;
inline constexpr std::size_t kUnitsPerWorker = 16;

/// `Backend` says how some elements become a unit of work, and reads results:
///   using Value, using Element; std::size_t workers() const; ImapUnit submit(std::vector<Element>&);
///   std::optional<Stored<Value>> read(ImapUnit&)
template <class Backend, class... Views>
class ExecutorMap final : public ImapSource<Stored<typename Backend::Value>> {
    using Element = typename Backend::Element;
    using Value = Stored<typename Backend::Value>;

public:
    ExecutorMap(Backend backend, const MapOptions& options, Views... views)
        : backend_(std::move(backend)),
          views_(std::move(views)...),
          deadline_(options.timeout ? deadline_after(*options.timeout) : kNoDeadline),
          chunk_(Backend::kChunks ? options.chunksize : 1),
          window_(options.buffersize) {
        if (options.chunksize == 0)
            throw std::invalid_argument("a map can't go in chunks of 0 inputs: give a chunksize of at least 1");
        if (window_ == 0) {
            const bool knows_its_end = (std::ranges::sized_range<Views> || ...);
            window_ = knows_its_end ? kEagerUnits : std::max<std::size_t>(backend_.workers(), 1) * kUnitsPerWorker;
        }
        fill();
        // Where not even the first could be submitted, the caller hears of it at once.
        if (units_.empty() && input_failure_) std::rethrow_exception(input_failure_);
    }

    ~ExecutorMap() override {
        // Nobody will read them: what has not started need not start.
        for (auto& unit : units_) unit.completion->abandon(unit.task);
    }

    std::optional<Value> next() override {
        fill();
        if (units_.empty()) {
            if (auto why = std::exchange(input_failure_, nullptr)) std::rethrow_exception(std::move(why));
            return std::nullopt;
        }
        ImapUnit& unit = units_.front();
        if (!unit.completion->wait(unit.task, deadline_))
            throw WaitTimeout("a result of map() was not ready within the time given to it; the task goes on");
        struct Forget {
            std::deque<ImapUnit>& units;
            ~Forget() {
                if (++units.front().next >= units.front().count) units.pop_front();
            }
        } const forget{units_};
        return backend_.read(unit);
    }

private:
    void fill() {
        if (input_ended_) return;
        try {
            if (!iterators_) {
                iterators_.emplace(std::apply([](auto&... view) { return std::tuple(std::ranges::begin(view)...); },
                                              views_));
            }
            while (units_.size() < window_ && !at_end()) submit_unit();
        } catch (...) {
            // It comes in its place: behind what came before it.
            input_failure_ = std::current_exception();
            input_ended_ = true;
        }
    }

    bool at_end() {
        const bool ended = [&]<std::size_t... k>(std::index_sequence<k...>) {
            return ((std::get<k>(*iterators_) == std::ranges::end(std::get<k>(views_))) || ...);
        }(std::index_sequence_for<Views...>{});
        if (ended) input_ended_ = true;
        return ended;
    }

    void submit_unit() {
        std::vector<Element> elements;
        std::exception_ptr failure;
        try {
            do {
                elements.push_back(std::apply([](auto&... iterator) { return Element(*iterator...); }, *iterators_));
                std::apply([](auto&... iterator) { (++iterator, ...); }, *iterators_);
            } while (elements.size() < chunk_ && !at_end());
        } catch (...) {
            failure = std::current_exception();
        }
        if (!elements.empty()) units_.push_back(backend_.submit(elements));
        if (failure) std::rethrow_exception(failure);
    }

    Backend backend_;
    std::tuple<Views...> views_;
    const std::int64_t deadline_;
    const std::size_t chunk_;
    std::size_t window_;
    bool input_ended_ = false;
    std::exception_ptr input_failure_;
    std::optional<std::tuple<std::ranges::iterator_t<Views>...>> iterators_;
    std::deque<ImapUnit> units_;
};

/// A view of all elements: of a container of the caller's, or of a view of his that can't be copied, by reference.
template <class Range>
auto all_of(Range&& range) {
    if constexpr (std::ranges::viewable_range<Range>) {
        return std::views::all(std::forward<Range>(range));
    } else {
        return std::ranges::ref_view(range);
    }
}

/// Starts a map of a backend over these ranges.
template <class Backend, class... Ranges>
auto executor_map(Backend backend, const MapOptions& options, Ranges&&... ranges) {
    using Map = ExecutorMap<Backend, decltype(all_of(std::forward<Ranges>(ranges)))...>;
    return ResultRange<Stored<typename Backend::Value>>(std::make_unique<Map>(std::move(backend), options,
                                                                              all_of(std::forward<Ranges>(ranges))...));
}

/// Runs the elements in threads, or at once: `Runner` takes a ThreadTask and has it run.
template <class F, class Runner, class... In>
class ThreadMapBackend {
    using Result = std::invoke_result_t<F&, In...>;

public:
    using Element = std::tuple<In...>;
    using Value = std::conditional_t<std::is_void_v<Result>, void, std::remove_cvref_t<Result>>;
    static constexpr bool kChunks = false;

    ThreadMapBackend(std::shared_ptr<F> function, Runner runner, std::size_t workers)
        : function_(std::move(function)), runner_(std::move(runner)), workers_(workers) {}

    std::size_t workers() const noexcept { return workers_; }
    ImapUnit submit(std::vector<Element>& elements) {
        auto body = [function = function_, element = std::move(elements.front())]() mutable -> Result {
            return std::apply([&](auto&... in) -> Result { return std::invoke(*function, std::move(in)...); }, element);
        };
        auto task = std::make_shared<ThreadCall<Value, decltype(body)>>(std::move(body));
        runner_(task);
        return ImapUnit(std::move(task), 0, 1);
    }
    static std::optional<Stored<Value>> read(ImapUnit& unit) {
        std::optional<Stored<Value>> value;
        unit.completion->read(0, &ThreadTask<Value>::read_value, &value);
        return value;
    }

private:
    std::shared_ptr<F> function_;    // one for all tasks
    Runner runner_;
    std::size_t workers_;
};

}    // namespace multihull::detail
