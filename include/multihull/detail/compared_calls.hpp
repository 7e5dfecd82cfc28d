// compare()'s work, as templates: one function and its inputs, and the three ways to run them.
#pragma once

#include <multihull/parallel_options.hpp>
#include <multihull/pool.hpp>

#include <atomic>
#include <concepts>
#include <cstddef>
#include <exception>
#include <functional>
#include <iterator>
#include <mutex>
#include <optional>
#include <type_traits>
#include <utility>
#include <vector>

namespace multihull {

struct Comparison;
struct CompareOptions;

namespace detail {

/// Thrown through a way that was told to stop.
struct CompareStopped {};

/// What is done in several ways. Results are left in the object until they are looked at.
class ComparedWork {
public:
    using Stop = std::function<bool()>;
    virtual ~ComparedWork() = default;

    virtual std::size_t items() const = 0;
    virtual void run_serial(const Stop& stop) = 0;
    virtual void run_threads(ParallelBackend& threads, std::size_t jobs, const Stop& stop) = 0;
    virtual void run_processes(Pool& pool, const Stop& stop) = 0;
    /// Whether the last results are equal to the first; empty where they can't be compared.
    virtual std::optional<bool> same_as_first() = 0;
};

Comparison compare_work(ComparedWork& work, const CompareOptions& options);

template <class F, class In>
class ComparedCalls final : public ComparedWork {
    using I = InvocationOf<F, In&>;
    using Value = typename I::Value;
    using Result = Stored<Value>;

public:
    ComparedCalls(F function, std::vector<In> inputs) : function_(std::move(function)), inputs_(std::move(inputs)) {}

    std::size_t items() const override { return inputs_.size(); }

    void run_serial(const Stop& stop) override {
        last_.assign(inputs_.size(), std::nullopt);
        if (stop) {
            for (std::size_t i = 0; i < inputs_.size(); ++i) {
                if (stop()) throw CompareStopped{};
                call(function_, i);
            }
        } else {
            for (std::size_t i = 0; i < inputs_.size(); ++i) call(function_, i);
        }
    }

    void run_threads(ParallelBackend& threads, std::size_t jobs, const Stop& stop) override {
        last_.assign(inputs_.size(), std::nullopt);
        std::atomic<bool> failed{false};
        std::exception_ptr error;
        std::mutex mutex;
        threads.run(inputs_.size(), jobs, 0, [&](std::size_t i) {
            if (failed.load(std::memory_order_relaxed)) return;
            try {
                if (stop && stop()) throw CompareStopped{};
                call(function_, i);
            } catch (...) {
                const std::lock_guard guard(mutex);
                if (!error) error = std::current_exception();
                failed.store(true, std::memory_order_relaxed);
            }
        });
        if (error) std::rethrow_exception(error);
    }

    void run_processes(Pool& pool, const Stop& stop) override {
        TaskOptions options;
        if (stop) {
            options.progress = [&stop](const Progress&) {
                if (stop()) throw CompareStopped{};
            };
        }
        if constexpr (std::is_void_v<Value>) {
            pool.map(function_, inputs_, options);
            last_.assign(inputs_.size(), Result{});
        } else {
            auto results = pool.map(function_, inputs_, options);
            from_processes_ = std::move(results);
            last_.clear();
        }
    }

    std::optional<bool> same_as_first() override {
        if (!from_processes_.empty()) {
            last_.assign(std::make_move_iterator(from_processes_.begin()),
                         std::make_move_iterator(from_processes_.end()));
            from_processes_.clear();
        }
        if constexpr (std::is_void_v<Value> || !std::equality_comparable<Result>) {
            return std::nullopt;
        } else {
            if (first_) return *first_ == last_;
            first_ = std::move(last_);
            return true;
        }
    }

private:
    void call(F& function, std::size_t i) {
        if constexpr (std::is_void_v<Value>) {
            std::invoke(function, inputs_[i]);
            last_[i].emplace();
        } else {
            last_[i].emplace(std::invoke(function, inputs_[i]));
        }
    }

    F function_;
    std::vector<In> inputs_;
    std::vector<std::optional<Result>> last_;
    std::vector<Result> from_processes_;
    std::optional<std::vector<std::optional<Result>>> first_;
};

}    // namespace detail

}    // namespace multihull
