// Who calls MPI on rank 0, and when: the conductor, or a guest.
#include "mpi/bells.hpp"
#include "mpi/cluster.hpp"
#include "mpi/poll.hpp"
#include "mpi/transport.hpp"
#include "mpi/world.hpp"
#include "os/clock.hpp"
#include "os/futex.hpp"

#include <algorithm>
#include <utility>

namespace multihull::mpi {

namespace {

/// How long the conductor stands by when no guest has come; what a guest left behind and told nobody of waits that long at most.
constexpr std::int64_t kStandByNs = 200'000;

}    // namespace

void World::conduct() {
    Poll poll;
    if (meeting_.crowded(0)) poll.be_crowded();
    Sleeper sleeper(meeting_.bells, 0);
    for (;;) {
        const std::uint32_t epoch = epoch_.load(std::memory_order_seq_cst);
        if (has_guest()) {
            sleeper.stay_awake();
            stand_by(epoch);
            poll.something_happened(os::now_ns());
            continue;
        }
        bool did = false;
        bool waits = false;
        bool transport_busy = false;
        Poll::Rest rest;
        std::vector<std::shared_ptr<Cluster>> over;
        {
            const std::lock_guard baton(baton_);
            if (guests_failure_) std::rethrow_exception(guests_failure_);
            did = turn();
            if (told_the_end_ && (!transport_->busy() || !did)) {
                const bool any_lost = std::find(lost_.begin(), lost_.end(), true) != lost_.end();
                if (!transport_->busy() || any_lost) return;
            }
            waits = did || expects();
            transport_busy = transport_->busy() || told_the_end_;
            if (!did) rest = this->rest();
            over.swap(over_);
        }
        over.clear();
        const std::int64_t now = os::now_ns();
        if (did) {
            sleeper.stay_awake();
            poll.something_happened(now);
            continue;
        }
        const std::int64_t pause = waits ? poll.pause_ns(now, rest.task_ns) : os::kNever;
        const bool worth_a_ring = rest.ns == 0 ? pause != 0 : rest.task_ns >= Poll::kVeryLongTaskNs;
        if (sleeper.hears() && waits && worth_a_ring) {
            if (!sleeper.may_sleep()) continue;
            rests_.store(rest.ns != 0, std::memory_order_relaxed);
            listen(sleeper, epoch, now + std::max(pause, rest.ns), transport_busy);
            rests_.store(false, std::memory_order_relaxed);
            continue;
        }
        sleeper.stay_awake();
        if (pause == 0 && rest.ns == 0) {
            poll.give_way(now);
        } else if (pause > rest.ns) {
            sleep(epoch, pause);
        } else {
            rests_.store(true, std::memory_order_relaxed);
            sleep(epoch, rest.ns);
            rests_.store(false, std::memory_order_relaxed);
        }
        if (!waits) poll.something_happened(os::now_ns());
    }
}

// Needs baton_. True when there was something to do.
bool World::turn() {
    publish_traffic();    // of what was sent, before anybody hears what came of it
    bool did = transport_->progress();
    did |= receive();
    // Before the end is told, which is another one after a loss.
    if (any_died_.load(std::memory_order_relaxed)) look_for_lost();
    return give_out() || did;
}

// Needs baton_. True when there was something to do.
bool World::give_out() {
    bool did = pump_clusters();
    if (ending_.load(std::memory_order_relaxed) && !std::exchange(told_the_end_, true)) {
        const bool together = std::find(lost_.begin(), lost_.end(), true) == lost_.end();
        for (std::uint32_t rank = 1; rank < size(); ++rank) {
            if (lost_[rank]) continue;
            post(rank, [&](Packet& packet) {
                packet.put(Say::end);
                packet.put(static_cast<std::uint8_t>(together));
            });
        }
    }
    did |= flush();
    return did;
}

// Needs baton_. Whether somebody has to look at MPI again, unasked.
bool World::expects() { return transport_->busy() || told_the_end_ || expects_answers() || clusters_expect(); }

// Whether somebody left something to do, since the last turn.
bool World::something_came() const noexcept {
    return posted_.load(std::memory_order_seq_cst) || ending_.load(std::memory_order_seq_cst) ||
           any_died_.load(std::memory_order_seq_cst);
}

bool World::clusters_expect() {
    const std::lock_guard guard(mutex_);
    return std::any_of(clusters_.begin(), clusters_.end(), [](const auto& entry) { return entry.second->expects(); });
}

// Needs baton_. 0 where a rank may run out of tasks soon, or something else is waited for.
Poll::Rest World::rest() {
    if (transport_->busy() || told_the_end_ || expects_answers()) return {};
    const std::lock_guard guard(mutex_);
    Poll::Rest all{os::kNever, os::kNever};
    for (const auto& [number, cluster] : clusters_) {
        const Poll::Rest one = cluster->rest();
        all = {std::min(all.ns, one.ns), std::min(all.task_ns, one.task_ns)};
    }
    return all.ns == os::kNever ? Poll::Rest{} : all;
}

bool World::expects_answers() {
    const std::lock_guard guard(answers_mutex_);
    return !questions_.empty();
}

bool World::pump_clusters() {
    bool did = false;
    const std::lock_guard guard(mutex_);
    for (auto place = clusters_.begin(); place != clusters_.end();) {
        did |= place->second->pump();
        if (place->second->over()) {
            over_.push_back(std::move(place->second));
            place = clusters_.erase(place);
        } else {
            ++place;
        }
    }
    return did;
}

void World::sleep(std::uint32_t epoch, std::int64_t pause_ns) {
    conductor_.store(Conductor::sleeps, std::memory_order_seq_cst);
    if (epoch_.load(std::memory_order_seq_cst) == epoch) {
        os::futex_wait(epoch_, epoch, pause_ns == os::kNever ? os::kNever : os::now_ns() + pause_ns);
    }
    conductor_.store(Conductor::works, std::memory_order_seq_cst);
}

// Until there is something new here, a rank has rung, or a task has ended that one of this process's own workers has; at `look_ns` where
// not all of that is heard.
void World::listen(Sleeper& sleeper, std::uint32_t epoch, std::int64_t look_ns, bool transport_busy) {
    std::int64_t deadline_ns = transport_busy ? look_ns : os::kNever;
    std::vector<os::FutexWord>& words = sleeper.words();
    words.push_back({&epoch_, epoch});
    {
        const std::lock_guard guard(mutex_);
        for (const auto& [number, cluster] : clusters_) {
            if (!cluster->add_awaited(words)) deadline_ns = look_ns;
        }
    }
    conductor_.store(Conductor::sleeps, std::memory_order_seq_cst);
    sleeper.sleep(deadline_ns);
    conductor_.store(Conductor::works, std::memory_order_seq_cst);
}

// `epoch` was read before the guest was seen.
void World::stand_by(std::uint32_t epoch) {
    for (;;) {
        const std::uint32_t waits = guests_waits_.load(std::memory_order_relaxed);
        conductor_.store(Conductor::stands_by, std::memory_order_seq_cst);
        const bool called = os::futex_wait(epoch_, epoch, os::now_ns() + kStandByNs);
        conductor_.store(Conductor::works, std::memory_order_seq_cst);
        epoch = epoch_.load(std::memory_order_seq_cst);
        if (has_guest()) continue;
        if (called || guests_waits_.load(std::memory_order_relaxed) == waits) return;
    }
}

void World::wake() noexcept {
    epoch_.fetch_add(1, std::memory_order_seq_cst);
    const Conductor conductor = conductor_.load(std::memory_order_seq_cst);
    // Who finds a guest there is seen by it: a guest looks for what is left when it has gone.
    if (conductor == Conductor::sleeps || (conductor == Conductor::stands_by && !has_guest()))
        os::futex_wake(epoch_, 1);
}

// Guests.

namespace {

std::atomic<int> at_work{0};

}    // namespace

World::AtWork::AtWork() noexcept { at_work.fetch_add(1, std::memory_order_seq_cst); }
World::AtWork::~AtWork() { at_work.fetch_sub(1, std::memory_order_seq_cst); }
bool World::anybody_at_work() noexcept { return at_work.load(std::memory_order_seq_cst) != 0; }

bool World::enter() noexcept {
    if (!takes_guests_.load(std::memory_order_relaxed) || guest_.exchange(true, std::memory_order_seq_cst))
        return false;
    baton_.lock();
    if (takes_guests_.load(std::memory_order_relaxed)) return true;
    leave();
    return false;
}

// From now on nobody else calls MPI.
void World::dismiss_guests() noexcept {
    const std::lock_guard baton(baton_);
    takes_guests_.store(false, std::memory_order_relaxed);
}

void World::leave() noexcept {
    const std::vector<std::shared_ptr<Cluster>> over = std::exchange(over_, {});
    baton_.unlock();
    guest_.store(false, std::memory_order_seq_cst);
}

// Needs baton_, as a guest. What MPI throws is the conductor's to deal with.
bool World::as_guest(bool (World::*work)()) noexcept {
    try {
        return (this->*work)();
    } catch (...) {
        guests_failure_ = std::current_exception();
        return false;
    }
}

void World::give_out_now() noexcept {
    const AtWork here;
    if (conductor_.load(std::memory_order_seq_cst) == Conductor::works || !enter()) return wake();
    as_guest(&World::give_out);
    const bool failed = guests_failure_ != nullptr;
    leave();
    // One that stands by comes soon enough if nobody waits for the task.
    if (failed || something_came() || conductor_.load(std::memory_order_seq_cst) != Conductor::stands_by) wake();
}

void World::work_until(const std::atomic<std::uint32_t>& word, std::uint32_t bits, std::int64_t deadline_ns) noexcept {
    const AtWork here;
    World* const world = current_or_null();
    if (world == nullptr || !world->enter()) return;
    world->guests_waits_.fetch_add(1, std::memory_order_relaxed);
    Poll poll;
    if (world->meeting_.crowded(0)) poll.be_crowded();
    bool failed = false;
    while ((word.load(std::memory_order_acquire) & bits) == 0 && current_or_null() == world) {
        const bool did = world->as_guest(&World::turn);
        failed = world->guests_failure_ != nullptr;
        const std::int64_t now = os::now_ns();
        if (did) {
            poll.something_happened(now);
        } else if (poll.pause_ns(now) != 0) {
            break;
        } else {
            poll.give_way(now);
        }
        if (failed || now >= deadline_ns) break;
    }
    const bool busy = failed || world->transport_->busy();
    world->leave();
    // Whoever called meanwhile relied on the guest.
    if (busy || world->something_came() || world->expects_answers() || world->clusters_expect()) world->wake();
}

}    // namespace multihull::mpi
