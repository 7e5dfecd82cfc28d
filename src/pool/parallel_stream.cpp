#include <multihull/detail/parallel_stream.hpp>

#include <algorithm>

namespace multihull::detail {

namespace {

// Long enough that sending a batch does not count, short enough that results do not wait long for each other.
constexpr double kBatchNs = 1e6;

void end_quietly(ImapUnit& unit) noexcept {
    try {
        unit.completion->cancel(unit.task);
    } catch (...) {
        // In a forked child it is the parent's.
    }
}

}    // namespace

CallsUnderWay::CallsUnderWay(const ParallelOptions& options, std::size_t jobs, std::unique_ptr<CallFeeder> feeder,
                             bool ordered)
    : options_(options),
      jobs_(jobs),
      ordered_(ordered),
      window_(options.pre_dispatch != 0 ? options.pre_dispatch : 2 * jobs),
      batch_(std::max<std::size_t>(options.batch_size, 1)),
      feeder_(std::move(feeder)),
      report_(options_, jobs, feeder_->total()) {
    fill();
}

CallsUnderWay::~CallsUnderWay() {
    // Nobody will read them: what has not started need not start, and what runs is ended where that is possible.
    for (auto& [id, unit] : units_) unit.completion->abandon(unit.task);
    for (auto& [id, unit] : units_) end_quietly(unit);
}

ImapUnit* CallsUnderWay::wait() {
    fill();
    if (units_.empty()) {
        if (auto why = std::exchange(input_failure_, nullptr)) std::rethrow_exception(std::move(why));
        feeder_->finished();
        report_.end();
        return nullptr;
    }
    if (!reading_) reading_ = ordered_ ? first_ : done_->wait();
    ImapUnit& unit = units_.at(*reading_);
    unit.completion->wait(unit.task, kNoDeadline);
    return &unit;
}

void CallsUnderWay::one_more() {
    const auto place = units_.find(*reading_);
    if (++place->second.next >= place->second.count) forget(place);
    report_.one_more();
}

void CallsUnderWay::fill() {
    if (input_ended_) return;
    try {
        while (units_.size() < window_ && !feeder_->at_end()) {
            ImapUnit unit = feeder_->submit(batch_);
            const std::uint64_t id = next_id_++;
            const auto place = units_.emplace(id, std::move(unit)).first;
            if (!ordered_) done_->expect(place->second, id);
        }
    } catch (...) {
        // It comes in its place: behind what came before it.
        input_failure_ = std::current_exception();
        input_ended_ = true;
    }
}

void CallsUnderWay::forget(Units::iterator unit) noexcept {
    calls_done_ += unit->second.count;
    units_.erase(unit);
    reading_.reset();
    ++first_;
    if (options_.batch_size != 0) return;
    // What a call takes, where the workers were never idle; where the reader is slow, a small batch costs nothing.
    const auto elapsed = std::chrono::duration<double, std::nano>(std::chrono::steady_clock::now() - began_).count();
    const double ideal = kBatchNs * static_cast<double>(calls_done_) / (elapsed * static_cast<double>(jobs_));
    batch_ = static_cast<std::size_t>(std::clamp(ideal, 1.0, static_cast<double>(batch_) * 2));
}

}    // namespace multihull::detail
