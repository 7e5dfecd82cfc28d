// Rank 0's side of a session: one thread that calls MPI (the conductor), and what others leave for it. A thread that waits for a task may be
// a guest for a while, and do the conductor's work itself instead of waking it and being woken.
//
// Thread-safe. There is one at a time. A forked child has no conductor: what it does with the parent's clusters throws.
//
// Invariants
// (1) Only who holds baton_, the conductor or its one guest, calls MPI and changes what is marked as the conductor's. The conductor does not
//     hold it while it sleeps, and stands by while there is a guest: README.md, Threads.
// (2) Records for one rank leave in the order in which they were posted, and bulk in the order of its announcements.
// (3) Who sleeps in wait_for() is answered: by the rank, or, when the rank is lost or the session over, with no.
// (4) Locks are taken in this order: baton_, mutex_, a cluster's, that of broadcasts_, outbox_mutex_. Only baton_ is held while MPI is called.
#pragma once

#include "mpi/meeting.hpp"
#include "mpi/poll.hpp"
#include "mpi/wire.hpp"
#include "process/self.hpp"

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

    /// Not in a forked child.
    bool ours() const noexcept { return generation_ == multihull::detail::fork_generation(); }
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
        posted_.store(true, std::memory_order_seq_cst);
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

    /// Whether the conductor looks at what is new before a rank has done what it has: it need not be woken for more.
    bool rests() const noexcept { return rests_.load(std::memory_order_relaxed); }
    /// Has the conductor look at what is new.
    void wake() noexcept;
    /// The same; while the conductor does not work, in the calling thread. Not with a cluster's lock held.
    void give_out_now() noexcept;
    /// Does the conductor's work until the word has one of the bits, or there is nothing to do for a while, or the deadline has passed. Returns
    /// at once where there is a guest, or no session. Not with a lock held.
    static void work_until(const std::atomic<std::uint32_t>& word, std::uint32_t bits,
                           std::int64_t deadline_ns) noexcept;
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

    void run(const Arrival& arrival, char** argv);
    /// Keeps a World that was seen where it is.
    struct AtWork {
        AtWork() noexcept;
        AtWork(const AtWork&) = delete;
        AtWork& operator=(const AtWork&) = delete;
        ~AtWork();
    };
    enum class Conductor : std::uint32_t { works, sleeps, stands_by };

    static World* current_or_null() noexcept;
    void conduct();
    bool turn();
    bool give_out();
    bool receive();
    void read_packet(std::uint32_t rank, std::span<const std::byte> bytes);
    bool flush();
    bool pump_clusters();
    bool expects();
    bool something_came() const noexcept;
    bool clusters_expect();
    bool expects_answers();
    Poll::Rest rest();
    void look_for_lost();
    void publish_traffic();
    void answer(std::uint64_t number, bool yes);
    void announce_modules();
    std::shared_ptr<Cluster> cluster(std::uint32_t number);
    void sleep(std::uint32_t epoch, std::int64_t pause_ns);
    void listen(Sleeper& sleeper, std::uint32_t epoch, std::int64_t look_ns, bool transport_busy);
    void stand_by(std::uint32_t epoch);
    bool enter() noexcept;
    void leave() noexcept;
    void dismiss_guests() noexcept;
    bool as_guest(bool (World::*work)()) noexcept;
    bool has_guest() const noexcept { return guest_.load(std::memory_order_seq_cst); }
    static bool anybody_at_work() noexcept;

    const std::uint32_t generation_ = multihull::detail::fork_generation();
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
    bool answers_over_ = false;

    std::mutex baton_;
    std::atomic<bool> guest_{false};                // there is one, or about to be
    std::atomic<bool> takes_guests_{false};         // this MPI may be called by one thread after the other
    std::atomic<std::uint32_t> guests_waits_{0};    // how often one came to wait
    std::exception_ptr guests_failure_;             // with baton_ held
    std::atomic<std::uint32_t> epoch_{0};
    std::atomic<Conductor> conductor_{Conductor::works};
    std::atomic<bool> rests_{false};
    std::atomic<bool> ending_{false};
    std::shared_ptr<RankWatch> watch_;
    std::unique_ptr<std::atomic<bool>[]> died_;    // by rank
    std::atomic<bool> any_died_{false};
    std::vector<bool> lost_;    // by rank; written by the conductor, with mutex_ held
    std::size_t announced_modules_ = 0;
    bool told_the_end_ = false;    // the conductor's
    std::vector<std::shared_ptr<Cluster>>
        over_;    // the conductor's; let go without baton_: a callback may wait for that, and is waited for

    Transport* transport_ = nullptr;    // the conductor's
    Traffic counted_;                   // the conductor's
    mutable std::mutex traffic_mutex_;
    Traffic traffic_;
};

/// Notices the death of ranks of this machine.
class RankWatch;
/// What the other ranks do until the end of the session; answers the program's exit status.
int serve(Transport& transport, const Meeting& meeting);

}    // namespace multihull::mpi
