// MPI as the rest of the component sees it: packets and bulk between this rank and others, none of which ever blocks.
//
// Used by one thread at a time: by the one that made it, and, where MPI allows that (any_thread), by others.
//
// A packet is a message of records (wire.hpp). What is too big to be copied into one is announced there and travels behind it as bulk, from
// where it lies to where it is wanted. MPI keeps the order of bulk between two ranks, so it needs no name: whoever reads the announcements
// asks for it in their order.
//
// Packets are received into memory that MPI has beforehand: it need not be asked twice, once whether there is one and once for it. Several
// receives wait at a time, of which a later one may be done before an earlier one, so packets bear numbers.
#pragma once

#include <mpi.h>

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <vector>

namespace multihull::mpi {

class Bells;
struct Traffic;

class Transport {
public:
    using Bytes = std::vector<std::byte>;

    /// Starts MPI, and `spawned` ranks beside those that the launcher has: this program with these arguments (argv). Throws StartError.
    Transport(int spawned, char** argv);
    Transport(const Transport&) = delete;
    Transport& operator=(const Transport&) = delete;
    /// Ends MPI together with all other ranks, unless one of them is lost.
    ~Transport();

    int rank() const noexcept { return rank_; }
    int size() const noexcept { return size_; }
    /// Whether threads that take turns may call MPI.
    bool any_thread() const noexcept { return any_thread_; }

    /// From now on it is asked by who knows how to wait (Poll): it does not give way by itself any more.
    void be_polled() noexcept;
    /// Rings for who is sent something.
    void ring(const Bells& bells) noexcept { bells_ = &bells; }

    // While all ranks meet: these wait for one another.
    void broadcast(std::span<std::byte> bytes);
    /// Rank 0's answer has the bytes of all ranks, one after the other.
    Bytes gather(std::span<const std::byte> own);
    /// The same where every rank has its own number of bytes.
    std::vector<Bytes> gather_any(const Bytes& own);

    /// Empty, with the memory of one that is not needed any more.
    Bytes take_buffer();
    void reuse(Bytes buffer);
    void send_packet(int rank, Bytes packet);
    /// The bytes must stay as they are until `sent` is called.
    void send_bulk(int rank, std::span<const std::byte> bytes, std::function<void()> sent);
    void receive_bulk(int rank, std::span<std::byte> bytes, std::function<void()> arrived);
    /// A packet that has come; false when progress() has heard of no other. Those of one rank come in their order. The bytes stay until the
    /// next call of this function or of progress().
    bool receive_packet(int& rank, std::span<const std::byte>& packet);
    /// Completes what can be; false when there was nothing.
    bool progress();
    /// Whether something is on its way.
    bool busy() const noexcept { return !under_way_.empty(); }

    /// A rank is gone: nobody can end MPI together with it.
    void give_up_the_end() noexcept { ends_together_ = false; }
    /// The same, and what it was about to say is not waited for.
    void give_up(int rank);
    void count_into(Traffic& traffic) noexcept { traffic_ = &traffic; }

private:
    /// A receive, and what it received.
    struct Incoming {
        std::unique_ptr<std::byte[]> bytes;
        std::size_t size = 0;
        int rank = 0;
        unsigned number = 0;
        bool more = false;    // the packet goes on in the next one
        bool here = false;
    };

    struct Request {
        std::function<void()> done;
        int to = 0;    // who is sent it; kNobody: it is received
    };
    static constexpr int kNobody = -1;

    void gather_ranks(int spawned, char** argv);
    void add(MPI_Request request, int to, std::function<void()> done);
    void ring_again() const noexcept;
    void listen(std::size_t place);
    void listen_more();
    void heard(std::size_t place, const MPI_Status& status);
    void look_whether_stuck();
    void stop_listening() noexcept;
    void let_go();

    MPI_Comm comm_ = MPI_COMM_NULL;
    MPI_Comm packets_ = MPI_COMM_NULL;    // where every tag is a packet's number
    int rank_ = 0;
    int size_ = 1;
    bool any_thread_ = false;
    bool gave_way_ = false;    // before it was polled
    bool ends_together_ = true;
    Traffic* traffic_ = nullptr;
    const Bells* bells_ = nullptr;
    std::vector<Incoming> incoming_;
    std::vector<MPI_Request> requests_;    // first those of incoming_
    std::vector<Request> under_way_;       // of each other one
    std::vector<Bytes> spare_;
    std::vector<int> completed_;
    std::vector<MPI_Status> statuses_;
    std::optional<std::size_t> lent_;    // of incoming_: its bytes are being read
    Bytes assembled_;                    // the same
    unsigned idle_turns_ = 0;
    std::int64_t stuck_since_ns_ = 0;    // 0: is not
    // By rank.
    std::vector<unsigned> next_sent_;
    std::vector<unsigned> next_received_;
    std::vector<Bytes> begun_;    // a packet in several pieces
    std::vector<bool> gone_;
};

}    // namespace multihull::mpi
