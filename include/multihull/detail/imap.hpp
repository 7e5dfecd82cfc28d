// Lazy maps: inputs are taken as the workers can eat them, results come back as a range.
#pragma once

#include <multihull/detail/map.hpp>

#include <condition_variable>
#include <deque>
#include <iterator>
#include <memory>
#include <mutex>
#include <optional>
#include <ranges>
#include <utility>
#include <vector>

namespace multihull::detail {

/// Some elements of a lazy map that are on their way together.
struct ImapUnit {
    std::shared_ptr<Completion> completion;
    std::uint32_t task = 0;
    std::uint64_t count = 1;
    std::uint64_t next = 0;    ///< How many have been read.

    ImapUnit() = default;
    ImapUnit(std::shared_ptr<Completion> unit, std::uint32_t index, std::uint64_t elements) noexcept
        : completion(std::move(unit)), task(index), count(elements) {}
    ImapUnit(ImapUnit&& other) noexcept = default;
    ImapUnit& operator=(ImapUnit&& other) noexcept {
        std::swap(completion, other.completion);
        std::swap(task, other.task);
        std::swap(count, other.count);
        std::swap(next, other.next);
        return *this;
    }
    ~ImapUnit() {
        if (completion) completion->release(task);
    }
};

template <class Value>
struct ElementTarget {
    std::uint64_t index;
    std::optional<Value> value;
};

template <class Value>
void read_imap_element(const ResultSource& source, void* out) {
    auto& target = *static_cast<ElementTarget<Value>*>(out);
    if constexpr (std::is_same_v<Value, Nothing>) {
        if (source.map != nullptr) static_cast<void>(source.map->element(target.index));
        target.value.emplace();
    } else if (source.map != nullptr) {
        Reader reader = source.map->element(target.index);
        target.value.emplace(decode<Value>(reader));
    } else {
        target.value.emplace(decode<Value>(*source.reader));
    }
}

/// Gives results one after the other; empty at the end. Throws what an element failed with, and goes on behind it.
template <class Value>
class ImapSource {
public:
    virtual ~ImapSource() = default;
    virtual std::optional<Value> next() = 0;
};

/// Which units are done, in the order in which they ended. Outlives the range: the units' callbacks hold it.
class DoneUnits : public std::enable_shared_from_this<DoneUnits> {
public:
    /// Counts the unit under this number once it is done.
    void expect(const ImapUnit& unit, std::uint64_t id);
    /// Waits for the next one; each is answered once.
    std::uint64_t wait();

private:
    std::mutex mutex_;
    std::condition_variable changed_;
    std::deque<std::uint64_t> done_;
};

template <class F, std::ranges::view View, bool kOrdered>
class Imap final : public ImapSource<Stored<typename RangeInvocation<F, View, false>::Value>> {
    using I = RangeInvocation<F, View, false>;
    using Value = Stored<typename I::Value>;
    using In = typename MapCall<F, I, false>::In;

public:
    Imap(std::shared_ptr<Engine> engine, F function, View view, TaskOptions options)
        : engine_(std::move(engine)),
          function_(std::move(function)),
          view_(std::move(view)),
          options_(std::move(options)),
          chunk_(std::max<std::size_t>(options_.chunksize, 1)),
          window_(worker_count(*engine_) * 4) {}

    ~Imap() override {
        // Nobody will read them: what has not started need not start.
        for (auto& [id, unit] : units_) {
            unit.completion->abandon(unit.task);
        }
    }

    std::optional<Value> next() override {
        if (!input_ended_) fill();
        if (units_.empty()) {
            // Where the input ended in a failure, that comes in its place: behind what came before it.
            if (auto why = std::exchange(input_failure_, nullptr)) std::rethrow_exception(std::move(why));
            return std::nullopt;
        }
        const auto place = current_unit();
        ImapUnit& unit = place->second;
        unit.completion->wait(unit.task, kNoDeadline);
        ElementTarget<Value> target{unit.next++, std::nullopt};
        // An element that failed counts as read; so does the rest of a unit that failed as a whole.
        struct Forget {
            Imap& imap;
            decltype(place) where;
            ~Forget() {
                if (where->second.next >= where->second.count) imap.forget(where);
            }
        } const forget{*this, place};
        unit.completion->read(unit.task, &read_imap_element<Value>, &target);
        return std::move(target.value);
    }

private:
    using Units = std::vector<std::pair<std::uint64_t, ImapUnit>>;

