// The workers of one executor on all ranks, as rank 0 sees them: which task is where, and who gets the next one.
//
// Thread-safe. Belongs to the process that made it; a forked child can only drop it. What goes over MPI is left with the World, whose
// thread, the conductor, is the one that gives tasks out (pump) and hears of their ends.
//
// Invariants
// (1) A task that has not ended is in queue_, or in local_ (in this process's engine), or in sent_ under its id.
// (2) A task that was sent keeps its call until it has ended, so that it can be given to another rank.
// (3) A rank answers for each task that it was sent once: `done`, or its name in `returned`. Then its id is free.
// (4) mutex_ is not held while waiting, or while a callback or the user's code runs.
#pragma once

#include "mpi/callbacks.hpp"
#include "mpi/poll.hpp"
#include "mpi/task.hpp"
#include "mpi/wire.hpp"
#include "os/futex.hpp"
#include "process/self.hpp"

#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <exception>
#include <memory>
#include <mutex>
#include <vector>

namespace multihull::detail {
class Engine;
}    // namespace multihull::detail

namespace multihull::mpi {

class World;

class Cluster final : public multihull::detail::CallRunner, public std::enable_shared_from_this<Cluster> {
public:
    /// `workers` of each rank.
    Cluster(World& world, std::uint32_t number, PoolOptions options, const std::vector<std::uint32_t>& workers);
    ~Cluster() override;

    /// Starts the workers of all ranks.
    void start();

    // CallRunner
    std::size_t workers() const noexcept override { return workers_; }
    multihull::detail::Submitted submit(Token token, CallBuffer& buffer, const TaskOptions* options) override;
    std::shared_ptr<Completion> submit_map(CallBuffer& call, const MapPlan& plan, const TaskOptions* options) override;
    multihull::detail::Submitted submit_around(Token token, CallBuffer& buffer, std::vector<LentBytes> lent,
                                               const TaskOptions* options) override;

    void close(bool cancel_waiting);
    void join();
    void terminate(bool kill);
    bool ours() const noexcept { return generation_ == multihull::detail::fork_generation(); }
    void require_usable() const;
    std::uint32_t number() const noexcept { return number_; }

    // The conductor's.
    /// Gives tasks to ranks that have room. True when there was something to do.
    bool pump();
    void on_done(std::uint32_t rank, const DoneHead& head, RawBytes bytes);
    void on_returned(std::uint32_t rank, std::span<const std::uint32_t> ids);
    void on_closed(std::uint32_t rank);
    /// A rank is gone. Its tasks go back into the queue, or everything fails.
    void on_lost(std::uint32_t rank, const std::exception_ptr& why, bool redo);
    /// Whether a message of another rank is expected.
    bool expects() const;
    /// How long no rank will run out of tasks, and how long a task takes; never where it has none.
    Poll::Rest rest();
    /// Adds where the ends of the tasks are to be seen after which this rank's own workers are to be given others. False where not all that
    /// matter can be heard, or are worth it.
    bool add_awaited(std::vector<os::FutexWord>& words);
    bool over() const;

    // Its tasks'.
    /// Ends a task, even one that runs; false when it has ended.
    bool cancel(Task& task);
    /// Ends a task where it has not begun.
    void abandon(Task& task);
    std::exception_ptr decode_failure(std::uint32_t rank, std::span<const std::byte> bytes) const;
    void ended_locally(Task& task);
    void later(std::function<void()> call) { callbacks_.post(std::move(call)); }
    /// Before a thread sleeps until a task has ended. While that pays it does the conductor's work.
    void before_waiting(const Task& task, std::int64_t deadline_ns);

private:
    friend class Task;
    using TaskPtr = std::shared_ptr<Task>;

    /// What is known of one rank.
    struct Link {
        std::uint32_t rank = 0;
        std::uint32_t workers = 0;
        std::size_t outstanding = 0;         // tasks that were sent and have not ended
        std::size_t bytes = 0;               // of their calls
        std::int64_t task_ns = 1'000'000;    // of a task, about
        std::int64_t seen_task_ns = 0;       // the same, but little while few have ended: to rest by
        std::int64_t last_end_ns = 0;
        bool recalling = false;       // it was asked to give tasks back
        bool nothing_back = false;    // and had none, since it was last sent something
        bool closed = false;
        bool lost = false;
    };

    TaskPtr make_task(Token token, CallBuffer& call, const TaskOptions* options);
    multihull::detail::Submitted enqueue(std::unique_lock<std::mutex> guard, TaskPtr task);
    void add_local(const TaskPtr& task);
    bool room_here();
    std::int64_t supplied_ns();
    std::int64_t sent_task_ns() const noexcept;
    void reap_local();
    static std::size_t window(const Link& link, std::int64_t now_ns) noexcept;
    std::size_t outstanding(const Link& link) const noexcept;
    std::size_t fill(Link& link, std::size_t limit, std::size_t share);
    bool place(Link& link, const TaskPtr& task);
    void place_here(const TaskPtr& task);
    void send(Link& link, const TaskPtr& task);
    void recall();
    void recall_local(std::size_t wanted);
    void requeue(const TaskPtr& task, bool in_front);
    void drop_queue(const std::exception_ptr& why);
    void fail_what_nobody_can_do(const std::exception_ptr& why);
    void free_id(std::uint32_t id);
    void give_up_id(std::uint32_t id);
    Task::Call finish(const TaskPtr& task, Outcome outcome, RawBytes bytes);
    void finish(const TaskPtr& task, const std::exception_ptr& why);
    void tell(const TaskPtr& task);
    void free_elsewhere(Task::Call call) noexcept;
    void close_links();
    void end_workers(bool kill);
    void fail_everything(const std::exception_ptr& why);
    Link& link_of(std::uint32_t rank);

    World& world_;
    const std::uint32_t number_;
    const std::uint32_t generation_ = multihull::detail::fork_generation();
    PoolOptions options_;
    std::size_t workers_ = 0;
    bool alone_ = false;                                   // no rank but this one has workers
    bool all_fetch_ = false;                               // the other ranks' workers read this process's memory
    std::shared_ptr<multihull::detail::Engine> engine_;    // of this rank; empty where it has no workers

    mutable std::mutex mutex_;
    std::condition_variable changed_;
    std::vector<Link> links_;    // of the ranks that have workers, in their order: this one first
    std::deque<TaskPtr> queue_;
    std::deque<TaskPtr> local_;
    std::vector<TaskPtr> sent_;    // by id
    std::vector<std::uint32_t> free_ids_;
    std::size_t sent_count_ = 0;
    std::size_t next_link_ = 0;    // who is served first, so that nobody always is
    std::size_t warm_link_ = 0;    // in which a task ended last: its rank is awake
    std::exception_ptr broken_;
    std::exception_ptr
        dropped_;    // what tasks that come back from ranks end with; empty while they are given out again
    bool closed_ = false;
    bool links_closed_ = false;
    std::vector<Task::Call> stranded_;    // what workers of lost ranks may read still
    CallbackThread callbacks_;
    CallbackThread freeing_;
};

}    // namespace multihull::mpi
