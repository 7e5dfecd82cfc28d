#include "pool/worker.hpp"

#include "codec/exceptions.hpp"
#include "os/clock.hpp"
#include "os/fault.hpp"
#include "os/futex.hpp"
#include "os/process.hpp"
#include "pool/fetched_call.hpp"
#include "pool/layout.hpp"
#include "pool/map_worker.hpp"
#include "pool/result_arena.hpp"
#include "pool/trace_ring.hpp"
#include "process/backtrace.hpp"
#include "process/exchange.hpp"
#include "process/inner_limits.hpp"
#include "process/self.hpp"
#include "process/throw_trace.hpp"

#include <multihull/detail/fork_guard.hpp>
#include <multihull/pool_options.hpp>

#include <algorithm>
#include <csignal>
#include <cstdio>
#include <cstring>
#include <new>
#include <optional>
#include <sched.h>
#include <unistd.h>

namespace multihull::detail {

namespace {

constexpr std::int64_t kSpinNs = 20'000;
constexpr std::int64_t kGivingWayNs = 60'000;    // longer than what follows a result, to the next task

// Ended by the supervisor's kill, which is on its way.
[[noreturn]] void wait_for_the_end() {
    for (;;) ::pause();
}

class WorkerLoop {
public:
    WorkerLoop(shm::Offset home, std::uint32_t index, pid_t parent)
        : home_(home),
          header_(home_.header),
          self_(home_.workers[index]),
          index_(index),
          parent_(parent),
          keeps_times_(header_.keeps_times != 0),
          trace_(header_, index) {}

    [[noreturn]] void run() {
        os::kill_point(os::KillPoint::worker_born);
        header_.entry_address.store(reinterpret_cast<std::uintptr_t>(&worker_entry), std::memory_order_release);
        set_reader_of_stacks(reinterpret_cast<std::uintptr_t>(&worker_entry), header_.parent_entry_address);
        install_crash_handler(&self_.crash);
        memory_base_ = os::private_memory();
        set_memory_limit(header_.memory_limit);
        if (!find_lender() || !run_call(header_.initializer_offset, header_.initializer_size)) {
            self_.phase.store(WorkerSlot::unusable, std::memory_order_release);
            leave_child(1);
        }
        self_.ready_ns.store(os::now_ns(), std::memory_order_relaxed);
        self_.phase.store(WorkerSlot::ready, std::memory_order_release);
        os::kill_point(os::KillPoint::worker_ready);
        while (const auto task = next_task()) {
            run_task(*task);
            if (worn_out()) break;
        }
        os::kill_point(os::KillPoint::worker_leaving);
        self_.phase.store(WorkerSlot::leaving, std::memory_order_release);
        set_memory_limit(0);
        run_call(header_.exit_offset, header_.exit_size);
        leave_child(0);
    }

private:
    TaskSlot& slot(std::uint32_t task) const { return home_.slots[task]; }

    bool queue_empty() const {
        return header_.head.load(std::memory_order_seq_cst) == header_.tail.load(std::memory_order_seq_cst);
    }

    std::optional<std::uint32_t> next_task() {
        for (;;) {
            if (header_.mode.load(std::memory_order_acquire) == PoolHeader::stopped) wait_for_the_end();
            if (const auto task = take()) return task;
            if (header_.mode.load(std::memory_order_acquire) == PoolHeader::closing && queue_empty())
                return std::nullopt;
            ended_ns_ = 0;
            if (spin()) continue;
            sleep();
        }
    }

    // Takes the first queued task. The one compare-and-swap that takes it also says who did; the intent before it says where to
    // look when this process dies.
    std::optional<std::uint32_t> take() {
        for (;;) {
            std::uint64_t head = header_.head.load(std::memory_order_acquire);
            if (head == header_.tail.load(std::memory_order_acquire)) return std::nullopt;
            const std::uint32_t task = home_.ring[head & home_.ring_mask].load(std::memory_order_relaxed);
            if (task >= home_.slot_capacity) {
                header_.head.compare_exchange_strong(head, head + 1, std::memory_order_acq_rel);
                continue;
            }
            auto& word = slot(task).state;
            std::uint32_t state = word.load(std::memory_order_acquire);
            bool taken = false;
            if (task_state::phase(state) == task_state::queued) {
                if (keeps_times_ || (state & task_state::kTimed) != 0) start_clock(slot(task), state);
                self_.current.store(std::uint64_t{task} + 1, std::memory_order_release);
                os::kill_point(os::KillPoint::task_intent);
                taken =
                    word.compare_exchange_strong(state, task_state::taken_by(state, index_), std::memory_order_acq_rel);
                if (!taken) continue;    // somebody took it, cancelled it, or began to wait for it: look again
                os::kill_point(os::KillPoint::task_taken);
            }
            header_.head.compare_exchange_strong(head, head + 1, std::memory_order_acq_rel);
            if (taken) {
                os::kill_point(os::KillPoint::task_head_advanced);
                return task;
            }
        }
    }

