// A part of a map, as the worker that runs it sees it: takes ranges of elements, says which element runs, keeps errors.
//
// Used by the worker's one thread. The order of its stores is what makes blame exact: see README.md, "Maps".
#pragma once

#include "pool/layout.hpp"
#include "pool/result_arena.hpp"
#include "pool/trace_ring.hpp"

#include <multihull/detail/engine.hpp>

#include <optional>

namespace multihull::detail {

class MapWorker final : public MapContext {
public:
    MapWorker(const MapPart& part, WorkerSlot& self, std::uint32_t index, ResultArena& arena, const TaskSlot& task,
              const shm::PinOwner& owner, bool keeps_times, TraceWriter& trace);
    MapWorker(const MapWorker&) = delete;
    MapWorker& operator=(const MapWorker&) = delete;
    ~MapWorker();

    void run(void (*elements)(void*, std::uint64_t, std::uint64_t), void* state) override;
    Writer& begin_cell() override;
    void finish_cell(std::uint64_t element) override;

private:
    // Encodes results one behind the other into blocks; only the result at hand moves when a block is full.
    class CellGrowth final : public Growth {
    public:
        explicit CellGrowth(MapWorker& map) noexcept : map_(map) {}
        std::span<std::byte> grow(std::span<const std::byte> used, std::size_t capacity) override;

    private:
        MapWorker& map_;
    };

    void start_timed(std::uint64_t element) noexcept override;
    bool next_range(std::uint64_t& begin, std::uint64_t& end);
    bool failed(std::uint64_t element);
    void set_progress(std::uint64_t value) noexcept;
    void finish_range() noexcept;
    void start_clock() noexcept;
    void account() noexcept;
    void trace(std::uint64_t length) noexcept;
    std::uint64_t chunk(std::uint64_t from, std::uint32_t claim) noexcept;
    void write_exception(std::uint64_t element);
    void publish_pins() noexcept;

    MapHeader& header_;
    MapPartState& part_;
    WorkerSlot& self_;
    std::atomic<std::uint64_t>* claims_;
    const std::uint32_t index_;
    ResultArena& arena_;
    const TaskSlot& task_;
    const shm::PinOwner owner_;    // of what results name
    const bool keeps_times_;
    TraceWriter& trace_;
    std::optional<Reader> reader_;
    bool in_range_ = false;
    bool resuming_ = false;
    std::uint64_t range_begin_ = 0;
    std::uint64_t range_end_ = 0;
    std::int64_t range_started_ns_ = 0;
    bool measured_ = false;             // the range's length was chosen here, by the time that the one before took
    std::uint64_t range_failed_ = 0;    // inputs of the range that threw
    std::uint64_t chunk_ = 1;
    std::uint64_t attempted_element_ = ~std::uint64_t{0};
    std::uint32_t attempts_ = 0;
    CellGrowth growth_{*this};
    std::span<std::byte> room_;    // free rest of the block at hand
    std::optional<Writer> cell_;
};

}    // namespace multihull::detail
