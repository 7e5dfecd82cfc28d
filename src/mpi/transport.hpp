// MPI as the rest of the component sees it: packets and bulk between this rank and others, none of which ever blocks.
//
// Used by one thread, the one that made it.
//
// A packet is a message of records (wire.hpp), bounded in size. What is too big to be copied into one is announced there and
// travels behind it as bulk, from where it lies to where it is wanted. MPI keeps the order of bulk between two ranks, so it needs no name:
// whoever reads the announcements asks for it in their order.
#pragma once

#include <mpi.h>

#include <cstddef>
#include <cstdint>
#include <functional>
#include <list>
#include <span>
#include <vector>

namespace multihull::mpi {

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
    /// A packet that has come; false when there is none. Those of one rank come in their order.
    bool receive_packet(int& rank, Bytes& packet);
    /// Completes what can be; false when there was nothing.
    bool progress();
    /// Whether something is on its way.
    bool busy() const noexcept { return !requests_.empty(); }

    /// A rank is gone: nobody can end MPI together with it.
    void give_up_the_end() noexcept { ends_together_ = false; }
    /// The same, and what it was about to say is not waited for.
    void give_up(int rank);
    void count_into(Traffic& traffic) noexcept { traffic_ = &traffic; }

private:
    /// A packet that is on its way: one that is longer than MPI sends unasked needs its sender's help to come.
    struct Incoming {
        int rank = 0;
        MPI_Request request = MPI_REQUEST_NULL;
        Bytes bytes;
    };

    void gather_ranks(int spawned, char** argv);
    void add(MPI_Request request, std::function<void()> done);
    void look_for_packets();

    MPI_Comm comm_ = MPI_COMM_NULL;
    int rank_ = 0;
    int size_ = 1;
    bool ends_together_ = true;
    Traffic* traffic_ = nullptr;
    std::vector<MPI_Request> requests_;
    std::vector<std::function<void()>> done_;    // of each request
    std::vector<Bytes> spare_;
    std::vector<int> completed_;
    std::list<Incoming> incoming_;     // in the order in which they were sent
    std::list<Incoming> abandoned_;    // of ranks that are gone: MPI still has their memory
    std::vector<bool> gone_;           // by rank
};

}    // namespace multihull::mpi