    void start_clock(const TaskSlot& task, std::uint32_t state) {
        const bool timed = (state & task_state::kTimed) != 0;
        // Straight after the task before, and with no limit to keep, the time that was read at its end will do.
        started_ns_ = timed || ended_ns_ == 0 ? os::now_ns() : ended_ns_;
        self_.started_ns.store(started_ns_, std::memory_order_release);
        if (timed && task.cpu_limit_ns > 0) self_.cpu_started_ns.store(os::own_cpu_ns(), std::memory_order_release);
    }

    // Waits awake for a moment, if no other worker does. True when there may be something to do.
    bool spin() {
        if (header_.idle_worker == IdleWorker::sleeps) return false;
        std::uint32_t nobody = 0;
        if (!header_.spinner.compare_exchange_strong(nobody, index_ + 1, std::memory_order_seq_cst)) return false;
        const bool gives_way = header_.idle_worker == IdleWorker::gives_way;
        const std::int64_t until = os::now_ns() + (gives_way ? kGivingWayNs : kSpinNs);
        const int turns = gives_way ? 1 : 16;    // before it looks at the clock
        bool found = false;
        do {
            if (gives_way) ::sched_yield();
            for (int i = 0; i < turns && !found; ++i) {
                os::relax_cpu();
                found = !queue_empty() || header_.mode.load(std::memory_order_relaxed) != PoolHeader::open;
            }
        } while (!found && os::now_ns() < until);
        // Given up before a task is taken: see Engine::wake_worker.
        header_.spinner.store(0, std::memory_order_seq_cst);
        return found;
    }

    void sleep() {
        const std::uint32_t epoch = header_.epoch.load(std::memory_order_seq_cst);
        header_.sleepers.fetch_add(1, std::memory_order_seq_cst);
        os::kill_point(os::KillPoint::worker_before_sleep);
        if (!queue_empty() || header_.mode.load(std::memory_order_seq_cst) != PoolHeader::open) return;
        os::flush_standard_streams();
        os::futex_wait(header_.epoch, epoch, os::kNever);
        os::kill_point(os::KillPoint::worker_woken);
    }

    void run_task(std::uint32_t task) {
        TaskSlot& shared = slot(task);
        set_memory_limit(shared.memory_limit);
        os::kill_point(os::KillPoint::task_before_run);
        std::uint32_t retries = shared.exception_retries;
        while (!run_once(shared, retries == 0)) --retries;
        os::kill_point(os::KillPoint::task_result_written);
        account(shared);
        fetched_.let_go();
        finish(task, outcome_);
        ++tasks_done_;
    }

    // Before the task ends, so that whoever has its result finds it counted and traced.
    void account(const TaskSlot& shared) {
        const bool failed = outcome_ != task_state::value;
        // A map's ranges speak for themselves, except where its part came to none.
        if (trace_ && (!shared.is_map || failed)) trace(shared, failed);
        if (shared.is_map) {
            ended_ns_ = 0;    // its time was not read here: the next task does not begin where the one before it ended
            return;
        }
        auto& counters = self_.counters;
        WorkerCounters::add(failed ? counters.calls_failed : counters.calls_done, 1);
        WorkerCounters::add(counters.result_bytes, shared.result_size);
    }

    void trace(const TaskSlot& shared, bool failed) {
        ended_ns_ = os::now_ns();
        TraceEntry entry;
        entry.submitted_ns = shared.submitted_ns;
        entry.started_ns = std::max(started_ns_, shared.submitted_ns);
        entry.ended_ns = std::max(ended_ns_, entry.started_ns);
        entry.token = shared.token;
        entry.leading = shared.is_map ? 0 : leading_bytes(arguments_);
        entry.pid = pid_;
        entry.outcome = failed ? TraceEntry::exception : TraceEntry::value;
        trace_.write(entry);
        WorkerCounters::add(self_.counters.work_ns, static_cast<std::uint64_t>(entry.ended_ns - entry.started_ns));
    }

    std::span<const std::byte> arguments_of(const TaskSlot& shared) {
        const std::uint64_t offset = shared.arguments_offset;
        if (offset == 0) return {shared.arguments, shared.arguments_size};
        const std::span<const std::byte> bytes(shm::readable_at(offset & ~kFetched), shared.arguments_size);
        return (offset & kFetched) == 0 ? bytes : fetched_.fetch(bytes, header_.lender.pid);
    }

