// The engine as templates see it: bytes in, handles out. The work is done in src/pool.
#pragma once

#include <multihull/detail/completion.hpp>
#include <multihull/detail/fork_guard.hpp>
#include <multihull/pool_options.hpp>

#include <atomic>
#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <type_traits>
#include <vector>

namespace multihull::detail {

class Engine;
class MapState;
class SharedBlock;

/// Keeps the descriptors of a call in this process until its task takes them, or ends.
class CallDescriptors final : public Attachments {
public:
    CallDescriptors() = default;
    CallDescriptors(const CallDescriptors&) = delete;
    CallDescriptors& operator=(const CallDescriptors&) = delete;
    ~CallDescriptors();

    DescriptorTicket put(int descriptor) override;
    int take(const DescriptorTicket& ticket) override;

    bool any() const noexcept { return id_ != 0; }
    /// From now on they are a task's: see ExchangeScope.
    void give_to(std::uint64_t pool, std::uint64_t task) noexcept;

private:
    std::uint64_t id_ = 0;    // 0: there are none
};

/// Bytes at a place in shared memory that is somebody else's, who leaves them there until the task has ended.
struct BorrowedBytes {
    std::uint64_t offset = 0;
    std::uint64_t size = 0;
};

/// Takes the bytes of a call, in shared memory where they are many.
class CallBuffer {
public:
    CallBuffer();
    /// A call whose bytes are the first `size` of a block.
    CallBuffer(SharedBlock block, std::size_t size);
    /// A call whose bytes are borrowed. For a task, not for a map.
    explicit CallBuffer(const BorrowedBytes& bytes);
    CallBuffer(const CallBuffer&) = delete;
    CallBuffer& operator=(const CallBuffer&) = delete;
    ~CallBuffer();

    Writer& writer() noexcept { return writer_; }
    /// The bytes are a plan by which the worker fetches the call: see src/pool/fetched_call.hpp. For a task, not for a map.
    void be_plan() noexcept { is_plan_ = true; }

private:
    friend class Engine;
    friend class MapState;
    friend class SharedBlock;
    static constexpr std::size_t kRoom = 96;

    class Room final : public Growth {
    public:
        ~Room();
        std::span<std::byte> grow(std::span<const std::byte> used, std::size_t capacity) override;
        void copy(std::byte* to, const void* from, std::size_t bytes) override;
        std::uint64_t block = 0;
        std::size_t size = 0;
    };

    std::byte first_[kRoom];
    Room room_;
    BorrowedBytes borrowed_;
    bool is_plan_ = false;
    CallDescriptors descriptors_;
    Writer writer_;
    std::vector<std::shared_ptr<const void>> kept_;    // what the call names, until the task has ended
};

std::shared_ptr<Engine> make_engine(PoolOptions options);
std::shared_ptr<Completion> as_completion(std::shared_ptr<Engine> engine) noexcept;
std::size_t worker_count(const Engine& engine) noexcept;

/// Puts a call into the queue; answers its task's index, retained once for the caller.
std::uint32_t submit_call(Engine& engine, Token token, CallBuffer& buffer, const TaskOptions* options);

/// How a map reads its inputs and writes its outputs; all arrays lie in shared memory.
struct MapPlan {
    Token token = 0;
    std::uint64_t count = 0;
    std::uint64_t input_offset = 0;    ///< 0 for none.
    std::size_t input_capacity =
        0;    ///< Of a block of the parent's heap, which is taken over; 0: the inputs lie elsewhere.
    std::uint64_t output_offset = 0;    ///< Where plain results go; 0: into a block of the map's own.
    std::size_t output_size = 0;        ///< Bytes of one plain result; 0 for none (void).
    bool cells = false;                 ///< Results are encoded one by one.
    std::uint32_t max_parts = 0;        ///< How many workers may share it; 0: all.
    bool stop_on_failure = false;       ///< The first input that fails cancels the rest.
};

/// A block of the parent's heap that is given back unless it is taken; one of 0 bytes is somebody else's, and stays.
class SharedBlock {
public:
    SharedBlock() = default;
    explicit SharedBlock(std::size_t size);
    /// Takes over a block that was released from another object.
    static SharedBlock adopt(std::uint64_t offset, std::size_t size) noexcept {
        SharedBlock block;
        block.offset_ = offset;
        block.size_ = size;
        return block;
    }
    SharedBlock(SharedBlock&& other) noexcept;
    SharedBlock& operator=(SharedBlock&& other) noexcept;
    ~SharedBlock();

    /// The bytes in a CallBuffer.
    static SharedBlock take(CallBuffer& buffer);

    std::byte* data() const noexcept;
    std::uint64_t offset() const noexcept { return offset_; }
    std::size_t size() const noexcept { return size_; }
    void release() noexcept { offset_ = 0; }
    /// Hands on what the bytes name to the call that they are the inputs of.
    void give_kept_to(CallBuffer& call);
    /// What the bytes name.
    std::span<const std::shared_ptr<const void>> kept() const noexcept { return kept_; }
    /// Keeps one more thing that the bytes name.
    void keep(std::shared_ptr<const void> owner) { kept_.push_back(std::move(owner)); }

private:
    friend class CallBuffer;

