#include "mpi/cluster.hpp"

#include "codec/exceptions.hpp"
#include "mpi/broadcast.hpp"
#include "mpi/local_task.hpp"
#include "mpi/poll.hpp"
#include "mpi/world.hpp"
#include "os/clock.hpp"

#include <multihull/error.hpp>

#include <algorithm>
#include <utility>

namespace multihull::mpi {

using multihull::detail::Submitted;

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
    all_fetch_ = std::ranges::all_of(links_, [&](const Link& link) {
        return link.rank == 0 || world_.meeting().fetches(link.rank);
    });
}

// Workers of a lost rank may be ending still.
Cluster::~Cluster() {
    if (stranded_.empty()) return;
    static std::mutex guards;
    // Until the process ends. NOLINTNEXTLINE(bugprone-unhandled-exception-at-new): without memory for it, so is that
    static auto* const kept = new std::vector<std::vector<Task::Call>>;
    const std::lock_guard guard(guards);
    kept->push_back(std::move(stranded_));
}

void Cluster::start() {
    for (const Link& link : links_) {
        if (link.rank == 0) {
            PoolOptions own = options_;
            own.processes = link.workers;
            engine_ = multihull::detail::make_engine(std::move(own));
        } else {
            std::vector<std::shared_ptr<const void>> kept;
            const auto settings = encode_settings(options_, kept);
            const auto values = world_.broadcasts().named_in(kept);
            world_.post(link.rank, [&](Packet& packet) {
                packet.put(Say::open);
                packet.put(OpenHead{number_, link.workers, world_.meeting().crowded(link.rank) ? 1U : 0U,
                                    static_cast<std::uint32_t>(settings.size()),
                                    static_cast<std::uint32_t>(values.size())});
                packet.write(settings);
                packet.write(std::as_bytes(std::span(values)));
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
    std::unique_lock guard(mutex_);
    if (queue_.empty() && !closed_ && !broken_ && room_here()) {
        // Nobody is nearer, and nobody waits for a place here.
        auto task = std::make_shared<Task>(shared_from_this(), token, options);
        task->set_local(submit_to(engine_, token, buffer, options));
        add_local(task);
        return {std::move(task), 0};
    }
    return enqueue(std::move(guard), make_task(token, buffer, options));
}

Submitted Cluster::submit_around(Token token, CallBuffer& buffer, std::vector<LentBytes> lent,
                                 const TaskOptions* options) {
    require_usable();
    TaskPtr task = make_task(token, buffer, options);
    const bool only_lent_is_bulk = task->call_size_ <= kBulk;
    const bool is_the_callers =
        std::ranges::any_of(lent, [](const LentBytes& piece) { return piece.owner == nullptr; });
    for (const LentBytes& piece : lent) task->call_size_ += piece.bytes.size();
    task->lent_ = std::move(lent);
    // MPI may be reading still when the task has ended, and the caller has back what it lent: only workers read that.
    if (alone_ || !only_lent_is_bulk || (is_the_callers && !all_fetch_)) {
        task->call_ = task->gather_call();
        task->lent_.clear();
    }
    if (alone_) {
        CallBuffer whole(std::move(task->call_), task->call_size_);
        return submit_to(engine_, token, whole, options);
    }
    return enqueue(std::unique_lock(mutex_), std::move(task));
}

std::shared_ptr<Completion> Cluster::submit_map(CallBuffer& call, const MapPlan& plan, const TaskOptions* options) {
    SharedBlock inputs = SharedBlock::adopt(plan.input_offset, plan.input_capacity);
    require_usable();
    if (alone_) {
        inputs.release();
        return multihull::detail::submit_map(engine_, call, plan, options);
    }
    TaskPtr task = make_task(plan.token, call, options);
    task->plan_ = plan;
    task->count = plan.count;
    task->inputs_ = std::move(inputs);
    return enqueue(std::unique_lock(mutex_), std::move(task)).completion;
}

Cluster::TaskPtr Cluster::make_task(Token token, CallBuffer& call, const TaskOptions* options) {
    auto task = std::make_shared<Task>(shared_from_this(), token, options);
    task->call_size_ = call.writer().size();
    task->call_ = SharedBlock::take(call);
    task->values_ = world_.broadcasts().named_in(task->call_.kept());
    return task;
}

Submitted Cluster::enqueue(std::unique_lock<std::mutex> guard, TaskPtr task) {
    if (broken_) std::rethrow_exception(broken_);
    if (closed_) throw PoolClosed("executor " + options_.name + " was shut down: it takes no more tasks");
    if (queue_.empty() && room_here()) {
        place_here(task);
        return {std::move(task), 0};
    }
    queue_.push_back(task);
    const bool only_one = queue_.size() == 1 && sent_count_ == 0;
    if (world_.rests() && supplied_ns() != 0) return {std::move(task), 0};
    guard.unlock();
    // Of many the conductor sends several at a time.
    if (only_one) {
        world_.give_out_now();
    } else {
        world_.wake();
    }
    return {std::move(task), 0};
}

void Cluster::before_waiting(const Task& task, std::int64_t deadline_ns) {
    {
        const std::lock_guard guard(mutex_);
        if (queue_.size() + sent_count_ > workers_)
            return;    // while there is much to do, better do it beside the caller
        // Who would have to give way to workers that compute: see Poll::pause_ns. Not by kLongTaskNs, which a task alone takes that is short,
        // but waits for the conductor.
        if (world_.meeting().crowded(0) && sent_task_ns() >= Poll::kVeryLongTaskNs) return;
    }
    World::work_until(task.word_, Task::kDone | Task::kLocal, deadline_ns);
}

// Needs mutex_.
void Cluster::add_local(const TaskPtr& task) {
    if (local_.empty()) links_.front().last_end_ns = os::now_ns();
    local_.push_back(task);
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
    link.seen_task_ns = (link.seen_task_ns * 3 + each) / 4;
    link.last_end_ns = now;
}

// Hearing of ends, in the conductor.

Cluster::Link& Cluster::link_of(std::uint32_t rank) { return *std::ranges::lower_bound(links_, rank, {}, &Link::rank); }

void Cluster::on_done(std::uint32_t rank, const DoneHead& head, RawBytes bytes) {
    Task::Call not_needed;
    std::unique_lock guard(mutex_);
    if (head.id >= sent_.size() || !sent_[head.id]) return;    // everything was given up
    const TaskPtr task = sent_[head.id];
    if (task->rank_ != rank) return;    // of a rank that was lost: another one does it now
    Link& link = link_of(task->rank_);
    warm_link_ = static_cast<std::size_t>(&link - links_.data());
    free_id(head.id);
    const std::int64_t now = os::now_ns();
    // Several ends come in one message: each counts as a part of the time since the one before.
    const std::int64_t each = (now - link.last_end_ns) * link.workers;
    link.task_ns = (link.task_ns * 7 + each) / 8;
    link.seen_task_ns = (link.seen_task_ns * 7 + each) / 8;
    link.last_end_ns = now;
    if (head.pool_broke != 0 && !broken_) broken_ = decode_failure(task->rank_, bytes.bytes());
    not_needed = finish(task, head.outcome, std::move(bytes));
    guard.unlock();
    free_elsewhere(std::move(not_needed));
}

// To free what callers gave away can take tens of milliseconds, where the allocator gives back what was freed before with it.
void Cluster::free_elsewhere(Task::Call call) noexcept {
    if (std::ranges::none_of(call.lent, [](const LentBytes& piece) { return piece.owner != nullptr; })) return;
    try {
        freeing_.post([kept = std::make_shared<Task::Call>(std::move(call))] {});
    } catch (const std::exception&) {    // then it is freed here
    }
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
    link.bytes -= task->load_;
}

// Needs mutex_. The same without an answer of its rank, whose workers may go on for a moment: what they read is never used for anything else.
void Cluster::give_up_id(std::uint32_t id) {
    Task& task = *sent_[id];
    task.stranded_ = task.stranded_ || task.is_lent_;
    free_id(id);
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
        give_up_id(id);
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

// Needs mutex_. What runs in this process's own workers goes on; the others' end: nobody would have their results, and what callers lent to
// their tasks is the callers' again.
void Cluster::fail_everything(const std::exception_ptr& why) {
    end_workers(true);
    drop_queue(why);
    for (std::uint32_t id = 0; id < sent_.size(); ++id) {
        if (!sent_[id]) continue;
        const TaskPtr task = sent_[id];
        give_up_id(id);
        finish(task, why);
    }
}

// Needs mutex_.
Task::Call Cluster::finish(const TaskPtr& task, Outcome outcome, RawBytes bytes) {
    Task::Call call = task->end(outcome, std::move(bytes));
    tell(task);
    return call;
}

// Needs mutex_.
void Cluster::finish(const TaskPtr& task, const std::exception_ptr& why) {
    Task::Call not_needed = task->end(why);
    tell(task);
    free_elsewhere(std::move(not_needed));
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

Poll::Rest Cluster::rest() {
    const std::lock_guard guard(mutex_);
    if (sent_count_ == 0 && queue_.empty()) return {os::kNever, os::kNever};
    std::int64_t ns = supplied_ns();
    if (ns != 0 && engine_) {
        reap_local();
        ns = supplied_ns();
    }
    return {ns, sent_task_ns()};
}

bool Cluster::add_awaited(std::vector<os::FutexWord>& words) {
    const std::lock_guard guard(mutex_);
    if (!engine_) return true;
    const Link& own = links_.front();
    // Those that others could give back.
    const bool some_ahead = std::any_of(links_.begin() + 1, links_.end(), [](const Link& link) {
        return !link.lost && link.outstanding > link.workers && !link.nothing_back;
    });
    if (queue_.empty() && !some_ahead) return true;
    if (own.seen_task_ns < Poll::kVeryLongTaskNs) return false;
    return std::all_of(local_.begin(),
                       local_.begin() + static_cast<std::ptrdiff_t>(std::min<std::size_t>(own.workers, local_.size())),
                       [&](const TaskPtr& task) { return multihull::mpi::add_awaited(words, *engine_, task->local_); });
}

// Needs mutex_. How long a task takes in the rank where it takes least; 0 where nobody knows.
std::int64_t Cluster::sent_task_ns() const noexcept {
    std::int64_t least = os::kNever;
    for (const Link& link : links_) {
        if (!link.lost && link.rank != 0 && link.outstanding != 0) least = std::min(least, link.seen_task_ns);
    }
    return least == os::kNever ? 0 : least;
}

// Needs mutex_.
std::int64_t Cluster::supplied_ns() {
    if (sent_count_ == 0) return 0;
    std::int64_t all = Poll::kLongestRestNs;
    for (const Link& link : links_) {
        if (!link.lost) all = std::min(all, Poll::rest_ns(outstanding(link), link.seen_task_ns, link.workers));
    }
    return all;
}

bool Cluster::expects() const {
    const std::lock_guard guard(mutex_);
    return sent_count_ != 0 || links_closed_ || !queue_.empty();
}

}    // namespace multihull::mpi