    // Runs the task and leaves its outcome in the slot. False when it threw and is to be run again.
    bool run_once(TaskSlot& shared, bool last) {
        ResultGrowth growth(arena_);
        // The pool's own process keeps what descriptors a result holds, until its future is read or gone.
        ExchangeAttachments descriptors({parent_,
                                         {home_.offset, descriptor_item(index_of(shared), generation_of(shared))}});
        Writer writer(std::span(shared.result), growth, &descriptors);
        struct Attempt {
            WorkerLoop* worker;
            TaskSlot* slot;
            Writer* writer;
        } attempt{this, &shared, &writer};
        clear_throw_stack();
        try {
            call_with_throw_trace(
                [](void* data) {
                    const auto& a = *static_cast<Attempt*>(data);
                    a.worker->call(*a.slot, *a.writer);
                },
                &attempt);
            os::kill_point(os::KillPoint::task_after_run);
            publish(shared, writer, growth);
            outcome_ = task_state::value;
            return true;
        } catch (const std::bad_alloc&) {
            guard_.check();
            if (!last && (static_cast<RetryOn>(shared.retry_on) & (RetryOn::exception | RetryOn::memory))) return false;
            keep_exception(shared, std::current_exception());
        } catch (...) {
            guard_.check();
            if (!last && (static_cast<RetryOn>(shared.retry_on) & RetryOn::exception)) return false;
            keep_exception(shared, std::current_exception());
        }
        return true;
    }

    void call(TaskSlot& shared, Writer& writer) {
        arguments_ = {};    // of the task before; where they can't be had there are none
        arguments_ = arguments_of(shared);
        Reader reader(arguments_);
        TaskContext context(reader, writer);
        if (shared.is_map) {
            const auto part = reader.get<MapPart>();
            MapWorker map(part, self_, index_, arena_, shared, owner_of_result(shared), keeps_times_, trace_);
            context.set_map(&map);
            thunk_of(shared.token)(context);
        } else {
            thunk_of(shared.token)(context);
        }
    }

    void keep_exception(TaskSlot& shared, const std::exception_ptr& exception) {
        // The task may have used up its memory; saying so must still be possible.
        set_memory_limit(0);
        ResultGrowth growth(arena_);
        Writer writer(std::span(shared.result), growth);
        encode_exception(writer, exception, task_throw_stack());
        publish(shared, writer, growth);
        outcome_ = task_state::exception;
    }

    void publish(TaskSlot& shared, Writer& writer, ResultGrowth& growth) {
        const shm::Offset block = growth.take();
        shared.result_block = block;
        shared.result_size = writer.size();
        shared.result_offset = block == 0 ? 0 : shm::Region::instance().offset_of(writer.bytes().data());
        shared.result_pins = writer.take_pins();
        if (shared.result_pins == 0) return;
        shm::move_pins(shared.result_pins, {shm::Region::instance().own_number()}, owner_of_result(shared));
        os::kill_point(os::KillPoint::pins_published);
    }

    shm::PinOwner owner_of_result(const TaskSlot& shared) const {
        return result_owner(header_.owner_number, home_.offset, index_of(shared), generation_of(shared));
    }
    std::uint32_t index_of(const TaskSlot& shared) const { return static_cast<std::uint32_t>(&shared - home_.slots); }
    static std::uint32_t generation_of(const TaskSlot& shared) {
        return shared.state.load(std::memory_order_relaxed) >> task_state::kGenerationShift;
    }

    void finish(std::uint32_t task, task_state::Phase outcome) {
        auto& word = slot(task).state;
        std::uint32_t state = word.load(std::memory_order_acquire);
        do {
            if (task_state::phase(state) == task_state::condemned) wait_for_the_end();
            // Somebody has overwritten the pool's memory. No kill is on its way: the death itself tells the supervisor.
            if (task_state::phase(state) != task_state::taken || task_state::worker(state) != index_) ::_exit(1);
        } while (!word.compare_exchange_weak(state, task_state::with_phase(state, outcome), std::memory_order_acq_rel));
        os::kill_point(os::KillPoint::task_done);
        if (state & task_state::kWaiter) {
            os::kill_point(os::KillPoint::task_before_wake);
            os::futex_wake_all(word);
        }
        if (state & task_state::kNotify) notify(task);
    }

