// Who gets which task, and when: the conductor's part of a cluster.
#include "mpi/cluster.hpp"

#include "mpi/local_task.hpp"
#include "mpi/world.hpp"
#include "os/clock.hpp"

#include <multihull/error.hpp>

#include <algorithm>
#include <utility>

namespace multihull::mpi {

namespace {

/// Work that a rank has ahead of need: about what a message takes there and back, polling included.
constexpr std::int64_t kAheadNs = 4'000'000;
constexpr std::int64_t kMostAhead = 512;    // tasks a worker
constexpr std::size_t kWorthAMessage = 16;
constexpr std::size_t kMostBytes = std::size_t{64} << 20;
/// Of what a rank has beside one task ahead for each worker: bytes that are still in its cache when their task begins.
constexpr std::size_t kMostBytesAhead = std::size_t{2} << 20;
/// A call that is not longer is kept when it goes to this rank's own workers, so that another rank can still have it.
constexpr std::size_t kKeptBytes = std::size_t{16} << 10;

SharedBlock copy_of(const SharedBlock& block, std::size_t size) {
    SharedBlock copy(std::max<std::size_t>(block.size(), 1));
    multihull::detail::copy_bytes(copy.data(), block.data(), size);
    return copy;
}

}    // namespace

// Tasks that a rank may have, those that run included.
std::size_t Cluster::window(const Link& link, std::int64_t now_ns) noexcept {
    // A rank in which nothing has ended for long is slow, whatever its tasks took before.
    const std::int64_t each = std::max((now_ns - link.last_end_ns) / 8, std::max<std::int64_t>(link.task_ns, 1));
    const std::int64_t ahead = std::clamp<std::int64_t>(kAheadNs / each, 1, kMostAhead);
    return link.workers * static_cast<std::size_t>(1 + ahead);
}

std::size_t Cluster::outstanding(const Link& link) const noexcept {
    return link.rank == 0 ? local_.size() : link.outstanding;
}

bool Cluster::pump() {
    const std::lock_guard guard(mutex_);
    bool did = false;
    if (!queue_.empty()) {
        if (engine_) reap_local();
        const std::size_t count = links_.size();
        const std::int64_t now = os::now_ns();
        std::size_t alive = 0;
        for (const Link& link : links_) alive += link.lost ? 0 : link.workers;
        // Workers that have nothing come first, on all ranks, before anybody is given a task ahead of need; and first of them those of a
        // rank that need not wake up for it.
        did |= fill(links_[warm_link_], links_[warm_link_].workers, links_[warm_link_].workers) != 0;
        for (std::size_t i = 0; i < count && !queue_.empty(); ++i) {
            Link& link = links_[(next_link_ + i) % count];
            did |= fill(link, link.workers, link.workers) != 0;
        }
        for (std::size_t i = 0; i < count && !queue_.empty(); ++i) {
            Link& link = links_[(next_link_ + i) % count];
            if (link.lost) continue;
            const std::size_t limit = window(link, now);
            // Not a message for each task; and what is left is shared, so that all end together.
            const std::size_t has = outstanding(link);
            const std::size_t share = queue_.size() * link.workers / (2 * alive) + 1;
            if (has > limit - limit / 4 || (share < kWorthAMessage && has >= std::size_t{2} * link.workers + share))
                continue;
            did |= fill(link, limit, share) != 0;
        }
        if (++next_link_ >= count) next_link_ = 0;
    }
    if (queue_.empty() && sent_count_ != 0) recall();
    close_links();
    return did;
}

// Needs mutex_. Gives a rank tasks until it has `limit`, but no more than `share`.
std::size_t Cluster::fill(Link& link, std::size_t limit, std::size_t share) {
    std::size_t given = 0;
    if (link.lost) return given;
    for (std::size_t looked_at = queue_.size(); looked_at > 0 && given < share; --looked_at) {
        const std::size_t has = outstanding(link);
        if (has >= limit || (has >= link.workers && link.bytes >= kMostBytes) ||
            (has >= std::size_t{2} * link.workers && link.bytes >= kMostBytesAhead))
            break;
        const TaskPtr task = std::move(queue_.front());
        queue_.pop_front();
        if (task->place_ == Task::Place::ended) continue;    // cancelled
        if (!place(link, task)) {
            queue_.push_back(task);
            continue;
        }
        ++given;
    }
    return given;
}

// Needs mutex_. False where the task can't go to that rank.
bool Cluster::place(Link& link, const TaskPtr& task) {
    if (outstanding(link) == 0) link.last_end_ns = os::now_ns();
    if (link.rank != 0) {
        send(link, task);
        return true;
    }
    if (task->was_local()) return false;
    if (local_.size() >= link.workers && task->size() > kKeptBytes) return false;    // it could not be taken back
    place_here(task);
    return true;
}

// Needs mutex_.
void Cluster::place_here(const TaskPtr& task) {
    const bool keep = task->size() <= kKeptBytes || task->on_their_way_ != 0 || task->stranded_;
    try {
        SharedBlock call = keep || !task->lent_.empty() ? task->gather_call() : std::move(task->call_);
        if (!keep) {
            task->call_ = {};
            task->lent_.clear();
        }
        CallBuffer buffer(std::move(call), task->call_size_);
        if (!task->is_map()) {
            task->set_local(submit_to(engine_, task->token_, buffer, task->options_.get()));
        } else {
            SharedBlock inputs = keep ? copy_of(task->inputs_, task->inputs_.size()) : std::move(task->inputs_);
            MapPlan plan = *task->plan_;
            plan.input_offset = inputs.offset();
            plan.input_capacity = inputs.size();
            inputs.release();
            task->set_local({multihull::detail::submit_map(engine_, buffer, plan, task->options_.get()), 0});
        }
        add_local(task);
        if (task->stranded_) task->strand_call();
    } catch (const BrokenPool&) {
        broken_ = std::current_exception();
        finish(task, broken_);
    } catch (...) {
        finish(task, std::current_exception());
    }
}

// Needs mutex_.
void Cluster::send(Link& link, const TaskPtr& task) {
    if (free_ids_.empty()) {
        free_ids_.push_back(static_cast<std::uint32_t>(sent_.size()));
        sent_.emplace_back();
    }
    const std::uint32_t id = free_ids_.back();
    free_ids_.pop_back();
    sent_[id] = task;
    ++sent_count_;
    ++link.outstanding;
    link.nothing_back = false;
    task->place_ = Task::Place::sent;
    ++task->sending_;
    task->rank_ = link.rank;
    task->id_ = id;

    std::size_t lent = 0;
    for (const LentBytes& piece : task->lent_) lent += piece.bytes.size();
    const std::span<const std::byte> call(task->call_.data(), task->call_size_ - lent);
    const std::span<const std::byte> inputs =
        task->is_map() ? std::span<const std::byte>(task->inputs_.data(), task->inputs_.size())
                       : std::span<const std::byte>();
    TaskHead head{};
    head.cluster = number_;
    head.id = id;
    head.token = task->token_;
    head.is_map = task->is_map() ? 1 : 0;
    head.has_options = task->options_ ? 1 : 0;
    const Meeting& meeting = world_.meeting();
    const bool borrows = meeting.borrows(link.rank);
    const bool lends_call = borrows && !task->is_map() && lent == 0 && call.size() > kBulk;
    const bool lends_inputs = borrows && inputs.size() > kBulk;
    const bool is_fetched = lent != 0 && meeting.fetches(link.rank);
    task->is_lent_ = lends_call || lends_inputs || is_fetched;
    // What lies there already takes no room ahead of need.
    task->load_ =
        task->size() - (lends_call ? call.size() : 0) - (lends_inputs ? inputs.size() : 0) - (is_fetched ? lent : 0);
    link.bytes += task->load_;
    if (is_fetched) {
        head.call = CallBytes::fetched;
    } else if (lent != 0) {
        head.call = CallBytes::around;
    } else if (lends_call) {
        head.call = CallBytes::lent;
    } else {
        head.call = call.size() > kBulk ? CallBytes::bulk : CallBytes::here;
    }
    head.names_values = task->values_.empty() ? 0 : 1;
    const bool inputs_are_bulk = inputs.size() > kBulk && !lends_inputs;
    head.call_size = task->call_size_ < kHuge ? static_cast<std::uint32_t>(task->call_size_) : kHuge;
    std::vector<World::Bulk> bulks;
    const auto no_more_on_its_way = [this, task] {
        const std::lock_guard guard(mutex_);
        --task->on_their_way_;
        free_elsewhere(task->let_go_of_call());
    };
    const auto announce = [&](std::span<const std::byte> bytes) {
        ++task->on_their_way_;
        bulks.push_back({bytes, no_more_on_its_way});
    };
    if (head.call == CallBytes::bulk) announce(call);
    if (head.call == CallBytes::around) {
        for (const LentBytes& piece : task->lent_) announce(piece.bytes);
    }
    if (inputs_are_bulk) announce(inputs);
    world_.post(
        link.rank,
        [&](Packet& packet) {
            packet.put(Say::task);
            packet.put(head);
            if (head.call_size == kHuge) packet.put(std::uint64_t{task->call_size_});
            if (task->is_map()) {
                packet.put(MapHead{task->plan_->count, task->plan_->output_size, inputs.size(), inputs_are_bulk,
                                   lends_inputs ? task->inputs_.offset() : 0});
            }
            if (task->options_) encode_options(packet, *task->options_);
            if (head.names_values != 0) {
                packet.put(static_cast<std::uint32_t>(task->values_.size()));
                packet.write(std::as_bytes(std::span(task->values_)));
            }
            if (lent != 0) {
                packet.put(static_cast<std::uint32_t>(task->lent_.size()));
                for (const LentBytes& piece : task->lent_) {
                    packet.put(LentHead{piece.position, piece.bytes.size(),
                                        reinterpret_cast<std::uintptr_t>(piece.bytes.data())});
                }
            }
            if (head.call == CallBytes::lent) {
                packet.put(task->call_.offset());
            } else if (head.call != CallBytes::bulk) {
                packet.write(call);
            }
            if (!inputs_are_bulk && !lends_inputs) packet.write(inputs);
        },
        std::move(bulks));
}

// Needs mutex_. A worker has nothing to do while tasks wait elsewhere behind others.
void Cluster::recall() {
    const bool somebody_idle = std::any_of(links_.begin(), links_.end(), [&](const Link& link) {
        return !link.lost && link.rank != 0 && outstanding(link) < link.workers;
    });
    const bool this_idle = engine_ && [&] {
        reap_local();
        return local_.size() < links_.front().workers;
    }();
    if (!somebody_idle && !this_idle) return;
    for (Link& link : links_) {
        const std::size_t has = outstanding(link);
        if (has <= link.workers || link.lost) continue;
        const std::size_t wanted = (has - link.workers + 1) / 2;
        if (link.rank != 0) {
            if (link.recalling || link.nothing_back) continue;
            link.recalling = true;
            world_.post(link.rank, [&](Packet& packet) {
                packet.put(Say::give_back);
                packet.put(Request{number_, static_cast<std::uint32_t>(wanted), 0});
            });
        } else if (somebody_idle) {
            recall_local(wanted);
        }
    }
}

// Needs mutex_.
void Cluster::recall_local(std::size_t wanted) {
    std::size_t taken = 0;
    for (std::size_t i = local_.size(); i > links_.front().workers && taken < wanted; --i) {
        const TaskPtr task = local_[i - 1];
        if (task->call_.size() == 0) continue;    // its bytes are the engine's
        task->unset_local();
        if (!withdraw(*engine_, *task->local_.completion, task->local_.task)) {
            task->reset_local();
            continue;
        }
        local_.erase(local_.begin() + static_cast<std::ptrdiff_t>(i - 1));
        requeue(task, true);
        ++taken;
    }
    if (taken != 0) world_.wake();
}

// Needs mutex_. A task comes back from where it was given to.
void Cluster::requeue(const TaskPtr& task, bool in_front) {
    task->place_ = Task::Place::queued;
    task->is_lent_ = false;
    if (task->unwanted_) {
        finish(task, std::make_exception_ptr(Cancelled("the task was cancelled before it started")));
    } else if (dropped_) {
        finish(task, dropped_);
    } else if (in_front) {
        queue_.push_front(task);
    } else {
        queue_.push_back(task);
    }
}

}    // namespace multihull::mpi
