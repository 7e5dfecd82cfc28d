// Parallel loops that answer results one by one, while the rest still runs.
#pragma once

#include <multihull/detail/imap.hpp>
#include <multihull/detail/parallel_workers.hpp>

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <exception>
#include <memory>
#include <mutex>
#include <optional>
#include <unordered_map>
#include <utility>

namespace multihull::detail {

// Long enough that sending a batch does not count, short enough that results do not wait long for each other.
inline constexpr double kBatchNs = 1e6;

/// `Feeder` takes calls from the range and has them run:
///   using Value; bool at_end(); ImapUnit submit(std::size_t calls); std::optional<Stored<Value>> read(ImapUnit&);
///   std::optional<std::size_t> total();
template <class Feeder, bool kOrdered>
class ParallelStream final : public ImapSource<Stored<typename Feeder::Value>> {
    using Value = Stored<typename Feeder::Value>;

public:
    template <class... Parts>
    ParallelStream(const ParallelOptions& options, std::size_t jobs, Parts&&... parts)
        : options_(options),
          jobs_(jobs),
          window_(options.pre_dispatch != 0 ? options.pre_dispatch : 2 * jobs),
          batch_(std::max<std::size_t>(options.batch_size, 1)),
          feeder_(options_, jobs, std::forward<Parts>(parts)...),
          report_(options_, jobs, feeder_.total()) {
        fill();
    }

    ~ParallelStream() override {
        // Nobody will read them: what has not started need not start, and what runs is ended where that is possible.
        for (auto& [id, unit] : units_) unit.completion->abandon(unit.task);
        for (auto& [id, unit] : units_) end_quietly(unit);
    }

    std::optional<Value> next() override {
        fill();
        if (units_.empty()) {
            if (auto why = std::exchange(input_failure_, nullptr)) std::rethrow_exception(std::move(why));
            feeder_.finished();
            report_.end();
            return std::nullopt;
        }
        if (!reading_) reading_ = kOrdered ? first_ : wait_for_any();
        const auto place = units_.find(*reading_);
        ImapUnit& unit = place->second;
        unit.completion->wait(unit.task, kNoDeadline);
        std::optional<Value> value;
        std::exception_ptr failure;
        try {
            value = feeder_.read(unit);
        } catch (...) {
            failure = std::current_exception();
        }
        if (++unit.next >= unit.count) forget(place);
        report_.one_more();
        if (failure) std::rethrow_exception(std::move(failure));
        return value;
    }

private:
    struct Done {
        std::mutex mutex;
        std::condition_variable changed;
        std::deque<std::uint64_t> units;
    };
    using Units = std::unordered_map<std::uint64_t, ImapUnit>;

    void fill() {
        if (input_ended_) return;
        try {
            while (units_.size() < window_ && !feeder_.at_end()) {
                ImapUnit unit = feeder_.submit(batch_);
                const std::uint64_t id = next_id_++;
                const auto place = units_.emplace(id, std::move(unit)).first;
                if constexpr (!kOrdered) {
                    place->second.completion->on_done(place->second.task, [done = done_, id] {
                        const std::lock_guard guard(done->mutex);
                        done->units.push_back(id);
                        done->changed.notify_one();
                    });
                }
            }
        } catch (...) {
            // It comes in its place: behind what came before it.
            input_failure_ = std::current_exception();
            input_ended_ = true;
        }
    }

    static void end_quietly(ImapUnit& unit) noexcept {
        try {
            unit.completion->cancel(unit.task);
        } catch (...) {
            // In a forked child it is the parent's.
        }
    }

    std::uint64_t wait_for_any() {
        std::unique_lock guard(done_->mutex);
        done_->changed.wait(guard, [&] { return !done_->units.empty(); });
        const std::uint64_t id = done_->units.front();
        done_->units.pop_front();
        return id;
    }

    void forget(typename Units::iterator unit) noexcept {
        calls_done_ += unit->second.count;
        units_.erase(unit);
        reading_.reset();
        ++first_;
        if (options_.batch_size != 0) return;
        // What a call takes, where the workers were never idle; where the reader is slow, a small batch costs nothing.
        const auto elapsed =
            std::chrono::duration<double, std::nano>(std::chrono::steady_clock::now() - began_).count();
        const double ideal = kBatchNs * static_cast<double>(calls_done_) / (elapsed * static_cast<double>(jobs_));
        batch_ = static_cast<std::size_t>(std::clamp(ideal, 1.0, static_cast<double>(batch_) * 2));
    }

    const ParallelOptions options_;
    const std::size_t jobs_;
    const std::size_t window_;
    std::size_t batch_;
    const std::chrono::steady_clock::time_point began_ = std::chrono::steady_clock::now();
    std::uint64_t calls_done_ = 0;
    bool input_ended_ = false;
    std::exception_ptr input_failure_;
    std::uint64_t next_id_ = 0;
    std::uint64_t first_ = 0;    // unit to be read next, where they are read in order
    std::optional<std::uint64_t> reading_;
    std::shared_ptr<Done> done_ = std::make_shared<Done>();
    Feeder feeder_;
    ParallelReport report_;
    Units units_;    // gone before the workers are
};

}    // namespace multihull::detail
