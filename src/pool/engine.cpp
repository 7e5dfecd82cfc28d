// The engine's life, from options to its last worker's end.
#include "pool/engine.hpp"

#include "os/process.hpp"
#include "pool/map_state.hpp"
#include "pool/monitor.hpp"
#include "pool/worker.hpp"
#include "process/exchange.hpp"
#include "process/inner_limits.hpp"
#include "shm/growth.hpp"

#include <multihull/log.hpp>

#include <algorithm>
#include <bit>
#include <cstring>
#include <new>
#include <stdexcept>

namespace multihull::detail {

namespace {

std::atomic<unsigned> pool_count{0};

constexpr std::uint64_t round_up(std::uint64_t value, std::uint64_t unit) { return (value + unit - 1) / unit * unit; }

// For the queue and the tasks of a pool.
constexpr std::uint64_t kLeastRoom = std::uint64_t{64} << 10;

PoolOptions checked_options(PoolOptions options) {
    if (options.processes == 0) options.processes = processors_to_share();
    if (options.processes > kMaxWorkers) {
        throw std::invalid_argument(
            "a pool of " + std::to_string(options.processes) +
            " workers is more than a pool can have (4096): ask for as many as there are processors");
    }
    options.publish = wants_monitor(options.publish);
    if (options.name.empty()) options.name = "Pool-" + std::to_string(pool_count.fetch_add(1) + 1);
    return options;
}

void copy_name(char (&out)[64], const std::string& name) {
    const std::size_t size = std::min(name.size(), sizeof out - 1);
    std::memcpy(out, name.data(), size);
    out[size] = '\0';
}

shm::Offset make_home(const PoolOptions& options) {
    watch_forks();
    auto& region = shm::Region::instance();
    const shm::Offset home = region.claim_home();
    const std::uint64_t size = region.home_size();
    auto& header = *region.at<PoolHeader>(home);
    std::memset(static_cast<void*>(&header), 0, sizeof header);
    header.workers_offset = round_up(sizeof(PoolHeader), 4096);
    header.ring_offset = round_up(header.workers_offset + options.processes * sizeof(WorkerSlot), 4096);
    if (header.ring_offset + kLeastRoom > size) {
        region.release_home(home);
        throw StartError("the memory that this program may share has no room for " + std::to_string(options.processes) +
                         " workers: raise the limit on address space (ulimit -v), or ask for fewer");
    }
    // A power of two of names, and no more slots than names: the queue cannot overflow.
    const std::uint64_t room = size - header.ring_offset;
    const std::uint64_t ring = std::bit_ceil(room / sizeof(TaskSlot));
    header.slots_offset = round_up(header.ring_offset + ring * sizeof(std::uint32_t), 4096);
    header.slot_capacity = (size - header.slots_offset) / sizeof(TaskSlot);
    header.ring_mask = ring - 1;
    header.memory_limit = options.limits.memory;
    header.max_tasks = options.max_tasks_per_child;
    header.max_growth = options.max_growth_per_child;
    const std::size_t cpus = os::usable_cpus();
    header.owner_number = region.own_number();
    header.cpus = static_cast<std::uint32_t>(cpus);
    header.idle_worker = cpus > 1 ? IdleWorker::watches : IdleWorker::sleeps;
    header.worker_count = static_cast<std::uint32_t>(options.processes);
    header.inner_cpus = static_cast<std::uint32_t>(inner_share(options.processes, cpus));
    header.inner_threads = static_cast<std::uint32_t>(options.inner_max_num_threads.value_or(header.inner_cpus));
    header.keeps_times = *options.publish ? 1 : 0;
    copy_name(header.name, options.name);
    copy_name(header.owner_name, current_process().name());
    header.parent_entry_address = reinterpret_cast<std::uintptr_t>(&worker_entry);
    return home;
}

}    // namespace

Engine::Engine(PoolOptions options)
    : options_(checked_options(std::move(options))),
      home_(make_home(options_)),
      history_(options_.processes, options_.trace),
      workers_(options_.processes) {
    try {
        if (options_.trace) make_trace_rings();
        put_initial_call(options_.initializer, home_.header.initializer_offset, home_.header.initializer_size);
        initializer_block_ = home_.header.initializer_offset;
        initializer_size_ = home_.header.initializer_size;
        put_initial_call(options_.exit_function, home_.header.exit_offset, home_.header.exit_size);
        exit_block_ = home_.header.exit_offset;
        exit_size_ = home_.header.exit_size;
    } catch (...) {
        if (trace_block_ != 0) shm::Heap::instance().free(trace_block_, trace_block_size_);
        shm::Region::instance().release_home(home_.offset);
        throw;
    }
    history_.made_ns = os::now_ns();
}

void Engine::put_initial_call(const Call& call, std::uint64_t& offset, std::uint64_t& size) {
    if (!call) return;
    // Every worker reads it, those that are yet to be born too; a descriptor can be taken once.
    class NoDescriptors final : public Attachments {
    public:
        DescriptorTicket put(int) override {
            throw CodecError(
                "a pool's initializer or exit function can't have a file descriptor or a connection as its argument: "
                "every worker would need one; send one to each task, or open it in the worker");
        }
        int take(const DescriptorTicket&) override { throw_damaged("it names a file descriptor"); }
    } none;
    shm::HeapGrowth growth;
    Writer writer({}, growth, &none);
    writer.keep_in(kept_);
    writer.put(call.get()->token());
    call.get()->encode_to(writer);
    const std::size_t written = writer.size();
    const auto [block, capacity] = growth.take();
    // The heap needs the size that was asked for; the worker's reader stops where the call ends.
    static_cast<void>(written);
    offset = block;
    size = capacity;
}

void Engine::start() {
    const auto* const words = reinterpret_cast<const std::byte*>(&home_.header);
    plan_.assign(words, words + offsetof(PoolHeader, entry_address));
    method_ = options_.start_method ? *options_.start_method : default_start_method();
    switch (method_) {
        case StartMethod::fork:
            warn_if_threaded("a pool started by fork");
            zygote_ = Zygote::fork_snapshot();
            own_zygote_ = true;
            break;
        case StartMethod::forkserver:
            zygote_ = Zygote::forkserver();
            if (!zygote_) {
                throw StartError(
                    "the start method forkserver needs multihull::init(argc, argv) as main's first line; it was not "
                    "called");
            }
            break;
        case StartMethod::spawn:
            zygote_ = Zygote::spawn();
            own_zygote_ = true;
            break;
    }
    keep_descriptors_of_family();
    serve_descriptors();
    Supervisor::instance().add(shared_from_this());
    {
        const std::lock_guard guard(mutex_);
        alive_ = home_.worker_count;
    }
    if (log_enabled(LogLevel::debug)) {
        log(LogLevel::debug, "pool " + options_.name + " starts " + std::to_string(home_.worker_count) + " workers");
    }
    for (std::uint32_t i = 0; i < home_.worker_count; ++i) start_worker(i);
    if (*options_.publish) Monitor::publish(shared_from_this());
}

Engine::~Engine() {
    if (!ours()) {
        // The copy in a forked child: everything belongs to the parent. The thread does not exist here, and an object of one that
        // was not joined must not be destroyed.
        if (callback_thread_.joinable()) new (std::nothrow) std::thread(std::move(callback_thread_));
        return;
    }
    for (std::uint32_t task = 0; task < records_.size(); ++task) {
        const Record& record = records_[task];
        if (record.in_use) forget_descriptors({home_.offset, descriptor_item(task, record.generation)});
        if (record.in_use && record.block != 0) shm::Heap::instance().free(record.block, record.block_size);
        if (record.in_use) drop_result_pins(task);
    }
    for (const Legacy& legacy : legacies_) shm::Region::instance().release_owned(legacy.number);
    shm::Heap::instance().free(initializer_block_, initializer_size_);
    shm::Heap::instance().free(exit_block_, exit_size_);
    if (trace_block_ != 0) shm::Heap::instance().free(trace_block_, trace_block_size_);
    shm::Region::instance().release_home(home_.offset);
}

void Engine::require_usable() const {
    if (!ours())
        throw PoolClosed("pool " + options_.name +
                         " belongs to the process that made it, not to this forked child: make a pool here");
}

std::uint32_t Engine::submit(Token token, CallBuffer& buffer, const TaskOptions* options) {
    require_usable();
    return enqueue_new(token, &buffer, nullptr, 0, options, {});
}

std::shared_ptr<Completion> Engine::submit_map(CallBuffer& call, MapPlan plan, const TaskOptions* options) {
    require_usable();
    return MapState::start(shared_from_this(), call, plan, options);
}

void Engine::close() {
    require_usable();
    const std::lock_guard guard(mutex_);
    if (closed_) return;
    closed_ = true;
    home_.header.mode.store(PoolHeader::closing, std::memory_order_seq_cst);
    wake_all_workers();
}

void Engine::join() {
    require_usable();
    if (Supervisor::instance().is_this_thread()) throw Error("a pool can't be joined from the library's own thread");
    bool in_callback = false;
    std::thread last_callbacks;    // of the callers at the same time, one has it
    {
        std::unique_lock guard(mutex_);
        if (!closed_)
            throw Error("pool " + options_.name + " still takes tasks: call close() or terminate() before join()");
        changed_.wait(guard, [&] { return alive_ == 0 && (terminated_ || broken_ || queue_empty()); });
        end_if_deserted();
        // Nobody will run what has not ended now: a worker has overwritten where it stood.
        fail_everything(std::make_exception_ptr(BrokenPool("the task was lost: a worker of pool " + options_.name +
                                                           " overwrote memory of the pool")));
        // Whatever workers told of it: by now everything has ended, and the callback thread waits for the last one.
        for (std::uint32_t task = 0; task < records_.size(); ++task) {
            if (!records_[task].callbacks.empty()) callback_queue_.push_back(task);
        }
        callback_stop_ = true;
        notify_callback_thread();
        in_callback = callbacks_run_ && callback_thread_id_ == std::this_thread::get_id();
        last_callbacks = std::move(callback_thread_);
        // A callback that joins can't wait for itself, and whoever waits for the callbacks waits for it.
        if (!in_callback && !last_callbacks.joinable()) changed_.wait(guard, [&] { return !callbacks_run_; });
    }
    if (last_callbacks.joinable()) {
        if (in_callback) {
            last_callbacks.detach();
        } else {
            last_callbacks.join();
        }
    }
    if (own_zygote_) {
        const auto last = this->zygote();
        last->leave_now();
        last->wait();
    }
    Supervisor::instance().remove(this);
}

void Engine::terminate() noexcept {
    if (!ours()) return;
    const std::lock_guard guard(mutex_);
    closed_ = true;
    terminated_ = true;
    kill_all_workers();
}

// The interface of templates.

std::shared_ptr<Engine> make_engine(PoolOptions options) {
    auto engine = std::make_shared<Engine>(std::move(options));
    engine->start();
    return engine;
}

std::shared_ptr<Completion> as_completion(std::shared_ptr<Engine> engine) noexcept { return engine; }
std::size_t worker_count(const Engine& engine) noexcept { return engine.workers(); }

std::uint32_t submit_call(Engine& engine, Token token, CallBuffer& buffer, const TaskOptions* options) {
    return engine.submit(token, buffer, options);
}

Submitted submit_to(const std::shared_ptr<Engine>& engine, Token token, CallBuffer& buffer,
                    const TaskOptions* options) {
    const std::uint32_t task = engine->submit(token, buffer, options);
    return {engine, task};
}

std::shared_ptr<Completion> submit_map(const std::shared_ptr<Engine>& engine, CallBuffer& call, MapPlan plan,
                                       const TaskOptions* options) {
    return engine->submit_map(call, plan, options);
}

void close_engine(Engine& engine) { engine.close(); }
void join_engine(Engine& engine) { engine.join(); }
void terminate_engine(Engine& engine) noexcept { engine.terminate(); }

}    // namespace multihull::detail
