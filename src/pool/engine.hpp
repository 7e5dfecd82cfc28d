// The engine of a pool, in the process that made it: tasks go in, outcomes come out, workers are kept alive.
//
// Thread-safe. Belongs to the process that made it; a forked child can only drop it.
//
// Invariants
// (1) Everything that decides (owners of blocks, attempts left, outcomes of lost tasks, callbacks) is private to this process.
//     Shared memory is read with its indices, sizes and states checked.
// (2) A task slot is on the free list, or in use; in use it has a record whose `references` counts futures, the map it belongs to,
//     and callbacks to come. It is used again only when it has ended and nobody refers to it.
// (3) mutex_ is never held while waiting, calling back, or asking the zygote for something.
#pragma once

#include "os/clock.hpp"
#include "os/fd.hpp"
#include "os/futex.hpp"
#include "pool/function_names.hpp"
#include "pool/history.hpp"
#include "pool/layout.hpp"
#include "process/self.hpp"
#include "process/supervisor.hpp"
#include "process/zygote.hpp"

#include <multihull/detail/engine.hpp>
#include <multihull/error.hpp>
#include <multihull/trace.hpp>

#include <condition_variable>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

namespace multihull::detail {

class MapState;
struct TracedTask;

/// Why the supervisor ends a worker.
enum class Doom { none, timeout, cpu_time, cancelled, terminated };

/// What becomes of a task whose worker ended for that.
constexpr TaskOutcome outcome_of(Doom doom) noexcept {
    if (doom == Doom::none) return TaskOutcome::crashed;
    return doom == Doom::timeout || doom == Doom::cpu_time ? TaskOutcome::timed_out : TaskOutcome::cancelled;
}

class Engine final : public Completion, public Supervised, public std::enable_shared_from_this<Engine> {
public:
    explicit Engine(PoolOptions options);
    ~Engine() override;

    /// Starts the workers; apart from the constructor because they need a shared_ptr to this.
    void start();
    /// Before start(): there are fewer processors than threads that want them.
    void idle_workers_give_way() noexcept { home_.header.idle_worker = IdleWorker::gives_way; }
    /// Before start(): calls may be BorrowedBytes of that region.
    void borrow_from(const shm::RegionAddress& lender) noexcept { home_.header.lender = lender; }

    std::uint32_t submit(Token token, CallBuffer& buffer, const TaskOptions* options);
    std::shared_ptr<Completion> submit_map(CallBuffer& call, MapPlan plan, const TaskOptions* options);

    void close();
    void join();
    void terminate() noexcept;
    /// The same by SIGTERM, and by SIGKILL a second later.
    void terminate_gently();
    /// Cancels every task that no worker has taken.
    void cancel_waiting();
    /// Cancels a task that no worker has taken; false when one has, or it has ended.
    bool withdraw(std::uint32_t task);
    /// Whether a task could be submitted now.
    bool takes_tasks() const;
    std::size_t workers() const noexcept { return home_.worker_count; }

    PoolSnapshot snapshot(std::size_t deaths) const;
    PoolStats stats() const;
    PoolInsights insights() const;
    Trace trace() const;

    /// For who waits for one of several: where the end of a task is to be seen; none when it has ended.
    std::optional<os::FutexWord> awaited(std::uint32_t task) noexcept;

    // Completion
    bool ready(std::uint32_t task) noexcept override;
    bool wait(std::uint32_t task, std::int64_t deadline_ns) override;
    std::exception_ptr failure(std::uint32_t task) override;
    void read(std::uint32_t task, ReadResult reader, void* out) override;
    bool cancel(std::uint32_t task) override;
    void abandon(std::uint32_t task) override;
    void on_done(std::uint32_t task, std::function<void()> callback) override;
    void retain(std::uint32_t task) noexcept override;
    void release(std::uint32_t task) noexcept override;

    // Supervised
    void on_readable(int fd) override;
    std::int64_t tick(std::int64_t now_ns) override;

    /// What the outcome of a part of a map was, for its MapState.
    void rethrow_if_lost(std::uint32_t task);
    bool ours() const noexcept { return generation_ == fork_generation(); }
    void require_usable() const;

private:
    friend class MapState;

    /// One attempt at keeping a worker slot filled.
    struct Worker final : ChildListener, std::enable_shared_from_this<Worker> {
        std::weak_ptr<Engine> engine;
        std::uint32_t index = 0;
        std::int64_t requested_ns = 0;
        pid_t pid = 0;
        os::Fd pidfd;
        os::Fd stderr_pipe;
        std::string last_stderr;
        bool was_ready = false;
        Doom doom = Doom::none;
        std::int64_t doom_limit_ns = 0;
        std::int64_t kill_at_ns = os::kNever;    // when its time to write down its stack is over
        bool killed = false;
        bool stalled = false;    // its stderr is not watched while the program's own takes nothing
        std::shared_ptr<Zygote> zygote;

