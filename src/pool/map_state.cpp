#include "pool/map_state.hpp"

#include "codec/exceptions.hpp"
#include "os/clock.hpp"
#include "os/thread_sanitizer.hpp"
#include "pool/engine.hpp"

#include <algorithm>
#include <cstring>
#include <stdexcept>
#include <string>

namespace multihull::detail {

namespace {

// Bounds the memory of the claims (128 KiB), and with it how small the pieces of a very long map can be.
constexpr std::uint64_t kMaxClaims = 16384;

constexpr std::uint64_t round_up(std::uint64_t value) { return (value + 63) / 64 * 64; }

}    // namespace

void throw_no_room_for_results(std::uint64_t results, std::uint64_t places) {
    throw std::invalid_argument("a map of " + std::to_string(results) +
                                " inputs can't write its results into an array of " + std::to_string(places) +
                                ": make the array as big as the range of inputs");
}

std::shared_ptr<MapState> MapState::start(std::shared_ptr<Engine> engine, CallBuffer& call, MapPlan plan,
                                          const TaskOptions* options) {
    auto state = std::make_shared<MapState>(std::move(engine), call, plan, options);
    state->submit(options);
    state->engine_->add_map(state);    // now its parts stand still
    return state;
}

MapState::MapState(std::shared_ptr<Engine> engine, CallBuffer& call, MapPlan plan, const TaskOptions* options)
    : engine_(engine.get()), keep_(std::move(engine)), plan_(plan) {
    kept_ = std::move(call.kept_);
    if (plan.input_capacity != 0) input_ = SharedBlock::adopt(plan.input_offset, plan.input_capacity);
    const PoolOptions& defaults = engine_->options_;
    retries_ = options != nullptr ? options->retries.value_or(defaults.retries) : defaults.retries;
    const auto timeout = options != nullptr ? options->timeout.value_or(defaults.task_timeout) : defaults.task_timeout;
    const auto cpu_time =
        options != nullptr ? options->cpu_time.value_or(defaults.limits.cpu_time) : defaults.limits.cpu_time;

    const std::uint64_t workers = plan.max_parts != 0 ? plan.max_parts : engine_->workers();
    const auto part_count = static_cast<std::uint32_t>(std::min<std::uint64_t>(workers, plan.count));
    claim_capacity_ = static_cast<std::uint32_t>(std::min<std::uint64_t>(plan.count, kMaxClaims));
    const std::uint64_t call_size = call.writer().size();

    const std::uint64_t parts_at = round_up(sizeof(MapHeader));
    const std::uint64_t claims_at = parts_at + part_count * sizeof(MapPartState);
    const std::uint64_t call_at = claims_at + round_up(claim_capacity_ * sizeof(std::uint64_t));
    control_ = SharedBlock(call_at + call_size);
    std::memset(control_.data(), 0, call_at);
    if (call_size != 0) std::memcpy(control_.data() + call_at, call.writer().bytes().data(), call_size);
    parts_offset_ = control_.offset() + parts_at;
    claims_offset_ = control_.offset() + claims_at;

    const std::size_t output_size = plan.cells ? plan.count * sizeof(ResultCell) : plan.count * plan.output_size;
    if (output_size != 0 && plan.output_offset == 0) {
        output_.emplace(output_size);
        if (plan.cells) std::memset(output_->data(), 0, output_size);
    }

    auto& header = *reinterpret_cast<MapHeader*>(control_.data());
    header.count = plan.count;
    header.call_offset = control_.offset() + call_at;
    header.call_size = call_size;
    header.input_offset = plan.input_offset;
    header.output_offset = output_ ? output_->offset() : plan.output_offset;
    header.parts_offset = parts_offset_;
    header.claims_offset = claims_offset_;
    header.claim_capacity = claim_capacity_;
    header.part_count = part_count;
    header.timed = timeout.count() > 0 || cpu_time.count() > 0 ? 1 : 0;
    header.cells = plan.cells ? 1 : 0;
    header.output_size = plan.output_size;
    header.stop_on_failure = plan.stop_on_failure ? 1 : 0;
    header.fixed_chunk = options != nullptr ? options->chunksize : 0;

    call_at_ = call_at;
    call_size_ = call_size;
    count = plan.count;
    if (output_ && !plan.cells) plain = output_->data();
    parts_.resize(part_count);
}

void MapState::submit(const TaskOptions* options) {
    for (std::uint32_t i = 0; i < parts_.size(); ++i) {
        const MapPart part{control_.offset(), i};
        try {
            parts_[i].task =
                engine_->enqueue_new(plan_.token, nullptr, &part, sizeof part, options, {shared_from_this(), i});
        } catch (...) {
            // The parts that are queued already find nothing to do.
            reinterpret_cast<MapHeader*>(control_.data())->cancelled.store(1, std::memory_order_release);
            parts_.resize(i);
            futures_.store(0);
            const std::shared_ptr<Engine> engine = std::move(keep_);    // the records of the parts keep this
            for (const Part& queued : parts_) engine_->release(queued.task);
            throw;
        }
    }
}

MapPartState& MapState::shared_part(std::uint32_t part) const noexcept {
    return shm::Region::instance().at<MapPartState>(parts_offset_)[part];
}

void MapState::release_results(std::uint32_t number) noexcept {
    const MapPartState& part = shared_part(number);
    const auto& region = shm::Region::instance();
    std::uint64_t block = part.blocks.load(std::memory_order_acquire);
    // What a worker wrote may be a circle, or point anywhere: every block is at least this big, so there can't be more of them.
    for (std::uint64_t steps = 0; block != 0 && steps < count + 1'000'000; ++steps) {
        if (block % alignof(ResultBlock) != 0 || !region.in_extents(block, sizeof(ResultBlock))) return;
        auto& head = *region.at<ResultBlock>(block);
        const std::uint64_t previous = head.previous;
        os::gave_to_process();
        head.released.store(1, std::memory_order_release);
        block = previous;
    }
}

std::uint32_t MapState::result_pins(std::uint32_t part) const noexcept {
    return shared_part(part).pins.load(std::memory_order_acquire);
}

bool MapState::ready(std::uint32_t) noexcept {
    return std::all_of(parts_.begin(), parts_.end(), [&](const Part& part) { return engine_->ready(part.task); });
}

bool MapState::wait(std::uint32_t, std::int64_t deadline_ns) {
    return std::all_of(parts_.begin(), parts_.end(),
                       [&](const Part& part) { return engine_->wait(part.task, deadline_ns); });
}

std::exception_ptr MapState::part_error(const MapPartState& part) const {
    const std::uint64_t offset = part.error_offset;
    const std::uint64_t size = part.error_size;
    const auto& region = shm::Region::instance();
    os::got_from_process();
    if (!region.in_extents(offset, size)) {
        return std::make_exception_ptr(
            CodecError("a worker left an error that lies outside of its memory: it was overwritten"));
    }
    try {
        Reader reader(std::span(region.at(offset), size), taken_over_);
        return decode_exception(reader);
    } catch (const CodecError&) {
        return std::current_exception();
    }
}

// The failure of the lowest input, as a loop would have met it first.
std::exception_ptr MapState::first_failure() const {
    std::uint64_t lowest = ~std::uint64_t{0};
    std::exception_ptr why;
    {
        const std::lock_guard guard(mutex_);
        for (const auto& [element, error] : failed_) {
            if (element < lowest) {
                lowest = element;
                why = error;
            }
        }
    }
    for (std::uint32_t i = 0; i < parts_.size(); ++i) {
        const MapPartState& part = shared_part(i);
        const std::uint64_t element = part.error_element.load(std::memory_order_acquire);
        if (element != 0 && element - 1 < lowest) {
            lowest = element - 1;
            why = part_error(part);
        }
    }
    return why;
}

// Whether every element was run: a map that was cancelled may end with some that were not, and with no part that was lost.
bool MapState::complete() const {
    for (std::uint32_t i = 0; i < parts_.size(); ++i) {
        if (parts_[i].resume_begin < parts_[i].resume_end &&
            shared_part(i).resume_done.load(std::memory_order_acquire) == 0) {
            return false;
        }
    }
    const auto* const claims = shm::Region::instance().at<std::atomic<std::uint64_t>>(claims_offset_);
    std::uint64_t end = 0;
    for (std::uint32_t i = 0; i < claim_capacity_ && end < count; ++i) {
        const std::uint64_t claim = claims[i].load(std::memory_order_acquire);
        if (claim == 0) return false;
        end = map_claim::end(claim);
    }
    return end >= count;
}

std::exception_ptr MapState::failure(std::uint32_t) {
    for (const Part& part : parts_) {
        if (auto why = engine_->failure(part.task)) return why;
    }
    if (plan_.cells) return nullptr;    // each element speaks for itself
    if (!complete())
        return std::make_exception_ptr(Cancelled("the map was cancelled before all of its inputs were run"));
    return first_failure();
}

void MapState::read(std::uint32_t, ReadResult reader_of, void* out) {
    if (auto why = failure(0)) std::rethrow_exception(std::move(why));
    ResultSource source;
    source.map = this;
    reader_of(source, out);
}

Reader MapState::element(std::uint64_t index) const {
    {
        const std::lock_guard guard(mutex_);
        for (const auto& [element, error] : failed_) {
            if (element == index) std::rethrow_exception(error);
        }
    }
    const auto& cell = reinterpret_cast<const ResultCell*>(output_->data())[index];
    const std::uint64_t kind = cell.kind.load(std::memory_order_acquire);
    const std::uint64_t offset = cell.offset;
    const std::uint64_t size = cell.size;
    const auto& region = shm::Region::instance();
    if (kind == ResultCell::none) throw Cancelled("this element of a map was not run: the map was cancelled");
    if (size == 0 && kind == ResultCell::value) return Reader({});
    os::got_from_process();
    if (!region.in_extents(offset, size))
        throw CodecError("a worker left a result that lies outside of its memory: it was overwritten");
    const std::span<const std::byte> bytes(region.at(offset), size);
    if (kind == ResultCell::exception) {
        Reader reader(bytes, taken_over_);
        std::rethrow_exception(decode_exception(reader));
    }
    return {bytes, taken_over_};
}

bool MapState::cancel(std::uint32_t) {
    reinterpret_cast<MapHeader*>(control_.data())->cancelled.store(1, std::memory_order_release);
    bool any = false;
    for (const Part& part : parts_) any = engine_->cancel(part.task) || any;
    return any;
}

void MapState::abandon(std::uint32_t) {
    if (!engine_->ours()) return;
    reinterpret_cast<MapHeader*>(control_.data())->cancelled.store(1, std::memory_order_release);
    for (const Part& part : parts_) engine_->abandon(part.task);
}

std::optional<os::FutexWord> MapState::awaited() noexcept {
    for (const Part& part : parts_) {
        if (const auto word = engine_->awaited(part.task)) return word;
    }
    return std::nullopt;
}

bool MapState::withdraw() { return parts_.size() == 1 && engine_->withdraw(parts_.front().task); }

void MapState::on_done(std::uint32_t, std::function<void()> callback) {
    auto left = std::make_shared<std::atomic<std::size_t>>(parts_.size() + 1);
    auto shared = std::make_shared<std::function<void()>>(std::move(callback));
    const auto one_less = [left, shared] {
        if (left->fetch_sub(1) == 1) (*shared)();
    };
    for (const Part& part : parts_) engine_->on_done(part.task, one_less);
    one_less();
}

void MapState::retain(std::uint32_t) noexcept { futures_.fetch_add(1, std::memory_order_relaxed); }

void MapState::release(std::uint32_t) noexcept {
    if (futures_.fetch_sub(1, std::memory_order_acq_rel) != 1) return;
    // The engine may live only through this map's future: it goes last, when none of its locks is held.
    const std::shared_ptr<MapState> self = shared_from_this();
    const std::shared_ptr<Engine> engine = std::move(keep_);
    for (const Part& part : parts_) engine->release(part.task);
}

std::pair<std::uint64_t, std::uint64_t> MapState::outstanding(std::uint32_t part, std::uint64_t claim,
                                                              std::uint32_t worker) const {
    const MapPartState& shared = shared_part(part);
    const Part& own = parts_[part];
    if (claim == kResume) return {own.resume_begin, own.resume_end};
    if (claim != 0 && claim <= claim_capacity_) {
        const auto* const claims = shm::Region::instance().at<std::atomic<std::uint64_t>>(claims_offset_);
        const std::uint64_t made = claims[claim - 1].load(std::memory_order_acquire);
        if (made != 0 && map_claim::worker(made) == worker) {
            const std::uint64_t begin =
                claim == 1 ? 0 : map_claim::end(claims[claim - 2].load(std::memory_order_acquire));
            const std::uint64_t end = map_claim::end(made);
            if (begin <= end && end <= count) return {begin, end};
        }
    }
    if (claim == 0 && shared.resume_done.load(std::memory_order_acquire) == 0)
        return {own.resume_begin, own.resume_end};
    return {0, 0};
}

bool MapState::retry_element(std::uint32_t part, std::uint64_t element, bool worth) {
    Part& own = parts_[part];
    if (own.attempted != element) {
        own.attempted = element;
        own.attempts = 0;
    }
    if (!worth || own.attempts >= retries_) return false;
    ++own.attempts;
    return true;
}

bool MapState::barren(std::uint32_t part, bool began) {
    constexpr unsigned kTried = 5;
    Part& own = parts_[part];
    own.barren = began ? 0 : own.barren + 1;
    return own.barren >= kTried;
}

void MapState::fail_element(std::uint64_t element, std::exception_ptr why) {
    const std::lock_guard guard(mutex_);
    failed_.emplace_back(element, std::move(why));
    if (plan_.stop_on_failure) shared_header().cancelled.store(1, std::memory_order_release);
}

MapHeader& MapState::shared_header() const noexcept { return *reinterpret_cast<MapHeader*>(control_.data()); }

bool MapState::stopped() const noexcept { return shared_header().cancelled.load(std::memory_order_acquire) != 0; }

std::vector<std::uint32_t> MapState::tasks() const {
    std::vector<std::uint32_t> tasks;
    tasks.reserve(parts_.size());
    for (const Part& part : parts_) tasks.push_back(part.task);
    return tasks;
}

std::exception_ptr MapState::first_element_failure() const {
    if (!plan_.cells) return first_failure();
    std::uint64_t lowest = count;
    {
        const std::lock_guard guard(mutex_);
        for (const auto& [element, error] : failed_) lowest = std::min(lowest, element);
    }
    const auto* const cells = reinterpret_cast<const ResultCell*>(output_->data());
    for (std::uint64_t i = 0; i < lowest; ++i) {
        if (cells[i].kind.load(std::memory_order_acquire) == ResultCell::exception) lowest = i;
    }
    if (lowest == count) return nullptr;
    try {
        static_cast<void>(element(lowest));
        return nullptr;
    } catch (...) {
        return std::current_exception();
    }
}

std::uint64_t MapState::claimed() const noexcept {
    const auto* const claims = shm::Region::instance().at<std::atomic<std::uint64_t>>(claims_offset_);
    std::uint64_t claimed = 0;
    for (std::uint32_t i = 0; i < claim_capacity_; ++i) {
        const std::uint64_t claim = claims[i].load(std::memory_order_acquire);
        if (claim == 0) break;
        claimed = std::min(map_claim::end(claim), count);
    }
    return claimed;
}

// Nobody is asked to count: what was claimed, less what the claimers have still to do.
std::uint64_t MapState::done_about() const noexcept {
    const std::uint64_t claimed = this->claimed();
    return claimed > parts_.size() ? claimed - parts_.size() : 0;
}

std::uint64_t MapState::unclaimed() const noexcept {
    if (stopped()) return 0;
    const std::uint64_t claimed = this->claimed();
    return claimed < count ? count - claimed : 0;
}

std::span<const std::byte> MapState::call_bytes() const noexcept { return {control_.data() + call_at_, call_size_}; }

std::size_t MapState::bytes_sent() const noexcept { return plan_.input_capacity + call_size_; }

void MapState::resume(std::uint32_t part, std::uint64_t begin, std::uint64_t end) {
    Part& own = parts_[part];
    own.resume_begin = begin;
    own.resume_end = end;
    MapPartState& shared = shared_part(part);
    shared.resume_begin = begin;
    shared.resume_end = end;
    shared.resume_done.store(begin < end ? 0 : 1, std::memory_order_release);
}

}    // namespace multihull::detail
