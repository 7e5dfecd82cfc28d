// How ranks get to know one another, once, before anything else is said.
#pragma once

#include "mpi/bells.hpp"
#include "mpi/transport.hpp"
#include "shm/foreign_region.hpp"

#include <multihull/detail/token.hpp>

#include <cstddef>
#include <cstdint>
#include <exception>
#include <string>
#include <vector>

namespace multihull::mpi {

/// What a rank tells of itself. The same in every build: it is what builds are compared by.
struct Facts {
    std::uint64_t magic;
    std::uint64_t program;    ///< Build-id (hashed).
    std::uint64_t machine;    ///< The same for ranks that see one another's processes.
    std::uint64_t cpus;       ///< Processors that it may use.
    std::uint64_t cpu_set;    ///< Which ones (hashed).
    std::int32_t pid;
    std::int32_t ok;
    shm::RegionAddress region;
    Bells::Address bells;          ///< Rank 0's, where all ranks may hear them.
    std::uint64_t some_address;    ///< Of something that stays where it is.
    char host[64];
    char path[256];
};

/// What a rank's workers can read of rank 0's memory, where that lies.
enum class Reach : std::uint8_t { none, shared_memory, all_memory };

/// What is known after the meeting. Of rank 0 whole; the others know themselves and rank 0.
struct Meeting {
    std::vector<Facts> ranks;
    std::vector<std::string> hosts;
    /// Where each rank's modules are, so that stacks from there can be read here.
    std::vector<std::vector<multihull::detail::ModulePlace>> modules;

    /// How each rank's workers can read what rank 0 has. Of ranks other than 0, the last one is their own.
    std::vector<Reach> reaches;

    /// Where all ranks are on one machine and share its memory.
    Bells bells;

    /// Whether a rank's workers can look into rank 0's shared memory.
    bool borrows(std::size_t rank) const { return reaches[rank] != Reach::none; }
    /// Whether they can copy from all of rank 0's memory.
    bool fetches(std::size_t rank) const { return reaches[rank] == Reach::all_memory; }
    /// How many ranks share the processors of one.
    std::uint64_t sharing(std::size_t rank) const;
    /// The workers that a rank has where nobody says how many: its share of its machine's processors.
    std::uint32_t default_workers(std::size_t rank) const;
    /// Whether its machine has fewer processors than threads that wait awake: one of each rank, and a worker of each.
    bool crowded(std::size_t rank) const;
    /// The exception with the stacks of another rank as addresses of this process.
    std::exception_ptr translate(std::uint32_t rank, std::exception_ptr error) const;
};

/// What must be known before MPI is started, which loads libraries of its own.
struct Arrival {
    Facts facts;
    std::vector<std::uint64_t> numbers;
    std::vector<multihull::detail::ModulePlace> modules;
};
Arrival arrive();

/// Meets the others. Throws StartError, on rank 0 with what is wrong, where they can't work together; then all know.
Meeting meet(Transport& transport, const Arrival& arrival);

}    // namespace multihull::mpi