        void on_born(pid_t pid, os::Fd pidfd) override;
        void on_not_born(int error) override;
        void on_died(int code) override;
    };

    struct Record {
        std::uint32_t references = 0;
        std::uint32_t generation = 0;
        bool in_use = false;
        bool named = false;    // of use to make_room() only
        bool cancelled = false;
        bool bereaved = false;    // a worker died over it: its result may have pins that no chain leads to
        std::uint32_t attempts_left = 0;
        RetryOn retry_on = RetryOn::nothing;
        std::int64_t shortest_limit_ns = os::kNever;      // of wall clock and processor time
        std::uint64_t block = 0;                          // of its arguments, in this process's heap
        std::vector<std::shared_ptr<const void>> kept;    // what arguments name: alive as long as the record
        std::unique_ptr<TakenOver> taken_over;            // what the result has named to who read it
        std::size_t block_size = 0;
        std::exception_ptr lost;
        std::vector<std::function<void()>> callbacks;
        std::shared_ptr<MapState> map;
        std::uint32_t part = 0;
        std::uint64_t sequence = 0;
    };

    /// Extents of a dead worker, kept until the tasks that may have results in them are gone.
    struct Legacy {
        std::uint32_t number;
        std::uint64_t last_sequence;
        std::size_t remaining;
    };

    struct PartTask {
        std::shared_ptr<MapState> map;
        std::uint32_t part;
    };

    void put_initial_call(const Call& call, std::uint64_t& offset, std::uint64_t& size);
    TaskSlot& slot(std::uint32_t task) const noexcept { return home_.slots[task]; }

    // Tasks (engine_tasks.cpp)
    std::uint32_t acquire_slot();
    void recycle_slot(std::uint32_t task) noexcept;
    std::int64_t give_back_slots(std::int64_t now_ns) noexcept;
    void drop_result_pins(std::uint32_t task) noexcept;
    void read_again(std::uint32_t task, Reader& reader);
    void recycle_ended_abandoned() noexcept;
    std::uint32_t enqueue_new(Token token, CallBuffer* buffer, const void* inline_arguments, std::size_t inline_size,
                              const TaskOptions* options, PartTask part);
    void push(std::uint32_t task) noexcept;
    void make_room() noexcept;
    void wake_worker() noexcept;
    void wake_all_workers() noexcept;
    void end_lost(std::uint32_t task, const std::exception_ptr& why, TaskOutcome how);
    bool try_end(std::uint32_t task, std::uint32_t& state, std::exception_ptr why, TaskOutcome how);
    void fail_everything(const std::exception_ptr& why);

    // Births of workers (worker_births.cpp)
    static constexpr unsigned kTriedStarts = 5;    // in a row, of workers or zygotes
    void start_worker(std::uint32_t index);
    void worker_born(Worker& worker, pid_t pid, os::Fd pidfd);
    void worker_not_born(Worker& worker, int error);
    std::exception_ptr replace_zygote();
    void restart_later(std::uint32_t index);
    bool any_ready() const noexcept;
    std::shared_ptr<Zygote> zygote() const;

    // Limits on tasks (worker_limits.cpp)
    std::int64_t check_limits(std::int64_t now_ns);
    void sweep_limits() noexcept;
    bool live_timed_possible() const noexcept;
    std::int64_t check_worker(Worker& worker, std::int64_t now_ns);
    void doom_worker(Worker& worker, Doom doom, std::int64_t limit_ns);

    // Deaths of workers, and blame (supervision.cpp)
    void worker_died(Worker& worker, int code);
    void settle_task(Worker& worker, int code);
    void settle_map_part(Worker& worker, std::uint32_t task, int code);
    void requeue(std::uint32_t task) noexcept;
    void release_spinner(const Worker& worker) noexcept;
    std::vector<std::uintptr_t> translate(std::vector<std::uintptr_t> frames) const;
    void leave_place() noexcept;
    void end_if_deserted() noexcept;
    bool work_left() const noexcept;
    bool spoiled() const noexcept;
    bool tasks_spoiled() const noexcept;
    std::exception_ptr explain(Worker& worker, int code, std::optional<std::size_t> element);
    void break_pool(std::exception_ptr why);
    void kill_all_workers() noexcept;
    void inherit(pid_t dead);
    void release_unread_legacies();
    void drain_stderr(Worker& worker, bool dead);
    bool queue_empty() const noexcept;

