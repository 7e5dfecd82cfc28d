#include "pool/map_worker.hpp"

#include "codec/exceptions.hpp"
#include "os/clock.hpp"
#include "os/fault.hpp"
#include "process/throw_trace.hpp"

#include <algorithm>
#include <new>
#include <unistd.h>

namespace multihull::detail {

namespace {

// Long enough that taking a range (about 100 ns) does not count, short enough that the last ranges end together.
constexpr std::int64_t kTargetNs = 200'000;
constexpr std::size_t kCellBlock = std::size_t{64} << 10;

}    // namespace

MapWorker::MapWorker(const MapPart& part, WorkerSlot& self, std::uint32_t index, ResultArena& arena,
                     const TaskSlot& task, const shm::PinOwner& owner, bool keeps_times, TraceWriter& trace)
    : header_(*shm::Region::instance().at<MapHeader>(part.map)),
      part_(shm::Region::instance().at<MapPartState>(header_.parts_offset)[part.part]),
      self_(self),
      claims_(shm::Region::instance().at<std::atomic<std::uint64_t>>(header_.claims_offset)),
      index_(index),
      arena_(arena),
      task_(task),
      owner_(owner),
      keeps_times_(keeps_times),
      trace_(trace) {
    progress_ = &self.progress;
    timed_ = header_.timed != 0;
    reader_.emplace(std::span(shm::Region::instance().at(header_.call_offset), header_.call_size));
    call_ = &*reader_;
    input_ = shm::readable_at(header_.input_offset);
    output_ = shm::Region::instance().at(header_.output_offset);
    count_ = header_.count;
    chunk_ = header_.fixed_chunk != 0 ? header_.fixed_chunk : 1;
}

void MapWorker::run(void (*elements)(void*, std::uint64_t, std::uint64_t), void* state) {
    struct Call {
        void (*elements)(void*, std::uint64_t, std::uint64_t);
        void* state;
        std::uint64_t begin;
        std::uint64_t end;
    } call{elements, state, 0, 0};
    while (next_range(call.begin, call.end)) {
        while (call.begin < call.end) {
            try {
                call_with_throw_trace(
                    [](void* data) {
                        const auto& c = *static_cast<const Call*>(data);
                        c.elements(c.state, c.begin, c.end);
                    },
                    &call);
                call.begin = call.end;
            } catch (...) {
                guard_.check();
                const std::uint64_t element = (self_.progress.load(std::memory_order_relaxed) >> 1) - 1;
                call.begin = failed(element) ? element : element + 1;
            }
        }
    }
}

// Where the part ends in the middle of a range (an error that could not even be kept), nothing of it is left for the next part.
MapWorker::~MapWorker() {
    if (!in_range_) return;
    self_.claim.store(0, std::memory_order_release);
    set_progress(0);
}

bool MapWorker::next_range(std::uint64_t& begin, std::uint64_t& end) {
    if (in_range_) finish_range();
    if (header_.cancelled.load(std::memory_order_relaxed) != 0) return false;
    if (part_.resume_done.load(std::memory_order_relaxed) == 0) {
        if (part_.resume_begin < part_.resume_end) {
            self_.claim.store(kResume, std::memory_order_release);
            resuming_ = true;
            in_range_ = true;
            begin = range_begin_ = part_.resume_begin;
            end = range_end_ = part_.resume_end;
            measured_ = false;
            start_clock();
            return true;
        }
        part_.resume_done.store(1, std::memory_order_release);
    }
    std::uint32_t claim = header_.next_claim.load(std::memory_order_relaxed);
    for (;;) {
        while (claim < header_.claim_capacity && claims_[claim].load(std::memory_order_acquire) != 0) ++claim;
        const std::uint64_t from = claim == 0 ? 0 : map_claim::end(claims_[claim - 1].load(std::memory_order_acquire));
        if (claim >= header_.claim_capacity || from >= count_) return false;
        const std::uint64_t to = from + chunk(from, claim);
        self_.claim.store(std::uint64_t{claim} + 1, std::memory_order_release);
        os::kill_point(os::KillPoint::range_intent);
        std::uint64_t unclaimed = 0;
        if (!claims_[claim].compare_exchange_strong(unclaimed, map_claim::make(to, index_), std::memory_order_acq_rel))
            continue;
        os::kill_point(os::KillPoint::range_claimed);
        header_.next_claim.store(claim + 1, std::memory_order_relaxed);
        in_range_ = true;
        begin = range_begin_ = from;
        end = range_end_ = to;
        measured_ = true;
        start_clock();
        return true;
    }
}

void MapWorker::start_clock() noexcept {
    range_failed_ = 0;
    range_started_ns_ = os::now_ns();
    if (keeps_times_ && !timed_) self_.started_ns.store(range_started_ns_, std::memory_order_release);
}

// What the range has come to; before it is said to be finished.
void MapWorker::account() noexcept {
    const std::uint64_t length = range_end_ - range_begin_;
    if (trace_) trace(length);
    WorkerCounters::add(self_.counters.inputs_done, length - range_failed_);
    if (range_failed_ != 0) WorkerCounters::add(self_.counters.inputs_failed, range_failed_);
    if (!header_.cells) WorkerCounters::add(self_.counters.result_bytes, length * header_.output_size);
}

void MapWorker::trace(std::uint64_t length) noexcept {
    TraceEntry entry;
    entry.submitted_ns = task_.submitted_ns;
    entry.started_ns = range_started_ns_;
    entry.ended_ns = os::now_ns();
    entry.token = task_.token;
    entry.leading = leading_bytes(std::span(shm::Region::instance().at(header_.call_offset), header_.call_size));
    entry.first = range_begin_;
    entry.count = static_cast<std::uint32_t>(std::min<std::uint64_t>(length, ~std::uint32_t{0}));
    entry.pid = self_.pid.load(std::memory_order_relaxed);
    entry.outcome = range_failed_ != 0 ? TraceEntry::exception : TraceEntry::value;
    trace_.write(entry);
    WorkerCounters::add(self_.counters.work_ns, static_cast<std::uint64_t>(entry.ended_ns - entry.started_ns));
}

// The range is finished when `progress` says so; only then is the claim taken back, and only then `progress` emptied, so that at
// no instant a finished range looks as if it had not begun.
void MapWorker::finish_range() noexcept {
    account();
    set_progress((range_end_ + 1) << 1);
    os::kill_point(os::KillPoint::element_stored);
    if (resuming_) part_.resume_done.store(1, std::memory_order_release);
    self_.claim.store(0, std::memory_order_release);
    set_progress(0);
    if (measured_ && header_.fixed_chunk == 0) {
        const std::int64_t took = std::max<std::int64_t>(os::now_ns() - range_started_ns_, 1);
        const std::uint64_t length = range_end_ - range_begin_;
        const double ideal = static_cast<double>(length) * static_cast<double>(kTargetNs) / static_cast<double>(took);
        // At most 16 times as many as the last time: one quick element says little about the next thousand.
        chunk_ = static_cast<std::uint64_t>(std::clamp(ideal, 1.0, static_cast<double>(length) * 16));
    }
    resuming_ = false;
    in_range_ = false;
}

std::uint64_t MapWorker::chunk(std::uint64_t from, std::uint32_t claim) noexcept {
    const std::uint64_t left = count_ - from;
    const std::uint64_t claims_left = header_.claim_capacity - claim;
    const std::uint64_t least = (left + claims_left - 1) / claims_left;
    std::uint64_t size = chunk_;
    // Towards the end smaller pieces, so that nobody waits long for the one who took the last.
    if (header_.fixed_chunk == 0)
        size = std::min(size, std::max<std::uint64_t>(left / (2 * std::uint64_t{header_.part_count}), 1));
    return std::min(std::max(size, least), left);
}

void MapWorker::set_progress(std::uint64_t value) noexcept {
    if (!timed_) {
        self_.progress.store(value, std::memory_order_release);
        return;
    }
    std::uint64_t before = self_.progress.load(std::memory_order_acquire);
    do {
        // Condemned: the supervisor has decided that the element's time was over, and kills this process in a moment.
        while (before & 1) ::pause();    // NOLINT(bugprone-infinite-loop): its end is the process's
    } while (!self_.progress.compare_exchange_weak(before, value, std::memory_order_acq_rel));
}

void MapWorker::start_timed(std::uint64_t element) noexcept {
    // The time first: whoever reads the element and then the time never finds one too early.
    self_.started_ns.store(os::now_ns(), std::memory_order_release);
    if (task_.cpu_limit_ns > 0) self_.cpu_started_ns.store(os::own_cpu_ns(), std::memory_order_release);
    set_progress((element + 1) << 1);
    os::kill_point(os::KillPoint::element_started);
}

bool MapWorker::failed(std::uint64_t element) {
    const bool memory = [] {
        try {
            throw;
        } catch (const std::bad_alloc&) {
            return true;
        } catch (...) {
            return false;
        }
    }();
    if (attempted_element_ != element) {
        attempted_element_ = element;
        attempts_ = 0;
    }
    const auto retry_on = static_cast<RetryOn>(task_.retry_on);
    const bool worth = (retry_on & RetryOn::exception) || (memory && (retry_on & RetryOn::memory));
    if (worth && attempts_ < task_.exception_retries) {
        ++attempts_;
        return true;
    }
    ++range_failed_;
    write_exception(element);
    if (header_.stop_on_failure != 0) header_.cancelled.store(1, std::memory_order_release);
    return false;
}

void MapWorker::write_exception(std::uint64_t element) {
    const bool first = part_.error_element.load(std::memory_order_relaxed) == 0;
    if (!header_.cells && !first) return;    // a map throws its first error; the part's elements come in order
    Writer& writer = begin_cell();
    encode_exception(writer, std::current_exception(), task_throw_stack());
    clear_throw_stack();
    const std::uint64_t offset = shm::Region::instance().offset_of(writer.bytes().data());
    publish_pins();
    if (header_.cells) {
        auto& cell = reinterpret_cast<ResultCell*>(output_)[element];
        cell.offset = offset;
        cell.size = writer.size();
        cell.kind.store(ResultCell::exception, std::memory_order_release);
    } else {
        part_.error_offset = offset;
        part_.error_size = writer.size();
        part_.error_element.store(element + 1, std::memory_order_release);
    }
    room_ = room_.subspan(std::min(room_.size(), writer.size()));
}

Writer& MapWorker::begin_cell() {
    cell_.emplace(room_, growth_);
    return *cell_;
}

void MapWorker::finish_cell(std::uint64_t element) {
    auto& cell = reinterpret_cast<ResultCell*>(output_)[element];
    cell.offset = cell_->size() == 0 ? 0 : shm::Region::instance().offset_of(cell_->bytes().data());
    cell.size = cell_->size();
    WorkerCounters::add(self_.counters.result_bytes, cell.size);
    publish_pins();
    cell.kind.store(ResultCell::value, std::memory_order_release);
    room_ = room_.subspan(std::min(room_.size(), cell_->size()));
    os::kill_point(os::KillPoint::element_stored);
}

// In front of the part's others. What a death leaves beside the chain is found when the part is forgotten: see Record::bereaved.
void MapWorker::publish_pins() noexcept {
    const std::uint32_t first = cell_->take_pins();
    if (first == 0) return;
    shm::move_pins(first, {shm::Region::instance().own_number()}, owner_, part_.pins.load(std::memory_order_relaxed));
    os::kill_point(os::KillPoint::pins_published);
    part_.pins.store(first, std::memory_order_release);
}

std::span<std::byte> MapWorker::CellGrowth::grow(std::span<const std::byte> used, std::size_t capacity) {
    const std::size_t size = std::max(capacity, kCellBlock - sizeof(ResultBlock));
    const shm::Offset block = map_.arena_.allocate(size);
    // The parent releases the whole chain when the map is forgotten.
    shm::Region::instance().at<ResultBlock>(block)->previous = map_.part_.blocks.load(std::memory_order_relaxed);
    map_.part_.blocks.store(block, std::memory_order_release);
    map_.room_ = {ResultArena::room(block), size};
    copy_bytes(map_.room_.data(), used.data(), used.size());
    return map_.room_;
}

}    // namespace multihull::detail
