// Values that all tasks of a rank may read: a table in shared memory that says where each one's bytes are.
//
// Written by the rank's own process, with a lock of the caller's held; read by its workers.
//
// Invariants
// (1) An entry's place and size are written before its number, and stay until the number is taken away.
// (2) A number is taken away when no task that could look for it is left, so bytes are never freed under a reader.
#pragma once

#include <multihull/detail/engine.hpp>

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <vector>

namespace multihull::mpi {

/// A value's bytes, the first of a block in shared memory: they lie there for this rank's workers, and MPI sends them on from there.
struct ValueBytes {
    ValueBytes(multihull::detail::SharedBlock block, std::size_t size);
    explicit ValueBytes(std::size_t size);

    std::span<std::byte> bytes() const noexcept { return {block_.data(), size_}; }
    std::uint64_t offset() const noexcept { return block_.offset(); }

private:
    multihull::detail::SharedBlock block_;
    std::size_t size_;
};
using ValuePtr = std::shared_ptr<const ValueBytes>;

/// The table, as its owner sees it.
class Values {
public:
    /// Makes this family's table.
    Values();
    ~Values();

    /// False where the table is full.
    bool try_add(std::uint64_t number, ValuePtr value);
    void remove(std::uint64_t number) noexcept;
    /// Empty where there is none of that number.
    ValuePtr find(std::uint64_t number) const;

private:
    multihull::detail::SharedBlock table_;
    std::map<std::uint64_t, ValuePtr> values_;
};

/// The numbers of the values that kept handles (of a call, of an initializer) name.
std::vector<std::uint64_t> values_in(std::span<const std::shared_ptr<const void>> kept);

/// In any process of the family: the bytes of a value; empty where there is none of that number.
std::optional<std::span<const std::byte>> find_value(std::uint64_t number) noexcept;

}    // namespace multihull::mpi
