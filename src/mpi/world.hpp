// Rank 0's side of a session: one thread that calls MPI (the conductor), and what others leave for it.
//
// Thread-safe. There is one at a time. A forked child has no conductor: what it does with the parent's clusters throws.
//
// Invariants
// (1) Only the conductor calls MPI and changes what it knows of the transport.
// (2) Records for one rank leave in the order in which they were posted, and bulk in the order of its announcements.
// (3) Who sleeps in wait_for() is answered: by the rank, or, when the rank is lost or the session over, with no.
// (4) Locks are taken in this order: a cluster's, that of broadcasts_, then outbox_mutex_. Neither is held while MPI is called.
#pragma once

#include "mpi/meeting.hpp"
#include "mpi/wire.hpp"

#include <multihull/mpi.hpp>

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <exception>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <thread>
#include <unordered_map>
#include <vector>

namespace multihull::mpi {

class Broadcasts;
class Cluster;
class RankWatch;

class World {
public:
    /// Starts MPI in a thread of its own. On rank 0 it returns when all have met; on the others it does not return.
    World(Arrival arrival, SessionOptions options, char** argv);
    ~World();

    /// Throws Error where there is no session.
    static World& current();

    std::size_t size() const noexcept { return meeting_.ranks.size(); }
    const Meeting& meeting() const noexcept { return meeting_; }
    Traffic traffic() const noexcept;

    /// `total` workers in all, or, with 0, as many on each rank as the options say.
    std::shared_ptr<Cluster> make_cluster(PoolOptions options, std::size_t total);

    /// The one of all loops of Parallel, made on first use.
    std::shared_ptr<Cluster> shared_cluster();
    void end_shared_cluster() noexcept;

    Broadcasts& broadcasts() noexcept { return *broadcasts_; }
    /// Has a value forgotten, where there is a session still.
    static void forget_value(std::uint64_t number) noexcept;

    /// What a record announced: bytes that travel behind its packet, and a call for when they are away, by the conductor.
    struct Bulk {
        std::span<const std::byte> bytes;
        std::function<void()> sent;
    };
    /// Adds a record for a rank, and its bulk: `fill` is given the packet.
    template <class Fill>
    void post(std::uint32_t rank, Fill fill, std::vector<Bulk> bulks = {}) {
        const std::lock_guard guard(outbox_mutex_);
        Outbox& outbox = outboxes_[rank];
        if (outbox.batches.empty()) waiting_outboxes_.push_back(rank);
        if (outbox.batches.empty() || outbox.batches.back().packet.bytes().size() >= kFullPacket) {
            outbox.batches.emplace_back();
        }
        Batch& batch = outbox.batches.back();
        fill(batch.packet);
        for (Bulk& bulk : bulks) batch.bulks.push_back(std::move(bulk));
        posted_.store(true, std::memory_order_release);
    }

    /// A question to a rank that waits for its answer.
    struct Question {
        std::uint32_t rank = 0;
        Say what{};
        bool answered = false;
        bool yes = false;
    };
    using Pending = std::shared_ptr<Question>;
    Pending ask(std::uint32_t rank, Say what, Request request);
    bool wait_for(const Pending& question);

    /// Has the conductor look at what is new.
    void wake() noexcept;
    std::exception_ptr translate(std::uint32_t rank, std::exception_ptr error) const {
        return meeting_.translate(rank, std::move(error));
    }
    /// Called by whoever notices it, in any thread.
    void rank_died(std::uint32_t rank) noexcept;

private:
    struct Batch {
        Packet packet;
        std::vector<Bulk> bulks;
    };
    struct Outbox {
        std::deque<Batch> batches;
    };

    void run(Arrival arrival, char** argv);
    void conduct(Transport& transport);
    bool receive(Transport& transport);
    void read_packet(Transport& transport, std::uint32_t rank, std::span<const std::byte> bytes);
    bool flush(Transport& transport);
    bool pump_clusters();
    bool clusters_expect();
    bool expects_answers();
    void look_for_lost(Transport& transport);
    void answer(std::uint64_t number, bool yes);
    void announce_modules();
    std::shared_ptr<Cluster> cluster(std::uint32_t number);
    void sleep(std::uint32_t epoch, std::int64_t pause_ns);

    const SessionOptions options_;
    Meeting meeting_;
    std::thread thread_;

    std::mutex mutex_;
    std::condition_variable changed_;
    bool met_ = false;
    std::exception_ptr failed_;
    std::unordered_map<std::uint32_t, std::shared_ptr<Cluster>> clusters_;
    std::uint32_t next_cluster_ = 1;
    std::mutex shared_mutex_;    // before all others
    std::shared_ptr<Cluster> shared_;
    std::unique_ptr<Broadcasts> broadcasts_;

    std::mutex outbox_mutex_;
    std::vector<Outbox> outboxes_;                   // by rank
    std::vector<std::uint32_t> waiting_outboxes_;    // those that are not empty
    std::atomic<bool> posted_{false};

    std::mutex answers_mutex_;
    std::condition_variable answered_;
    std::unordered_map<std::uint64_t, Pending> questions_;
    std::uint64_t next_question_ = 1;
    bool over_ = false;

    std::atomic<std::uint32_t> epoch_{0};
    std::atomic<std::uint32_t> sleeping_{0};
    std::atomic<bool> ending_{false};
    std::shared_ptr<RankWatch> watch_;
    std::unique_ptr<std::atomic<bool>[]> died_;    // by rank
    std::atomic<bool> any_died_{false};
    std::vector<bool> lost_;    // by rank; written by the conductor, with mutex_ held
    std::size_t announced_modules_ = 0;

    Traffic counted_;    // the conductor's
    mutable std::mutex traffic_mutex_;
    Traffic traffic_;
};

/// Notices the death of ranks of this machine.
class RankWatch;
/// What the other ranks do until the end of the session; answers the program's exit status.
int serve(Transport& transport, const Meeting& meeting);

}    // namespace multihull::mpi
