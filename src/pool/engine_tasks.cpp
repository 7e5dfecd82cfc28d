// The engine's tasks: their slots and records, the queue that they go into, and what comes of them.
#include "pool/engine.hpp"

#include "codec/exceptions.hpp"
#include "os/memory.hpp"
#include "os/process.hpp"
#include "os/thread_sanitizer.hpp"
#include "pool/fetched_call.hpp"
#include "pool/map_state.hpp"
#include "process/exchange.hpp"
#include "shm/heap.hpp"
#include "shm/pins.hpp"
#include "shm/region.hpp"

#include <algorithm>
#include <csignal>
#include <cstring>
#include <utility>

namespace multihull::detail {

namespace {

// Slots in use at once above which their memory is given back when all are free, and for how long none may have been needed before:
// touching new pages can take longer than the tasks.
constexpr std::size_t kKeepSlots = 65536;
constexpr std::int64_t kSpareNs = 1'000'000'000;
constexpr std::uint64_t kRingPiece = std::uint64_t{1} << 18;

// The worker that used the slot last still has its lines; it is the next task's.
void fetch_ahead(const TaskSlot& next) {
    const auto* const lines = reinterpret_cast<const std::byte*>(&next);
    for (std::size_t at = 0; at < sizeof next; at += 64) os::prefetch_for_write(lines + at);
}

}    // namespace

// Needs mutex_.
std::uint32_t Engine::acquire_slot() {
    recycle_ended_abandoned();
    if (!free_.empty()) {
        const std::uint32_t task = free_.back();
        free_.pop_back();
        if (!free_.empty()) fetch_ahead(slot(free_.back()));
        return task;
    }
    if (records_.size() >= home_.slot_capacity) {
        for (std::size_t n = abandoned_.size(); n > 0 && free_.empty(); --n) recycle_ended_abandoned();
        if (free_.empty()) {
            throw Error("pool " + options_.name + " holds " + std::to_string(records_.size()) +
                        " tasks that wait or whose futures are still kept: collect results before submitting more, or "
                        "use imap()");
        }
        return acquire_slot();
    }
    records_.emplace_back();
    return static_cast<std::uint32_t>(records_.size() - 1);
}

// Needs mutex_. Looks at the two oldest, so that the list stays short at a constant price for each new task.
void Engine::recycle_ended_abandoned() noexcept {
    for (int n = 0; n < 2 && !abandoned_.empty(); ++n) {
        const std::uint32_t task = abandoned_.front();
        abandoned_.pop_front();
        // A callback that holds no future is still to be called.
        const bool ended =
            task_state::ended(slot(task).state.load(std::memory_order_acquire)) && records_[task].callbacks.empty();
        if (ended && records_[task].references == 0) {
            recycle_slot(task);
        } else if (records_[task].references == 0) {
            abandoned_.push_back(task);
        }
    }
}

// Needs mutex_.
void Engine::recycle_slot(std::uint32_t task) noexcept {
    auto& region = shm::Region::instance();
    Record& record = records_[task];
    TaskSlot& shared = slot(task);
    const std::uint64_t result_block = shared.result_block;
    if (result_block != 0 && result_block % alignof(ResultBlock) == 0 &&
        region.in_extents(result_block, sizeof(ResultBlock))) {
        os::gave_to_process();
        region.at<ResultBlock>(result_block)->released.store(1, std::memory_order_release);
    }
    shared.result_block = 0;
    forget_descriptors({home_.offset, descriptor_item(task, record.generation)});
    if (record.block != 0) shm::Heap::instance().free(record.block, record.block_size);
    record.block = 0;
    record.lost = nullptr;
    // Before a dead worker's memory is let go below: it may be another process's a moment later.
    if (record.map) record.map->release_results(record.part);
    drop_result_pins(task);
    // What they name may ask a manager's server when it ends, or be another pool's: not with mutex_ held.
    if (record.map) unkept_.push_back(std::move(record.map));
    for (auto& named : record.kept) unkept_.push_back(std::move(named));
    record.kept.clear();
    record.taken_over.reset();
    record.in_use = false;
    shared.state.store((record.generation << task_state::kGenerationShift) | task_state::free,
                       std::memory_order_release);
    free_.push_back(task);
    --live_;
    if (!legacies_.empty()) {
        std::erase_if(legacies_, [&](Legacy& legacy) {
            if (record.sequence > legacy.last_sequence || --legacy.remaining != 0) return false;
            region.release_owned(legacy.number);
            return true;
        });
    }
    if (live_ == 0 && records_.size() > kKeepSlots && spare_at_ns_ == os::kNever) {
        spare_needed_ = false;
        spare_at_ns_ = os::now_ns() + kSpareNs;
        Supervisor::instance().wake();
    }
}

// Needs mutex_. Gives back the memory of a burst of tasks once there was none like it for a while. Answers when to look again.
std::int64_t Engine::give_back_slots(std::int64_t now_ns) noexcept {
    if (now_ns < spare_at_ns_) return spare_at_ns_;
    if (live_ == 0 && std::exchange(spare_needed_, false)) return spare_at_ns_ = now_ns + kSpareNs;
    spare_at_ns_ = os::kNever;
    if (live_ == 0) {
        records_.clear();
        free_.clear();
        os::punch_hole(home_.slots + kKeepSlots, (home_.slot_capacity - kKeepSlots) * sizeof(TaskSlot));
    }
    return os::kNever;
}

// Needs mutex_, or nobody else. What the result names, and its readers have not taken over, ends with it.
void Engine::drop_result_pins(std::uint32_t task) noexcept {
    const Record& record = records_[task];
    const std::uint32_t first = record.map ? record.map->result_pins(record.part) : slot(task).result_pins;
    if (first == 0 && !record.bereaved) return;
    const auto owner = result_owner(shm::Region::instance().own_number(), home_.offset, task, record.generation);
    if (record.bereaved) {
        shm::drop_all_pins(owner);
    } else {
        shm::drop_pins(first, owner);
    }
}

std::uint32_t Engine::enqueue_new(Token token, CallBuffer* buffer, const void* inline_arguments,
                                  std::size_t inline_size, const TaskOptions* options, PartTask part) {
    std::chrono::nanoseconds timeout = options_.task_timeout;
    std::chrono::nanoseconds cpu_time = options_.limits.cpu_time;
    std::size_t memory = options_.limits.memory;
    unsigned retries = options_.retries;
    RetryOn retry_on = options_.retry_on;
    if (options != nullptr) {
        timeout = options->timeout.value_or(timeout);
        cpu_time = options->cpu_time.value_or(cpu_time);
        memory = options->memory.value_or(memory);
        retries = options->retries.value_or(retries);
        retry_on = options->retry_on.value_or(retry_on);
    }
    // A descriptor can be taken once: by a second attempt it would be missed.
    const bool with_descriptors = buffer != nullptr && buffer->descriptors_.any();
    if (with_descriptors) retries = 0;
    const bool timed = timeout.count() > 0 || cpu_time.count() > 0;
    bool wake_supervisor = false;
    std::uint32_t task = 0;
    std::vector<std::shared_ptr<const void>> unkept;    // destroyed after the lock is gone
    {
        const std::lock_guard guard(mutex_);
        if (broken_) std::rethrow_exception(broken_);
        if (closed_) throw PoolClosed("pool " + options_.name + " was closed: it takes no more tasks");
        task = acquire_slot();
        unkept.swap(unkept_);
        Record& record = records_[task];
        record.references = 1;
        record.generation = (record.generation + 1) & 0x3fff;
        record.in_use = true;
        record.cancelled = false;
        record.bereaved = false;
        record.attempts_left = retries;
        record.retry_on = retry_on;
        record.shortest_limit_ns = os::kNever;
        for (const auto limit : {timeout.count(), cpu_time.count()}) {
            if (limit > 0) record.shortest_limit_ns = std::min<std::int64_t>(record.shortest_limit_ns, limit);
        }
        record.map = std::move(part.map);
        record.part = part.part;
        record.sequence = next_sequence_++;
        if (++live_ > kKeepSlots) spare_needed_ = true;

        TaskSlot& shared = slot(task);
        shared.is_map = record.map ? 1 : 0;
        shared.token = token;
        shared.memory_limit = memory;
        shared.time_limit_ns = std::max<std::int64_t>(timeout.count(), 0);
        shared.cpu_limit_ns = std::max<std::int64_t>(cpu_time.count(), 0);
        shared.exception_retries = (retry_on & RetryOn::exception) || (retry_on & RetryOn::memory) ? retries : 0;
        shared.retry_on = static_cast<std::uint8_t>(retry_on);
        if (trace_block_ != 0) shared.submitted_ns = os::now_ns();
        shared.result_offset = 0;
        shared.result_size = 0;
        shared.result_block = 0;
        shared.result_pins = 0;
        shared.arguments_offset = 0;
        if (buffer == nullptr) {
            std::memcpy(shared.arguments, inline_arguments, inline_size);
            shared.arguments_size = inline_size;
        } else {
            const BorrowedBytes& borrowed = buffer->borrowed_;
            shared.arguments_size = borrowed.size != 0 ? borrowed.size : buffer->writer_.size();
            history_.bytes_sent += shared.arguments_size;
            if (!buffer->kept_.empty()) record.kept = std::move(buffer->kept_);
            if (borrowed.size != 0) {
                shared.arguments_offset = borrowed.offset;
            } else if (buffer->room_.block != 0) {
                record.block = std::exchange(buffer->room_.block, 0);
                record.block_size = buffer->room_.size;
                shared.arguments_offset = record.block | (buffer->is_plan_ ? kFetched : 0);
            } else {
                std::memcpy(shared.arguments, buffer->writer_.bytes().data(), shared.arguments_size);
            }
        }
        if (with_descriptors) buffer->descriptors_.give_to(home_.offset, descriptor_item(task, record.generation));
        shared.state.store((record.generation << task_state::kGenerationShift) | (timed ? task_state::kTimed : 0) |
                               task_state::queued,
                           std::memory_order_release);
        push(task);
        if (timed) {
            wake_supervisor = !std::exchange(limits_watched_, true) || record.shortest_limit_ns < shortest_limit_ns_;
            shortest_limit_ns_ = std::min(shortest_limit_ns_, record.shortest_limit_ns);
            sweep_shortest_ns_ = std::min(sweep_shortest_ns_, record.shortest_limit_ns);
        }
    }
    wake_worker();
    if (wake_supervisor) Supervisor::instance().wake();
    return task;
}

// Needs mutex_: the parent is the one writer of the ring and its tail.
void Engine::push(std::uint32_t task) noexcept {
    PoolHeader& header = home_.header;
    if (tail_ - header.head.load(std::memory_order_acquire) > home_.ring_mask) make_room();
    const std::uint64_t tail = tail_++;
    home_.ring[tail & home_.ring_mask].store(task, std::memory_order_relaxed);
    // Pairs with the worker's load of tail (the slot and its name are whole), and, sequentially consistent, with its raise of
    // `sleepers`: either it sees this task or wake_worker() sees it sleep.
    header.tail.store(tail + 1, std::memory_order_seq_cst);
    // Memory of a long ring is given back behind the head; a short one is used again as it is.
    if ((tail + 1) % kRingPiece == 0 && tail + 1 >= 2 * kRingPiece && home_.ring_mask >= 4 * kRingPiece) {
        const std::uint64_t begin = tail + 1 - 2 * kRingPiece;
        if (header.head.load(std::memory_order_acquire) >= begin + kRingPiece) {
            os::punch_hole(&home_.ring[begin & home_.ring_mask], kRingPiece * sizeof(std::uint32_t));
        }
    }
}

// Needs mutex_. Names of tasks that were cancelled pile up while every worker is busy, and those of slots that were used again are
// in the queue more than once. Every name is taken out; the first of each task that waits is put in again behind.
void Engine::make_room() noexcept {
    PoolHeader& header = home_.header;
    // Only those that are in it now: workers take names out meanwhile, and what was put in again must not be taken for a name that
    // was seen before. A place is left at once or has been left by a worker, so twice the ring is enough.
    const std::uint64_t end = tail_;
    for (std::uint64_t n = 0; n <= 2 * home_.ring_mask + 1; ++n) {
        std::uint64_t head = header.head.load(std::memory_order_acquire);
        if (end - head - 1 > home_.ring_mask) break;    // at the end, or not a place in this queue
        const std::uint32_t named = home_.ring[head & home_.ring_mask].load(std::memory_order_relaxed);
        if (!header.head.compare_exchange_strong(head, head + 1, std::memory_order_acq_rel)) continue;
        if (named >= records_.size() || records_[named].named ||
            task_state::phase(slot(named).state.load(std::memory_order_acquire)) != task_state::queued) {
            continue;
        }
        records_[named].named = true;
        home_.ring[tail_ & home_.ring_mask].store(named, std::memory_order_relaxed);
        header.tail.store(++tail_, std::memory_order_seq_cst);
    }
    for (Record& record : records_) record.named = false;
    if (tail_ - header.head.load(std::memory_order_acquire) > home_.ring_mask) spoiled_ = true;
    wake_all_workers();
    if (spoiled_) Supervisor::instance().wake();
}

void Engine::wake_worker() noexcept {
    PoolHeader& header = home_.header;
    std::uint32_t sleepers = header.sleepers.load(std::memory_order_seq_cst);
    if (sleepers == 0) return;
    // A worker that waits awake gives up its place before it takes a task, so it will see this one, if it is the only one. The
    // head is read first: a worker that had just taken the task before this one is then seen without its place.
    const std::uint64_t head = header.head.load(std::memory_order_seq_cst);
    if (header.tail.load(std::memory_order_seq_cst) - head <= 1 && header.spinner.load(std::memory_order_seq_cst) != 0)
        return;
    while (sleepers != 0) {
        if (header.sleepers.compare_exchange_weak(sleepers, sleepers - 1, std::memory_order_seq_cst)) {
            header.epoch.fetch_add(1, std::memory_order_seq_cst);
            os::futex_wake(header.epoch, 1);
            return;
        }
    }
}

void Engine::wake_all_workers() noexcept {
    // `sleepers` is left too high rather than too low: the next wakers find nobody and take it down again.
    home_.header.epoch.fetch_add(1, std::memory_order_seq_cst);
    os::futex_wake_all(home_.header.epoch);
}

bool Engine::ready(std::uint32_t task) noexcept {
    return task_state::ended(slot(task).state.load(std::memory_order_acquire));
}

bool Engine::wait(std::uint32_t task, std::int64_t deadline_ns) {
    require_usable();
    auto& word = slot(task).state;
    std::uint32_t state = word.load(std::memory_order_acquire);
    if (task_state::ended(state)) return true;
    // Waiting awake pays while answers come within microseconds; the time spent on it follows how often that was so.
    if (home_.cpus > 1) {
        const int budget = spin_ns_.load(std::memory_order_relaxed);
        const std::int64_t until = std::min(os::now_ns() + budget, deadline_ns);
        do {
            for (int i = 0; i < 16; ++i) {
                os::relax_cpu();
                state = word.load(std::memory_order_acquire);
                if (!task_state::ended(state)) continue;
                spin_ns_.store(std::min(budget * 2, 20'000), std::memory_order_relaxed);
                return true;
            }
        } while (os::now_ns() < until);
        spin_ns_.store(std::max(budget / 2, 500), std::memory_order_relaxed);
    }
    while (const auto awaited = this->awaited(task)) {
        if (!os::futex_wait(*awaited->word, awaited->expected, deadline_ns)) return ready(task);
    }
    return true;
}

std::optional<os::FutexWord> Engine::awaited(std::uint32_t task) noexcept {
    auto& word = slot(task).state;
    std::uint32_t state = word.load(std::memory_order_acquire);
    while (!task_state::ended(state)) {
        if ((state & task_state::kWaiter) != 0) return os::FutexWord{&word, state};
        word.compare_exchange_weak(state, state | task_state::kWaiter, std::memory_order_acq_rel);
    }
    return std::nullopt;
}

namespace {

// The bytes of a result, wherever the worker says that they are; throws when that can't be.
std::span<const std::byte> result_bytes(const TaskSlot& slot) {
    const std::uint64_t offset = slot.result_offset;
    const std::uint64_t size = slot.result_size;
    if (offset == 0 && size <= kInlineResult) return {slot.result, size};
    const auto& region = shm::Region::instance();
    os::got_from_process();
    if (offset != 0 && region.in_extents(offset, size)) return {region.at(offset), size};
    throw CodecError("a worker left a result that lies outside of its memory: it was overwritten");
}

}    // namespace

// A result may be read any number of times, so what it names is kept for as long.
void Engine::read_again(std::uint32_t task, Reader& reader) {
    if (slot(task).result_pins == 0) return;
    const std::lock_guard guard(mutex_);
    auto& taken_over = records_[task].taken_over;    // stays where it is while the caller retains the task
    if (taken_over == nullptr) taken_over = std::make_unique<TakenOver>();
    reader.keep_in(*taken_over);
}

std::exception_ptr Engine::failure(std::uint32_t task) {
    switch (task_state::phase(slot(task).state.load(std::memory_order_acquire))) {
        case task_state::exception:
            try {
                Reader reader(result_bytes(slot(task)));
                read_again(task, reader);
                return decode_exception(reader);
            } catch (const CodecError&) {
                return std::current_exception();
            }
        case task_state::lost: {
            const std::lock_guard guard(mutex_);
            return records_[task].lost;
        }
        default:
            return nullptr;
    }
}

void Engine::read(std::uint32_t task, ReadResult reader_of, void* out) {
    if (auto why = failure(task)) std::rethrow_exception(std::move(why));
    Reader reader(result_bytes(slot(task)));
    read_again(task, reader);
    ResultSource source;
    source.reader = &reader;
    reader_of(source, out);
}

void Engine::rethrow_if_lost(std::uint32_t task) {
    if (auto why = failure(task)) std::rethrow_exception(std::move(why));
}

// Needs mutex_. Ends a task as lost if it still is in `state`; `state` then holds what it is now, as in a compare-and-swap.
bool Engine::try_end(std::uint32_t task, std::uint32_t& state, std::exception_ptr why, TaskOutcome how) {
    auto& word = slot(task).state;
    records_[task].lost = std::move(why);    // first: whoever sees the word reads this
    if (!word.compare_exchange_strong(state, task_state::with_phase(state, task_state::lost),
                                      std::memory_order_acq_rel))
        return false;
    if (!records_[task].map) history_.count_lost(how);    // a map's inputs are counted one by one
    // Whoever waits at the other end of a connection that nobody took hears of it now.
    forget_descriptors({home_.offset, descriptor_item(task, records_[task].generation)});
    if (state & task_state::kWaiter) os::futex_wake_all(word);
    if (!records_[task].callbacks.empty()) {
        callback_queue_.push_back(task);
        notify_callback_thread();
    }
    changed_.notify_all();
    return true;
}

// Needs mutex_. Ends a task that no living worker holds.
void Engine::end_lost(std::uint32_t task, const std::exception_ptr& why, TaskOutcome how) {
    std::uint32_t state = slot(task).state.load(std::memory_order_acquire);
    while (!try_end(task, state, why, how)) {}
}

bool Engine::cancel(std::uint32_t task) {
    require_usable();
    std::shared_ptr<Worker> victim;
    {
        const std::lock_guard guard(mutex_);
        auto& word = slot(task).state;
        std::uint32_t state = word.load(std::memory_order_acquire);
        for (;;) {
            if (task_state::phase(state) == task_state::queued) {
                // Whoever comes first has it: a worker that takes it, or this.
                if (!try_end(task, state,
                             std::make_exception_ptr(Cancelled("the task was cancelled before it started")),
                             TaskOutcome::cancelled))
                    continue;
                return true;
            }
            if (task_state::phase(state) == task_state::taken) {
                records_[task].cancelled = true;
                if (!word.compare_exchange_weak(state, task_state::with_phase(state, task_state::condemned),
                                                std::memory_order_acq_rel)) {
                    continue;
                }
                const std::uint32_t index = task_state::worker(state);
                if (index < workers_.size()) victim = workers_[index];
                break;
            }
            return task_state::phase(state) == task_state::condemned && records_[task].cancelled;
        }
        if (victim && victim->doom == Doom::none) {
            victim->doom = Doom::cancelled;
            victim->killed = os::signal_process(victim->pidfd, SIGKILL);
        }
    }
    return true;
}

void Engine::abandon(std::uint32_t task) { withdraw(task); }

bool Engine::withdraw(std::uint32_t task) {
    if (!ours()) return false;
    const std::lock_guard guard(mutex_);
    std::uint32_t state = slot(task).state.load(std::memory_order_acquire);
    const auto why = std::make_exception_ptr(Cancelled("the task was cancelled before it started"));
    while (task_state::phase(state) == task_state::queued) {
        if (try_end(task, state, why, TaskOutcome::cancelled)) return true;
    }
    return false;
}

void Engine::retain(std::uint32_t task) noexcept {
    if (!ours()) return;
    const std::lock_guard guard(mutex_);
    ++records_[task].references;
}

void Engine::release(std::uint32_t task) noexcept {
    if (!ours()) return;
    std::vector<std::shared_ptr<const void>> unkept;    // destroyed after the lock is gone
    std::shared_ptr<MapState> map;                      // and so is this
    const std::lock_guard guard(mutex_);
    Record& record = records_[task];
    if (--record.references != 0) return;
    map = record.map;
    if (task_state::ended(slot(task).state.load(std::memory_order_acquire)) && record.callbacks.empty()) {
        recycle_slot(task);
        unkept.swap(unkept_);
    } else {
        abandoned_.push_back(task);
    }
}

// Needs mutex_. Only when no worker is alive: nobody writes to what is freed by those who are told.
void Engine::fail_everything(const std::exception_ptr& why) {
    for (std::uint32_t task = 0; task < records_.size(); ++task) {
        if (!records_[task].in_use) continue;
        if (!task_state::ended(slot(task).state.load(std::memory_order_acquire)))
            end_lost(task, why, TaskOutcome::cancelled);
    }
}

}    // namespace multihull::detail