    // Tells the parent's callback thread. Never blocks: when the ring is full, the parent looks through all that it waits for.
    void notify(std::uint32_t task) {
        os::kill_point(os::KillPoint::task_before_notify);
        const std::uint32_t tail = self_.notify_tail.load(std::memory_order_relaxed);
        if (tail - self_.notify_head.load(std::memory_order_acquire) < kNotifyRing) {
            self_.notify_ring[tail % kNotifyRing].store(task, std::memory_order_relaxed);
            self_.notify_tail.store(tail + 1, std::memory_order_release);
        } else {
            self_.notify_overflow.store(1, std::memory_order_release);
        }
        header_.notify_epoch.fetch_add(1, std::memory_order_seq_cst);
        os::futex_wake(header_.notify_epoch, 1);
        os::kill_point(os::KillPoint::task_notified);
    }

    void set_memory_limit(std::size_t bytes) {
        if (bytes == memory_limit_) return;
        memory_limit_ = bytes;
        try {
            if (bytes == 0) {
                os::unlimit_private_memory();
            } else {
                os::limit_private_memory(memory_base_, bytes);
            }
        } catch (const std::exception& error) {
            std::fprintf(stderr, "multihull: the memory limit could not be set: %s\n", error.what());
        }
    }

    bool worn_out() const {
        if (header_.max_tasks != 0 && tasks_done_ >= header_.max_tasks) return true;
        return header_.max_growth != 0 && os::private_memory() > memory_base_ + header_.max_growth;
    }

    // False, with the reason in the slot, where arguments can't be read.
    bool find_lender() {
        if (header_.lender.pid == 0) return true;
        try {
            shm::look_into_foreign_region(header_.lender);
            return true;
        } catch (const std::exception& error) {
            std::snprintf(self_.start_error, sizeof self_.start_error, "%s", error.what());
            return false;
        }
    }

    // Runs the initializer or the exit function; false, with the reason in the slot, when it throws.
    bool run_call(std::uint64_t offset, std::uint64_t size) {
        if (offset == 0) return true;
        try {
            Reader reader(std::span(shm::Region::instance().at(offset), size));
            const auto token = reader.get<Token>();
            VectorGrowth growth;
            Writer writer({}, growth);
            TaskContext context(reader, writer);
            thunk_of(token)(context);
            return true;
        } catch (const std::exception& error) {
            guard_.check();
            std::snprintf(self_.start_error, sizeof self_.start_error, "%s", error.what());
        } catch (...) {
            guard_.check();
            std::snprintf(self_.start_error, sizeof self_.start_error, "it threw something that is no std::exception");
        }
        return false;
    }

    PoolHome home_;
    PoolHeader& header_;
    WorkerSlot& self_;
    const std::uint32_t index_;
    const pid_t parent_;
    const ForkGuard guard_;    // a copy of this process that a task forked must not come back here
    ResultArena arena_;
    FetchedCall fetched_;
    std::span<const std::byte> arguments_;    // of the task at hand
    std::size_t memory_base_ = 0;
    std::size_t memory_limit_ = 0;
    const bool keeps_times_;
    TraceWriter trace_;
    const std::uint32_t pid_ = static_cast<std::uint32_t>(::getpid());
    std::int64_t started_ns_ = 0;    // of the task at hand, where times are kept
    std::int64_t ended_ns_ = 0;      // of the task before, while nothing came between; else 0
    std::uint64_t tasks_done_ = 0;
    task_state::Phase outcome_ = task_state::value;
};

}    // namespace

void worker_entry(const ZygoteRequest& request, std::vector<os::Fd>& fds) {
    // Ctrl-C is the program's to act on; its workers end with it, or when it says so.
    ::signal(SIGINT, SIG_IGN);
    if (!fds.empty()) ::dup2(fds.front().get(), STDERR_FILENO);
    fds.clear();
    const auto index = static_cast<std::uint32_t>(request.words[1]);
    const PoolHome home(request.words[0]);
    // First of all: where the zygote dies before it can name this process, the parent finds the name here.
    home.workers[index].pid.store(static_cast<std::uint32_t>(::getpid()), std::memory_order_release);
    home.workers[index].born_ns.store(os::now_ns(), std::memory_order_relaxed);
    os::set_process_name("mh-worker");
    set_self(ProcessInfo(::getpid(), std::string(home.header.name) + "-worker-" + std::to_string(index), true),
             ProcessInfo(static_cast<pid_t>(request.parent_pid), home.header.owner_name, false));
    set_inner_limits(home.header.inner_cpus, home.header.inner_threads);
    WorkerLoop(request.words[0], index, static_cast<pid_t>(request.parent_pid)).run();
}

}    // namespace multihull::detail
