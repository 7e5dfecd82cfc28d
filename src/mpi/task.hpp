// A task of a cluster: what its Future looks at, wherever it is run.
//
// Thread-safe. What says where it is (the fields below "placement") is read and written with its cluster's lock held.
//
// Invariants
// (1) word_ says how its end is to be waited for: on the word itself, or, with kLocal, in this process's own engine. kLocal is taken
//     back before the engine is asked for the task: who finds it ended there and looks at the word again knows whether it was taken.
// (2) local_ and local_task_ are written once: a task that was taken back from the engine goes to another rank, never there again.
// (3) The outcome is written before kDone is set, and never again.
#pragma once

#include "mpi/wire.hpp"

#include <multihull/detail/engine.hpp>

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <vector>

namespace multihull::mpi {

class Cluster;

using multihull::detail::CallBuffer;
using multihull::detail::Completion;
using multihull::detail::LentBytes;
using multihull::detail::MapPlan;
using multihull::detail::SharedBlock;
using multihull::detail::Token;

/// Memory of this process that is not set to zero first.
class RawBytes {
public:
    RawBytes() = default;
    explicit RawBytes(std::size_t size);

    std::span<std::byte> bytes() const noexcept { return {bytes_.get(), size_}; }

private:
    struct Free {
        void operator()(std::byte* bytes) const noexcept;
    };
    std::unique_ptr<std::byte[], Free> bytes_;
    std::size_t size_ = 0;
};

class Task final : public Completion, public multihull::detail::MapResults, public std::enable_shared_from_this<Task> {
public:
    Task(std::shared_ptr<Cluster> cluster, Token token, const TaskOptions* options);
    ~Task() override;

    // Completion; there is one task.
    bool ready(std::uint32_t) noexcept override;
    bool wait(std::uint32_t, std::int64_t deadline_ns) override;
    std::exception_ptr failure(std::uint32_t) override;
    void read(std::uint32_t, multihull::detail::ReadResult reader, void* out) override;
    bool cancel(std::uint32_t) override;
    void abandon(std::uint32_t) override;
    void on_done(std::uint32_t, std::function<void()> callback) override;
    void retain(std::uint32_t) noexcept override {}
    void release(std::uint32_t) noexcept override {}

    multihull::detail::Reader element(std::uint64_t index) const override;

private:
    friend class Cluster;
    enum class Place { queued, local, sent, ended };
    struct Call {
        SharedBlock bytes;    // without what is lent
        std::vector<LentBytes> lent;
        SharedBlock inputs;
    };
    static constexpr std::uint32_t kWaiter = 1;
    static constexpr std::uint32_t kLocal = 2;
    static constexpr std::uint32_t kDone = 4;

    // All with the cluster's lock held.
    void set_local(multihull::detail::Submitted submitted);
    void unset_local() noexcept { word_.fetch_and(~kLocal, std::memory_order_acq_rel); }
    void reset_local() noexcept { change_word(kLocal); }
    bool was_local() const noexcept { return local_.completion != nullptr; }
    void change_word(std::uint32_t bits) noexcept;
    /// Answers the call, which may be much to free: better when the lock is free.
    Call end(Outcome outcome, RawBytes bytes) noexcept;
    Call end(std::exception_ptr why) noexcept;
    void hook_local();
    bool is_map() const noexcept { return plan_.has_value(); }
    std::size_t size() const noexcept { return call_size_ + inputs_.size(); }
    SharedBlock gather_call() const;
    Call let_go_of_call() noexcept;
    void strand_call() noexcept;

    const std::shared_ptr<Cluster> cluster_;
    std::atomic<std::uint32_t> word_{0};

    // The call.
    const Token token_;
    std::unique_ptr<TaskOptions> options_;
    SharedBlock call_;    // without what is lent
    std::vector<LentBytes> lent_;
    std::size_t call_size_ = 0;            // with it
    std::vector<std::uint64_t> values_;    // that the call names
    std::optional<MapPlan> plan_;
    SharedBlock inputs_;

    // Placement.
    Place place_ = Place::queued;
    std::uint32_t rank_ = 0;
    std::uint64_t sending_ = 0;    // how often it was sent
    std::uint32_t id_ = 0;         // on the wire, while it is sent
    bool unwanted_ = false;        // it is to end where it has not begun
    unsigned on_their_way_ = 0;    // pieces of the call that MPI still reads
    std::size_t load_ = 0;         // bytes that its rank was sent for it
    bool is_lent_ = false;         // the rank's workers read the call in this process's memory
    bool stranded_ = false;        // the same, and some of whom nobody can ask
    multihull::detail::Submitted local_;
    std::vector<std::function<void()>> callbacks_;
    bool hooked_ = false;    // the engine tells of its end

    // The outcome.
    Outcome outcome_ = Outcome::value;
    std::exception_ptr failure_;
    RawBytes result_;
};

}    // namespace multihull::mpi
