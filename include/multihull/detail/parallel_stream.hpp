// Parallel loops that answer results one by one, while the rest still runs.
#pragma once

#include <multihull/detail/imap.hpp>
#include <multihull/detail/parallel_workers.hpp>

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <memory>
#include <optional>
#include <unordered_map>
#include <utility>

namespace multihull::detail {

/// Takes calls from a range and has them run.
class CallFeeder {
public:
    virtual ~CallFeeder() = default;
    virtual bool at_end() = 0;
    /// How many calls there are, where that is known.
    virtual std::optional<std::size_t> total() = 0;
    /// Starts so many calls, or what is left of them.
    virtual ImapUnit submit(std::size_t calls) = 0;
    /// All results have been read.
    virtual void finished() noexcept {}
};

/// The calls of a loop that are on their way: some for each worker, in batches that fit what a call takes.
class CallsUnderWay {
public:
    CallsUnderWay(const ParallelOptions& options, std::size_t jobs, std::unique_ptr<CallFeeder> feeder, bool ordered);
    ~CallsUnderWay();
    CallsUnderWay(const CallsUnderWay&) = delete;
    CallsUnderWay& operator=(const CallsUnderWay&) = delete;

    /// Waits for the unit that the next result is in; null at the end. Throws what taking calls from the range has thrown.
    ImapUnit* wait();
    /// That result has been read, or was a failure.
    void one_more();

private:
    using Units = std::unordered_map<std::uint64_t, ImapUnit>;

    void fill();
    void forget(Units::iterator unit) noexcept;

    const ParallelOptions options_;
    const std::size_t jobs_;
    const bool ordered_;
    const std::size_t window_;
    std::size_t batch_;
    const std::chrono::steady_clock::time_point began_ = std::chrono::steady_clock::now();
    std::uint64_t calls_done_ = 0;
    bool input_ended_ = false;
    std::exception_ptr input_failure_;
    std::uint64_t next_id_ = 0;
    std::uint64_t first_ = 0;    // unit to be read next, where they are read in order
    std::optional<std::uint64_t> reading_;
    std::shared_ptr<DoneUnits> done_ = std::make_shared<DoneUnits>();
    std::unique_ptr<CallFeeder> feeder_;
    ParallelReport report_;
    Units units_;    // gone before the workers are
};

/// Their results; `read` gets the next one of a unit.
template <class Value>
class ParallelStream final : public ImapSource<Value> {
public:
    using Read = std::optional<Value> (*)(ImapUnit& unit);

    ParallelStream(const ParallelOptions& options, std::size_t jobs, std::unique_ptr<CallFeeder> feeder, bool ordered,
                   Read read)
        : calls_(options, jobs, std::move(feeder), ordered), read_(read) {}

    std::optional<Value> next() override {
        ImapUnit* const unit = calls_.wait();
        if (unit == nullptr) return std::nullopt;
        std::optional<Value> value;
        std::exception_ptr failure;
        try {
            value = read_(*unit);
        } catch (...) {
            failure = std::current_exception();
        }
        calls_.one_more();
        if (failure) std::rethrow_exception(std::move(failure));
        return value;
    }

private:
    CallsUnderWay calls_;
    Read read_;
};

}    // namespace multihull::detail
