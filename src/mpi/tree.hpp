// Who hands a broadcast value to whom: a binomial tree over the ranks, rank 0 its root, that is the same for all values.
#pragma once

#include <bit>
#include <cstdint>
#include <vector>

namespace multihull::mpi {

/// Of any rank but 0.
constexpr std::uint32_t parent_of(std::uint32_t rank) noexcept { return rank & (rank - 1); }

/// Those that have the most ranks below them come first. Below rank + 2^k are the ranks up to rank + 2^(k+1), which launchers put near one another.
inline std::vector<std::uint32_t> children_of(std::uint32_t rank, std::uint32_t ranks) {
    std::vector<std::uint32_t> children;
    std::uint32_t step = rank == 0 ? std::bit_ceil(ranks) : rank & (~rank + 1);
    while ((step /= 2) != 0) {
        if (step < ranks - rank) children.push_back(rank + step);
    }
    return children;
}

}    // namespace multihull::mpi
