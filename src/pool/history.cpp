#include "pool/history.hpp"

#include <utility>

namespace multihull::detail {

void History::count_lost(TaskOutcome outcome) noexcept {
    switch (outcome) {
        case TaskOutcome::crashed:
            ++crashed;
            break;
        case TaskOutcome::timed_out:
            ++timed_out;
            break;
        default:
            ++cancelled;
    }
}

// Born and ready are the worker's own words: they count where they can be true.
void History::add_times(Place& place, const Life& life, std::int64_t now_ns) noexcept {
    const std::int64_t end = life.ended_ns != 0 ? life.ended_ns : now_ns;
    const bool born = life.requested_ns <= life.born_ns && life.born_ns <= end;
    const bool ready = born && life.born_ns <= life.ready_ns && life.ready_ns <= end;
    place.start_ns += (born ? life.born_ns : end) - life.requested_ns;
    if (born) place.init_ns += (ready ? life.ready_ns : end) - life.born_ns;
    if (ready) place.ready_ns += end - life.ready_ns;
}

void History::ended(const Life& life) {
    add_times(places_[life.worker], life, life.ended_ns);
    lives_.push_back(life);
    if (lives_.size() > kept_) lives_.pop_front();
}

void History::died(Death death) {
    Place& place = places_[death.worker];
    if (death.held && death.task.started_ns != 0) place.lost_work_ns += death.when_ns - death.task.started_ns;
    deaths_.push_back(std::move(death));
    if (deaths_.size() > kept_) deaths_.pop_front();
}

}    // namespace multihull::detail