    void fill() {
        try {
            submit_until_full();
        } catch (...) {
            input_failure_ = std::current_exception();
            input_ended_ = true;
        }
    }

    void submit_until_full() {
        if (!iterator_) iterator_.emplace(std::ranges::begin(view_));
        while (!input_ended_ && units_.size() < window_ && *iterator_ != std::ranges::end(view_)) {
            ImapUnit unit = chunk_ == 1 ? submit_one() : submit_chunk();
            const std::uint64_t id = next_id_++;
            if constexpr (!kOrdered) done_->expect(unit, id);
            units_.emplace_back(id, std::move(unit));
        }
    }

    ImapUnit submit_one() {
        CallBuffer buffer;
        encode_callable(buffer.writer(), function_);
        const std::tuple<In> input(make_input<In, false>(**iterator_));
        encode(buffer.writer(), input);
        ++*iterator_;
        const std::uint32_t task =
            submit_call(*engine_, Registered<&CallThunk<F, I>::run, F>::token(), buffer, &options_);
        return ImapUnit(as_completion(engine_), task, 1);
    }

    ImapUnit submit_chunk() {
        std::vector<In> inputs;
        try {
            for (; inputs.size() < chunk_ && *iterator_ != std::ranges::end(view_); ++*iterator_) {
                inputs.push_back(make_input<In, false>(**iterator_));
            }
        } catch (...) {
            if (inputs.empty()) throw;
            input_failure_ = std::current_exception();
            input_ended_ = true;
        }
        auto [completion, count] = start_map<false, true>(engine_, function_, inputs, options_, 1);
        return ImapUnit(std::move(completion), 0, count);
    }

    typename Units::iterator current_unit() {
        if constexpr (kOrdered) {
            return units_.begin();
        } else {
            if (!reading_) reading_ = done_->wait();
            return std::find_if(units_.begin(), units_.end(),
                                [&](const auto& unit) { return unit.first == *reading_; });
        }
    }

    void forget(typename Units::iterator unit) noexcept {
        units_.erase(unit);
        reading_.reset();
    }

    std::shared_ptr<Engine> engine_;
    F function_;
    View view_;
    TaskOptions options_;
    const std::size_t chunk_;
    const std::size_t window_;
    bool input_ended_ = false;    // by a failure
    std::exception_ptr input_failure_;
    std::optional<std::ranges::iterator_t<View>> iterator_;
    Units units_;
    std::uint64_t next_id_ = 0;
    std::optional<std::uint64_t> reading_;
    std::shared_ptr<DoneUnits> done_ = std::make_shared<DoneUnits>();
};

}    // namespace multihull::detail

namespace multihull {

/// The results of imap() and imap_unordered(): a range that is read once, as the results arrive.
///
/// Reading an element whose task failed throws what it failed with; the next `++` goes on behind it. A range that is dropped
/// before its end cancels what has not started.
template <class T>
class ResultRange {
public:
    class iterator {
    public:
        using value_type = T;
        using difference_type = std::ptrdiff_t;
        using iterator_concept = std::input_iterator_tag;

        iterator() = default;
        explicit iterator(ResultRange* range) noexcept : range_(range) {}
        T& operator*() const {
            if (range_->error_) std::rethrow_exception(range_->error_);
            return *range_->value_;
        }
        iterator& operator++() {
            range_->advance();
            return *this;
        }
        void operator++(int) { range_->advance(); }
        bool operator==(std::default_sentinel_t) const noexcept { return range_->ended_; }

    private:
        ResultRange* range_ = nullptr;
    };

    explicit ResultRange(std::unique_ptr<detail::ImapSource<T>> source) : source_(std::move(source)) {}

    iterator begin() {
        if (!begun_) advance();
        return iterator(this);
    }
    std::default_sentinel_t end() const noexcept { return {}; }

    /// The next result, empty at the end; throws what its task failed with.
    std::optional<T> next() {
        begun_ = true;
        return source_->next();
    }

private:
    void advance() {
        begun_ = true;
        error_ = nullptr;
        try {
            value_ = source_->next();
            ended_ = !value_.has_value();
        } catch (...) {
            error_ = std::current_exception();
        }
    }

    std::unique_ptr<detail::ImapSource<T>> source_;
    std::optional<T> value_;
    std::exception_ptr error_;
    bool begun_ = false;
    bool ended_ = false;
};

}    // namespace multihull
