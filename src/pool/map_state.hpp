// A map in the parent: its arrays, its parts, and what became of its elements.
//
// Thread-safe. Its one future is its Completion (task 0). Kept alive by that future and by the records of its parts: it outlives
// every worker that may write to its arrays.
#pragma once

#include "os/futex.hpp"
#include "pool/layout.hpp"

#include <multihull/detail/engine.hpp>

#include <atomic>
#include <exception>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <utility>
#include <vector>

namespace multihull::detail {

class Engine;

class MapState final : public Completion, public MapResults, public std::enable_shared_from_this<MapState> {
public:
    static std::shared_ptr<MapState> start(std::shared_ptr<Engine> engine, CallBuffer& call, MapPlan plan,
                                           const TaskOptions* options);

    MapState(std::shared_ptr<Engine> engine, CallBuffer& call, MapPlan plan, const TaskOptions* options);

    // Completion; there is one task.
    bool ready(std::uint32_t) noexcept override;
    bool wait(std::uint32_t, std::int64_t deadline_ns) override;
    std::exception_ptr failure(std::uint32_t) override;
    void read(std::uint32_t, ReadResult reader, void* out) override;
    bool cancel(std::uint32_t) override;
    void abandon(std::uint32_t) override;
    void on_done(std::uint32_t, std::function<void()> callback) override;
    void retain(std::uint32_t) noexcept override;
    void release(std::uint32_t) noexcept override;

    Reader element(std::uint64_t index) const override;
    /// Cancels a map that one worker was to run and none has begun; false otherwise.
    bool withdraw();
    /// As Engine::awaited(), of the first part that has not ended.
    std::optional<os::FutexWord> awaited() noexcept;

    // For those who wait for a map that stops at its first failure.
    /// The engine's tasks that share the map.
    std::vector<std::uint32_t> tasks() const;
    const std::shared_ptr<Engine>& engine() const noexcept { return keep_; }
    bool stopped() const noexcept;
    /// What the lowest of those inputs failed with that failed otherwise than by not being run. When all parts have ended.
    std::exception_ptr first_element_failure() const;
    /// About how many inputs have been run.
    std::uint64_t done_about() const noexcept;
    /// How many inputs no worker has taken; 0 when it was cancelled.
    std::uint64_t unclaimed() const noexcept;
    /// The encoded function.
    std::span<const std::byte> call_bytes() const noexcept;
    /// Bytes of the function and its inputs.
    std::size_t bytes_sent() const noexcept;

    // For the engine's supervision, one call at a time.
    /// The elements that a dead worker's part may not have finished, by what it said of its claim.
    std::pair<std::uint64_t, std::uint64_t> outstanding(std::uint32_t part, std::uint64_t claim,
                                                        std::uint32_t worker) const;
    /// Whether an element is worth one more attempt; counts it.
    bool retry_element(std::uint32_t part, std::uint64_t element, bool worth);
    void fail_element(std::uint64_t element, std::exception_ptr why);
    /// Whether a part is not worth another worker: several died of it before they began a range.
    bool barren(std::uint32_t part, bool began);
    /// Gives the results of a part that has ended back to the worker that made them.
    void release_results(std::uint32_t part) noexcept;
    /// The first of the pins of what a part's results name.
    std::uint32_t result_pins(std::uint32_t part) const noexcept;
    /// Lets the part go on at [begin, end) when it is queued again.
    void resume(std::uint32_t part, std::uint64_t begin, std::uint64_t end);

private:
    struct Part {
        std::uint32_t task = 0;
        std::uint64_t resume_begin = 0;
        std::uint64_t resume_end = 0;
        std::uint64_t attempted = ~std::uint64_t{0};
        unsigned attempts = 0;
        unsigned barren = 0;    // deaths in a row before a range was begun
    };

    void submit(const TaskOptions* options);
    std::exception_ptr first_failure() const;
    std::exception_ptr part_error(const MapPartState& part) const;
    bool complete() const;
    std::uint64_t claimed() const noexcept;
    MapHeader& shared_header() const noexcept;
    MapPartState& shared_part(std::uint32_t part) const noexcept;

    Engine* const engine_;
    std::shared_ptr<Engine>
        keep_;    // let go with the last future: the parts' records may outlive it inside the engine
    const MapPlan plan_;
    unsigned retries_ = 0;
    SharedBlock input_;
    SharedBlock control_;    // header, parts, claims, the encoded function
    std::optional<SharedBlock> output_;
    std::vector<std::shared_ptr<const void>> kept_;    // what inputs name
    mutable TakenOver taken_over_;                     // what results have named to who read them
    std::uint64_t call_at_ = 0;                        // in control_
    std::uint64_t call_size_ = 0;
    std::uint64_t parts_offset_ = 0;
    std::uint64_t claims_offset_ = 0;
    std::uint32_t claim_capacity_ = 0;
    std::vector<Part> parts_;
    std::atomic<std::uint32_t> futures_{1};
    mutable std::mutex mutex_;
    std::vector<std::pair<std::uint64_t, std::exception_ptr>> failed_;    // elements whose worker died
};

}    // namespace multihull::detail
