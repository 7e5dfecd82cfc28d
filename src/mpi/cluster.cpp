#include "mpi/cluster.hpp"

#include "codec/exceptions.hpp"
#include "mpi/local_task.hpp"
#include "mpi/world.hpp"
#include "os/clock.hpp"

#include <multihull/error.hpp>

#include <algorithm>
#include <cstring>
#include <utility>

namespace multihull::mpi {

using multihull::detail::Engine;
using multihull::detail::MapState;
using multihull::detail::Submitted;

namespace {

/// Work that a rank has ahead of need: about what a message takes there and back, polling included.
constexpr std::int64_t kAheadNs = 4'000'000;
constexpr std::int64_t kMostAhead = 512;    // tasks a worker
constexpr std::size_t kWorthAMessage = 16;
constexpr std::size_t kMostBytes = std::size_t{64} << 20;
/// A call that is not longer is kept when it goes to this rank's own workers, so that another rank can still have it.
constexpr std::size_t kKeptBytes = std::size_t{16} << 10;

SharedBlock copy_of(const SharedBlock& block, std::size_t size) {
    SharedBlock copy(std::max<std::size_t>(block.size(), 1));
    std::memcpy(copy.data(), block.data(), size);
    return copy;
}

}    // namespace

Cluster::Cluster(World& world, std::uint32_t number, PoolOptions options, const std::vector<std::uint32_t>& workers)
    : world_(world), number_(number), options_(std::move(options)) {
    if (options_.name.empty()) options_.name = "MPI-" + std::to_string(number);
    alone_ = true;
    for (std::uint32_t rank = 0; rank < workers.size(); ++rank) {
        if (workers[rank] == 0) continue;
        Link link;
        link.rank = rank;
        link.workers = workers[rank];
        links_.push_back(link);
        workers_ += link.workers;
        if (rank != 0) alone_ = false;
    }
}

void Cluster::start() {
    for (const Link& link : links_) {
        if (link.rank == 0) {
            PoolOptions own = options_;
            own.processes = link.workers;
            engine_ = multihull::detail::make_engine(std::move(own));
        } else {
            const auto settings = encode_settings(options_);
            world_.post(link.rank, [&](Packet& packet) {
                packet.put(Say::open);
                packet.put(OpenHead{number_, link.workers, static_cast<std::uint32_t>(settings.size())});
                packet.write(settings);
            });
        }
    }
    if (!alone_) world_.wake();
}

void Cluster::require_usable() const {
    if (!ours())
        throw PoolClosed("executor " + options_.name +
                         " belongs to the process that made it, not to this forked child: make a pool here");
}

// Submitting, in the caller's thread.

Submitted Cluster::submit(Token token, CallBuffer& buffer, const TaskOptions* options) {
    require_usable();
    if (alone_) return submit_to(engine_, token, buffer, options);
    const std::lock_guard guard(mutex_);
    if (queue_.empty() && !closed_ && !broken_ && room_here()) {
        // Nobody is nearer, and nobody waits for a place here.
        auto task = std::make_shared<Task>(shared_from_this(), token, options);
        task->set_local(submit_to(engine_, token, buffer, options));
        local_.push_back(task);
        return {std::move(task), 0};
    }
    return enqueue(make_task(token, buffer, options));
}

std::shared_ptr<Completion> Cluster::submit_map(CallBuffer& call, const MapPlan& plan, const TaskOptions* options) {
    SharedBlock inputs = SharedBlock::adopt(plan.input_offset, plan.input_capacity);
    require_usable();
    if (alone_) {
        inputs.release();
        return multihull::detail::submit_map(engine_, call, plan, options);
    }
    const std::lock_guard guard(mutex_);
    TaskPtr task = make_task(plan.token, call, options);
    task->plan_ = plan;
    task->count = plan.count;
    task->inputs_ = std::move(inputs);
    return enqueue(std::move(task)).completion;
}

Cluster::TaskPtr Cluster::make_task(Token token, CallBuffer& call, const TaskOptions* options) {
    auto task = std::make_shared<Task>(shared_from_this(), token, options);
    task->call_size_ = call.writer().size();
    task->call_ = SharedBlock::take(call);
    return task;
}

// Needs mutex_.
Submitted Cluster::enqueue(TaskPtr task) {
    if (broken_) std::rethrow_exception(broken_);
    if (closed_) throw PoolClosed("executor " + options_.name + " was shut down: it takes no more tasks");
    if (queue_.empty() && room_here()) {
        place_here(task);
    } else {
        queue_.push_back(task);
        world_.wake();
    }
    return {std::move(task), 0};
}

// Needs mutex_. Whether a worker of this rank is free.
bool Cluster::room_here() {
    if (!engine_) return false;
    if (local_.size() >= links_.front().workers) reap_local();
    return local_.size() < links_.front().workers;
}

// Needs mutex_.
void Cluster::reap_local() {
    std::size_t ended = 0;
    std::erase_if(local_, [&](const TaskPtr& task) {
        const bool over = task->local_.completion->ready(task->local_.task);
        ended += over ? 1 : 0;
        return over;
    });
    if (ended == 0) return;
    Link& link = links_.front();
    const std::int64_t now = os::now_ns();
    const std::int64_t each = (now - link.last_end_ns) * link.workers / static_cast<std::int64_t>(ended);
    link.task_ns = (link.task_ns * 3 + each) / 4;
    link.last_end_ns = now;
}

// Giving tasks out, in the conductor.

// Tasks that a rank may have, those that run included.
std::size_t Cluster::window(const Link& link) const noexcept {
    // A rank in which nothing has ended for long is slow, whatever its tasks took before.
    const std::int64_t each = std::max((os::now_ns() - link.last_end_ns) / 8, std::max<std::int64_t>(link.task_ns, 1));
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
        std::size_t alive = 0;
        for (const Link& link : links_) alive += link.lost ? 0 : link.workers;
        // Workers that have nothing come first, on all ranks, before anybody is given a task ahead of need.
        for (std::size_t i = 0; i < count && !queue_.empty(); ++i) {
            Link& link = links_[(next_link_ + i) % count];
            did |= fill(link, link.workers, link.workers) != 0;
        }
        for (std::size_t i = 0; i < count && !queue_.empty(); ++i) {
            Link& link = links_[(next_link_ + i) % count];
            const std::size_t limit = window(link);
            // Not a message for each task; and what is left is shared, so that all end together.
            const std::size_t has = outstanding(link);
            const std::size_t share = queue_.size() * link.workers / (2 * alive) + 1;
            if (has > limit - limit / 4 || (share < kWorthAMessage && has >= 2 * link.workers + share)) continue;
            did |= fill(link, limit, share) != 0;
        }
        next_link_ = (next_link_ + 1) % count;
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
        if (has >= limit || (has >= link.workers && link.bytes >= kMostBytes)) break;
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
    const bool keep = task->size() <= kKeptBytes || task->on_their_way_ != 0;
    try {
        SharedBlock call = keep ? copy_of(task->call_, task->call_size_) : std::move(task->call_);
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
        local_.push_back(task);
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
    link.bytes += task->size();
    link.nothing_back = false;
    task->place_ = Task::Place::sent;
    ++task->sending_;
    task->rank_ = link.rank;
    task->id_ = id;

    const std::span<const std::byte> call(task->call_.data(), task->call_size_);
    const std::span<const std::byte> inputs =
        task->is_map() ? std::span<const std::byte>(task->inputs_.data(), task->inputs_.size())
                       : std::span<const std::byte>();
    TaskHead head{};
    head.cluster = number_;
    head.id = id;
    head.token = task->token_;
    head.is_map = task->is_map() ? 1 : 0;
    head.has_options = task->options_ ? 1 : 0;
    head.call_is_bulk = call.size() > kBulk ? 1 : 0;
    head.inputs_are_bulk = inputs.size() > kBulk ? 1 : 0;
    head.call_size = call.size() < kHuge ? static_cast<std::uint32_t>(call.size()) : kHuge;
    std::vector<World::Bulk> bulks;
    for (const auto& [bytes, is_bulk] : {std::pair(call, head.call_is_bulk), std::pair(inputs, head.inputs_are_bulk)}) {
        if (!is_bulk) continue;
        ++task->on_their_way_;
        bulks.push_back({bytes, [this, task] {
                             const std::lock_guard guard(mutex_);
                             --task->on_their_way_;
                             task->let_go_of_call();
                         }});
    }
    world_.post(
        link.rank,
        [&](Packet& packet) {
            packet.put(Say::task);
            packet.put(head);
            if (head.call_size == kHuge) packet.put(std::uint64_t{call.size()});
            if (task->is_map()) packet.put(MapHead{task->plan_->count, task->plan_->output_size, inputs.size()});
            if (task->options_) encode_options(packet, *task->options_);
            if (!head.call_is_bulk) packet.write(call);
            if (!head.inputs_are_bulk) packet.write(inputs);
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

// Hearing of ends, in the conductor.

Cluster::Link& Cluster::link_of(std::uint32_t rank) {
    return *std::find_if(links_.begin(), links_.end(), [&](const Link& link) { return link.rank == rank; });
}

void Cluster::on_done(std::uint32_t rank, const DoneHead& head, RawBytes bytes) {
    const std::lock_guard guard(mutex_);
    if (head.id >= sent_.size() || !sent_[head.id]) return;    // everything was given up
    const TaskPtr task = sent_[head.id];
    if (task->rank_ != rank) return;    // of a rank that was lost: another one does it now
    Link& link = link_of(task->rank_);
    free_id(head.id);
    const std::int64_t now = os::now_ns();
    // Several ends come in one message: each counts as a part of the time since the one before.
    link.task_ns = (link.task_ns * 7 + (now - link.last_end_ns) * link.workers) / 8;
    link.last_end_ns = now;
    if (head.pool_broke != 0 && !broken_) broken_ = decode_failure(task->rank_, bytes.bytes());
    finish(task, head.outcome, std::move(bytes));
}

void Cluster::on_returned(std::uint32_t rank, std::span<const std::uint32_t> ids) {
    const std::lock_guard guard(mutex_);
    Link& link = link_of(rank);
    link.recalling = false;
    link.nothing_back = ids.empty();
    for (const std::uint32_t id : ids) {
        if (id >= sent_.size() || !sent_[id] || sent_[id]->rank_ != rank) continue;
        const TaskPtr task = sent_[id];
        free_id(id);
        requeue(task, true);
    }
}

// Needs mutex_.
void Cluster::free_id(std::uint32_t id) {
    const TaskPtr task = std::move(sent_[id]);
    free_ids_.push_back(id);
    --sent_count_;
    Link& link = link_of(task->rank_);
    --link.outstanding;
    link.bytes -= task->size();
}

void Cluster::on_closed(std::uint32_t rank) {
    const std::lock_guard guard(mutex_);
    link_of(rank).closed = true;
    changed_.notify_all();
}

void Cluster::on_lost(std::uint32_t rank, const std::exception_ptr& why, bool redo) {
    const std::lock_guard guard(mutex_);
    const auto place = std::find_if(links_.begin(), links_.end(), [&](const Link& link) { return link.rank == rank; });
    if (place == links_.end() || place->lost) return;
    place->lost = true;
    place->closed = true;
    changed_.notify_all();
    const bool somebody = std::any_of(links_.begin(), links_.end(), [](const Link& link) { return !link.lost; });
    if (!redo || !somebody) {
        broken_ = why;
        fail_everything(why);
        return;
    }
    for (std::uint32_t id = 0; id < sent_.size(); ++id) {
        if (!sent_[id] || sent_[id]->rank_ != rank) continue;
        const TaskPtr task = sent_[id];
        free_id(id);
        requeue(task, false);
    }
    fail_what_nobody_can_do(why);
}

// Needs mutex_. A task goes to this process's workers once: when no other rank is left, one that came back from them stays behind.
void Cluster::fail_what_nobody_can_do(const std::exception_ptr& why) {
    const bool others =
        std::any_of(links_.begin(), links_.end(), [](const Link& link) { return link.rank != 0 && !link.lost; });
    if (others) return;
    for (const TaskPtr& task : std::exchange(queue_, {})) {
        if (task->place_ == Task::Place::ended) continue;
        if (task->was_local()) {
            finish(task, why);
        } else {
            queue_.push_back(task);
        }
    }
}

// Needs mutex_. From now on nothing is given out again.
void Cluster::drop_queue(const std::exception_ptr& why) {
    dropped_ = why;
    for (const TaskPtr& task : std::exchange(queue_, {})) {
        if (task->place_ != Task::Place::ended) finish(task, why);
    }
}

// Needs mutex_. What runs in this process's own workers goes on.
void Cluster::fail_everything(const std::exception_ptr& why) {
    drop_queue(why);
    for (std::uint32_t id = 0; id < sent_.size(); ++id) {
        if (!sent_[id]) continue;
        const TaskPtr task = sent_[id];
        free_id(id);
        finish(task, why);
    }
}

// Needs mutex_.
void Cluster::finish(const TaskPtr& task, Outcome outcome, RawBytes bytes) {
    task->end(outcome, std::move(bytes));
    tell(task);
}

// Needs mutex_.
void Cluster::finish(const TaskPtr& task, const std::exception_ptr& why) {
    task->end(why);
    tell(task);
}

// Needs mutex_.
void Cluster::tell(const TaskPtr& task) {
    for (auto& callback : std::exchange(task->callbacks_, {})) callbacks_.post(std::move(callback));
    if (closed_) changed_.notify_all();
}

void Cluster::ended_locally(Task& task) {
    const std::lock_guard guard(mutex_);
    if (task.place_ != Task::Place::local) return;    // it was taken back: its end is still to come
    for (auto& callback : std::exchange(task.callbacks_, {})) callbacks_.post(std::move(callback));
    task.hooked_ = false;
}

std::exception_ptr Cluster::decode_failure(std::uint32_t rank, std::span<const std::byte> bytes) const {
    try {
        multihull::detail::Reader reader(bytes, multihull::detail::Reader::FromAfar{});
        return world_.translate(rank, multihull::detail::decode_exception(reader));
    } catch (const CodecError&) {
        return std::current_exception();
    }
}

bool Cluster::expects() const {
    const std::lock_guard guard(mutex_);
    return sent_count_ != 0 || links_closed_ || !queue_.empty();
}

}    // namespace multihull::mpi
