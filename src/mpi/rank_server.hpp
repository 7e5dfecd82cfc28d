// What a rank other than 0 does: it takes tasks for its own workers, and sends back what became of them.
//
// Used by one thread, the one that calls MPI. It never waits for a task, a message or a process longer than a moment.
//
// Invariants
// (1) Every task that came in is in its pool's `entries`, or among `arriving` while its bytes are on their way, until its end was said.
// (2) Of each task one thing is said: `done`, or its name in `returned`.
#pragma once

#include "mpi/meeting.hpp"
#include "mpi/poll.hpp"
#include "mpi/rank_values.hpp"
#include "mpi/task.hpp"
#include "mpi/transport.hpp"
#include "mpi/wire.hpp"

#include <atomic>
#include <cstdint>
#include <deque>
#include <exception>
#include <functional>
#include <list>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <thread>
#include <vector>

namespace multihull::detail {
class Engine;
}    // namespace multihull::detail

namespace multihull::mpi {

class RankServer {
public:
    RankServer(Transport& transport, const Meeting& meeting)
        : transport_(transport),
          meeting_(meeting),
          sleeper_(meeting.bells, static_cast<std::size_t>(transport.rank())),
          values_(transport) {}

    /// Returns when rank 0 says that the session is over, with the exit status.
    int run();
    /// Rank 0 is gone. Called in any thread.
    void orphaned() noexcept {
        orphaned_.store(true);
        ring_own();
    }

private:
    struct Entry {
        std::uint32_t id = 0;
        multihull::detail::Submitted task;
        bool is_map = false;
    };
    struct Arriving {
        TaskHead head{};
        MapHead map{};
        TaskOptions options;
        SharedBlock call;
        multihull::detail::BorrowedBytes borrowed;    // the call instead, where it lies in rank 0's memory
        std::size_t call_size = 0;
        SharedBlock inputs;
        unsigned missing = 0;      // pieces, and values, that are on their way
        bool withdrawn = false;    // and not among its pool's any more
    };
    struct Pool {
        std::uint32_t cluster = 0;
        std::shared_ptr<multihull::detail::Engine> engine;
        std::exception_ptr no_engine;    // why there is none
        std::uint32_t workers = 0;
        bool crowded = false;
        std::vector<std::byte> settings;                  // until it can be made
        std::size_t missing = 0;                          // values that these name
        std::vector<std::shared_ptr<Arriving>> behind;    // whole tasks that wait for it
        std::deque<Entry> entries;                        // in the order in which they came
        std::list<std::shared_ptr<Arriving>> arriving;
        std::int64_t looked_at_all_ns = 0;
        std::int64_t task_ns = 0;    // of a task, about
        std::int64_t last_end_ns = 0;
        std::thread closer;
        std::shared_ptr<std::atomic<bool>> closed;
    };
    struct Bulk {
        std::span<const std::byte> bytes;
        std::function<void()> sent;
    };

    bool receive();
    void read_packet(std::span<const std::byte> bytes);
    void read_values(int rank, std::span<const std::byte> bytes);
    void rank_lost(const LostHead& head);
    void answer(const Request& request, bool yes);
    void open(multihull::detail::Reader& reader);
    void make_engine(Pool& pool);
    void take_task(multihull::detail::Reader& reader);
    static void take_plan(multihull::detail::Reader& reader, Arriving& task);
    void take_call(multihull::detail::Reader& reader, const std::shared_ptr<Arriving>& task);
    void piece(multihull::detail::Reader& reader, bool is_bulk, std::span<std::byte> place,
               const std::shared_ptr<Arriving>& task);
    void piece_came(const std::shared_ptr<Arriving>& task);
    void begin(const std::shared_ptr<Arriving>& task);
    bool withdraw(Pool& pool, std::uint32_t id, bool even_running);
    std::uint32_t forget_arriving(Pool& pool, std::list<std::shared_ptr<Arriving>>::iterator task);
    void withdraw_all(Pool& pool);
    void terminate(Pool& pool, bool kill);
    void give_back(Pool& pool, const Request& request);
    void start_closing(Pool& pool);

    bool look_for_ends(std::int64_t now_ns);
    bool look_for_ends(Pool& pool, std::int64_t now_ns);
    void report(Pool& pool, Entry& entry);
    void report_value(Pool& pool, Entry& entry);
    void report_map(Pool& pool, Entry& entry);
    void report_failure(Pool& pool, std::uint32_t id, const std::exception_ptr& why);
    Packet& record();
    bool flush(std::int64_t now_ns);
    bool anything_running() const noexcept;
    void listen(std::int64_t look_ns);
    void ring_own() const noexcept {
        if (meeting_.bells) meeting_.bells.ring(static_cast<std::size_t>(transport_.rank()));
    }
    Poll::Rest may_rest() const noexcept;
    void pause(std::int64_t now_ns);
    Pool* find(std::uint32_t cluster);

    Transport& transport_;
    const Meeting& meeting_;
    Poll poll_;
    Sleeper sleeper_;
    std::map<std::uint32_t, Pool> pools_;
    RankValues values_;
    std::optional<Request> finish_values_;    // a question that is not answered yet
    Packet out_;
    std::vector<Bulk> bulks_;    // that out_ announces
    std::int64_t out_since_ns_ = 0;
    bool hurry_ = false;    // somebody waits for what is in out_
    bool over_ = false;
    std::atomic<bool> orphaned_{false};
    std::int64_t asked_to_end_ns_ = 0;
};

}    // namespace multihull::mpi
