// Values that all tasks of a rank may read: a table in shared memory that says where each one's bytes are.
//
// Written by the rank's own process, read by its workers.
//
// Invariants
// (1) An entry's place and size are written before its number, and stay until the number is taken away.
// (2) A number is taken away when no task that could look for it is left, so bytes are never freed under a reader.
#pragma once

#include <multihull/detail/engine.hpp>

#include <cstddef>
#include <cstdint>
#include <map>
#include <mutex>
#include <optional>
#include <span>

namespace multihull::mpi {

/// The table, as its owner sees it.
class Values {
public:
    /// Makes this family's table.
    Values();
    ~Values();

    /// Takes over the bytes. Throws Error where the table is full.
    void add(std::uint64_t number, multihull::detail::SharedBlock block, std::size_t size);
    void remove(std::uint64_t number) noexcept;

private:
    std::mutex mutex_;
    multihull::detail::SharedBlock table_;
    std::map<std::uint64_t, multihull::detail::SharedBlock> blocks_;
};

/// In any process of the family: the bytes of a value; empty where there is none of that number.
std::optional<std::span<const std::byte>> find_value(std::uint64_t number) noexcept;

}    // namespace multihull::mpi