    // What is known of the past and the present (insights.cpp)
    void make_trace_rings();
    void add_map(const std::shared_ptr<MapState>& map) noexcept;
    std::optional<HeldTask> held_by(std::uint32_t index) const;
    pid_t pid_of(const Worker& worker) const;
    Life life_of(const Worker& worker) const;
    std::string record_end(Worker& worker, int code, const std::optional<HeldTask>& held);
    std::uint64_t restarts() const noexcept;
    std::uint64_t queued_about(std::vector<std::shared_ptr<MapState>>& seen) const;
    WorkerStats worker_stats(std::uint32_t index) const;
    std::int64_t last_moment() const;
    std::vector<PoolFailure> failures(const std::deque<Death>& deaths) const;
    std::string name_of(const HeldTask& task) const { return names_.name(task.token, task.leading); }
    std::vector<TracedTask> traced_tasks(std::uint64_t* dropped) const;

    // Callbacks (callbacks.cpp)
    void ensure_callback_thread();
    void run_callback_thread();
    void collect_notified(std::vector<std::uint32_t>& tasks);
    void run_callbacks(std::uint32_t task);
    void notify_callback_thread() noexcept;

    const std::uint32_t generation_ = fork_generation();
    PoolOptions options_;
    PoolHome home_;
    shm::Offset initializer_block_ = 0;
    std::size_t initializer_size_ = 0;
    shm::Offset exit_block_ = 0;
    std::size_t exit_size_ = 0;
    shm::Offset trace_block_ = 0;    // the workers' rings; 0 where no trace is kept
    std::size_t trace_block_size_ = 0;
    std::uint64_t trace_capacity_ = 0;
    mutable FunctionNames names_;
    std::shared_ptr<Zygote> zygote_;
    mutable std::mutex zygote_mutex_;
    StartMethod method_ = StartMethod::fork;
    bool own_zygote_ = false;
    std::atomic<unsigned> lost_zygotes_{0};    // in a row
    std::atomic<int> spin_ns_{20'000};

    mutable std::mutex mutex_;
    std::condition_variable changed_;
    std::deque<Record> records_;
    std::vector<std::shared_ptr<const void>> kept_;    // what initializer and exit function name
    std::vector<std::uint32_t> free_;
    std::deque<std::uint32_t> abandoned_;      // tasks that nobody refers to and that may not have ended
    std::size_t live_ = 0;                     // slots in use
    std::int64_t spare_at_ns_ = os::kNever;    // when to look whether slots can be given back
    bool spare_needed_ = false;                // they were in use since that was decided
    std::uint64_t next_sequence_ = 1;
    std::vector<Legacy> legacies_;
    History history_;
    std::vector<std::weak_ptr<MapState>> maps_;          // that may still run, and some that have gone
    std::size_t maps_limit_ = 16;                        // so many, and they are looked through
    std::vector<std::shared_ptr<const void>> unkept_;    // of recycled records; ended without mutex_
    std::vector<std::shared_ptr<Worker>> workers_;       // by index; empty where none is alive or on its way
    std::size_t alive_ = 0;         // workers that live, are on their way, or will be started in a moment
    unsigned failed_starts_ = 0;    // in a row
    std::exception_ptr broken_;
    bool closed_ = false;
    bool terminated_ = false;
    bool spoiled_ = false;    // a worker has overwritten the home; the supervisor breaks the pool
    std::uint64_t tail_ = 0;
    std::vector<std::byte> plan_;                                     // the home's first words as they were written
    std::vector<std::pair<std::int64_t, std::uint32_t>> restarts_;    // when, and which worker, after a failed start
    std::int64_t shortest_limit_ns_ = os::kNever;    // of the tasks that have not ended, or less: see sweep_limits()
    std::size_t sweep_next_ = 0;                     // the record that the sweep has come to
    std::int64_t sweep_shortest_ns_ = os::kNever;    // what it has found so far, and what has come since it began
    bool limits_watched_ = false;
    bool stalled_stderr_ = false;    // the program's stderr takes nothing now; worker pipes are left to fill

    std::thread callback_thread_;    // until a join() takes it
    std::thread::id callback_thread_id_;
    bool callbacks_run_ = false;                  // the thread has not come to its end
    std::uint32_t callback_tasks_ = 0;            // tasks with callbacks to come
    std::deque<std::uint32_t> callback_queue_;    // ended by the supervisor, or to be looked at again
    bool callback_stop_ = false;
};

}    // namespace multihull::detail