    std::uint64_t offset_ = 0;
    std::size_t size_ = 0;
    std::vector<std::shared_ptr<const void>> kept_;
};

/// A task, in whatever runs it, retained once for the caller.
struct Submitted {
    std::shared_ptr<Completion> completion;
    std::uint32_t task = 0;
};

/// What runs calls that travel somewhere else than in a pool of this process: on other machines. Thread-safe.
class CallRunner {
public:
    virtual ~CallRunner() = default;
    virtual std::size_t workers() const noexcept = 0;
    virtual Submitted submit(Token token, CallBuffer& buffer, const TaskOptions* options) = 0;
    /// A map whose results are read one by one (cells); it is run by one worker. Takes over the inputs' block.
    virtual std::shared_ptr<Completion> submit_map(CallBuffer& call, const MapPlan& plan,
                                                   const TaskOptions* options) = 0;
    /// A call some of whose bytes are not in the buffer.
    virtual Submitted submit_around(Token token, CallBuffer& buffer, std::vector<LentBytes> lent,
                                    const TaskOptions* options) = 0;
};

/// What templates ask of an engine and of a CallRunner alike.
inline std::size_t worker_count(const CallRunner& runner) noexcept { return runner.workers(); }
Submitted submit_to(const std::shared_ptr<Engine>& engine, Token token, CallBuffer& buffer, const TaskOptions* options);
inline Submitted submit_to(const std::shared_ptr<CallRunner>& runner, Token token, CallBuffer& buffer,
                           const TaskOptions* options) {
    return runner->submit(token, buffer, options);
}
/// Whether the bytes of its calls leave this family of processes.
template <class E>
inline constexpr bool kLeavesFamily = std::is_same_v<E, CallRunner>;

/// What a map's results are read from, once all its parts have ended.
class MapResults {
public:
    std::uint64_t count = 0;
    const std::byte* plain = nullptr;    ///< count plain results.
    /// The bytes of one encoded result; throws what the element failed with.
    virtual Reader element(std::uint64_t index) const = 0;

protected:
    ~MapResults() = default;
};

/// Starts a map; answers its completion (task 0).
std::shared_ptr<Completion> submit_map(const std::shared_ptr<Engine>& engine, CallBuffer& call, MapPlan plan,
                                       const TaskOptions* options);

/// Throws std::invalid_argument.
[[noreturn]] void throw_no_room_for_results(std::uint64_t results, std::uint64_t places);
inline std::shared_ptr<Completion> submit_map(const std::shared_ptr<CallRunner>& runner, CallBuffer& call,
                                              const MapPlan& plan, const TaskOptions* options) {
    return runner->submit_map(call, plan, options);
}

/// Waits for a map that stops at its first failure, and ends what still runs then. Every `period` (0: never) it says how many inputs
/// have been run, about. Throws what the lowest input failed with of those that failed.
void wait_for_map(const std::shared_ptr<Completion>& map, std::chrono::nanoseconds period,
                  const std::function<void(std::size_t)>& tick);

/// Waits for a map of `total` inputs, and tells `progress` ten times a second and at the end. What that throws cancels the map.
void report_map(const std::shared_ptr<Completion>& map, std::size_t total,
                const std::function<void(const Progress&)>& progress);

/// What a map's thunk asks of the worker that runs it; lives for one part.
class MapContext {
public:
    /// Calls `elements(state, begin, end)` for one range after the other until none is left. It must mark each element (Marks) before it
    /// runs it; what an element throws is kept, and the range goes on behind it.
    virtual void run(void (*elements)(void* state, std::uint64_t begin, std::uint64_t end), void* state) = 0;
    /// What a loop over elements has to say, as a value of its own: stores of results can't change it, so that it stays in registers.
    class Marks {
    public:
        explicit Marks(MapContext& map) noexcept
            : map_(map), progress_(map.timed_ ? nullptr : map.progress_), guard_(map.guard_) {}
        /// Says that element `index` begins now, and so that the one before it is finished.
        void start(std::uint64_t index) const noexcept {
            if (progress_ == nullptr) {
                map_.start_timed(index);
            } else {
                progress_->store((index + 1) << 1, std::memory_order_release);
            }
        }
        /// Says that the function has returned; its result is not yet stored.
        void returned() const noexcept { guard_.check(); }

    private:
        MapContext& map_;
        std::atomic<std::uint64_t>* progress_;
        ForkGuard guard_;
    };
    /// Gives room for an element's encoded result; finish_cell() publishes it.
    virtual Writer& begin_cell() = 0;
    virtual void finish_cell(std::uint64_t index) = 0;

    Reader& call() noexcept { return *call_; }
    const std::byte* input() const noexcept { return input_; }
    std::byte* output() const noexcept { return output_; }
    std::uint64_t count() const noexcept { return count_; }

protected:
    ~MapContext() = default;
    virtual void start_timed(std::uint64_t index) noexcept = 0;

    std::atomic<std::uint64_t>* progress_ = nullptr;
    bool timed_ = false;
    Reader* call_ = nullptr;
    const std::byte* input_ = nullptr;
    std::byte* output_ = nullptr;
    std::uint64_t count_ = 0;
    ForkGuard guard_;
};

void close_engine(Engine& engine);
void join_engine(Engine& engine);
void terminate_engine(Engine& engine) noexcept;

}    // namespace multihull::detail
