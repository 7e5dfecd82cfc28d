// The other ranks' part of values that all ranks have: a rank takes each from its parent in the tree, once, hands it on to its children, and keeps
// it for its workers.
//
// Used by the thread that calls MPI. See "Values" in README.md.
//
// Invariants
// (1) A value that has come whole is handed on once, even if it is forgotten; what comes of it again is dropped.
// (2) A number is settled when its workers can read the value, or it is forgotten; it stays settled.
// (3) What MPI reads or writes is kept until it says that it is done with it.
#pragma once

#include "mpi/transport.hpp"
#include "mpi/values.hpp"
#include "mpi/wire.hpp"

#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <set>
#include <utility>
#include <vector>

namespace multihull::mpi {

/// A set of numbers from 1 on that soon has all up to some one.
class NumberSet {
public:
    /// False where it was there.
    bool insert(std::uint64_t number);
    bool contains(std::uint64_t number) const { return number <= all_to_ || beyond_.contains(number); }
    /// Every number up to this one is there.
    std::uint64_t all_to() const noexcept { return all_to_; }

private:
    std::uint64_t all_to_ = 0;
    std::set<std::uint64_t> beyond_;
};

class RankValues {
public:
    explicit RankValues(Transport& transport) : transport_(transport) {}

    /// A record `value` of rank 0 or of another one.
    void take(int from, multihull::detail::Reader& reader);
    void forget(std::uint64_t number);
    /// A neighbour in the tree is lost: the numbers, up to `last`, of the values that don't come any more, to be asked of rank 0.
    std::vector<std::uint64_t> neighbour_lost(std::uint32_t rank, std::uint64_t last);

    /// Calls back when the number is settled: at once where it is.
    void when_settled(std::uint64_t number, std::function<void()> call);
    bool settled(std::uint64_t number) const;
    /// All values up to `last` came, and were handed on. Never so where a parent was lost with one of them.
    bool finished(std::uint64_t last) const { return received_.all_to() >= last && handing_on_ == 0; }

private:
    void received(const ValueHead& head, const ValuePtr& value);
    void hand_on(std::uint64_t number, const ValuePtr& value);
    void keep(std::uint64_t number, const ValuePtr& value);
    void settle(std::uint64_t number);

    Transport& transport_;
    Values values_;
    NumberSet received_;                                              // those that have come whole
    std::set<std::uint64_t> forgotten_;                               // before they came
    std::vector<std::pair<std::uint64_t, ValuePtr>> without_room_;    // in the table, until another is forgotten
    std::map<std::uint64_t, std::vector<std::function<void()>>> waiting_;
    std::size_t handing_on_ = 0;      // children that MPI still sends to
    std::set<std::uint32_t> lost_;    // neighbours
};

}    // namespace multihull::mpi
