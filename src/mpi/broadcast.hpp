// Rank 0's part of values that all ranks have: it hands each to its children in the tree, and helps where a rank that was to hand it on is lost.
//
// Thread-safe. See "Values" in README.md.
//
// Invariants
// (1) Numbers are given out in their order, without gaps, and with each who is to have its value from rank 0 itself.
// (2) Records about values are posted with mutex_ held: for every rank they are in one order, that of numbers, losses and ends.
// (3) Locks: a cluster's, then mutex_, then the World's outbox_mutex_ or answers_mutex_.
#pragma once

#include "mpi/values.hpp"
#include "mpi/world.hpp"

#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <span>
#include <vector>

namespace multihull::mpi {

class Broadcasts {
public:
    explicit Broadcasts(World& world) : world_(world), lost_(world.size()) {}

    /// The number under which all ranks, this one included, have it or will. Throws Error where there are too many.
    std::uint64_t send(multihull::detail::SharedBlock value, std::size_t size);
    void forget(std::uint64_t number) noexcept;
    /// The numbers of values that the bytes name. None that was forgotten: nobody would ever have that.
    std::vector<std::uint64_t> named_in(std::span<const std::shared_ptr<const void>> kept) const;

    // The conductor's.
    /// Before its questions are answered with no.
    void rank_lost(std::uint32_t rank);
    /// A rank asks for a value that it does not get from its parent.
    void send_to(std::uint32_t rank, std::uint64_t number);

    /// Returns when every rank has received all values and handed them on, or some rank is lost: MPI can be ended then.
    void finish();

private:
    void post(std::uint32_t rank, std::uint64_t number, const ValuePtr& value, bool hand_on);
    bool from_here(std::uint32_t rank) const;

    World& world_;
    mutable std::mutex mutex_;
    Values values_;
    std::uint64_t last_ = 0;
    std::vector<bool> lost_;    // by rank
};

}    // namespace multihull::mpi
