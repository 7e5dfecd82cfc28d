// A call of which another process has the big pieces: its worker reads them from that process's memory, once, into memory of its own.
#pragma once

#include "os/memory.hpp"

#include <cstddef>
#include <cstdint>
#include <span>
#include <sys/types.h>

namespace multihull::detail {

/// In TaskSlot::arguments_offset: what lies there is a FetchPlan.
inline constexpr std::uint64_t kFetched = std::uint64_t{1} << 62;

/// Behind it come the pieces, and then the bytes of the call without them.
struct FetchPlan {
    std::uint64_t call_size;    ///< With the pieces.
    std::uint64_t pieces;
};
struct FetchedPiece {
    std::uint64_t position;    ///< In the call.
    std::uint64_t size;
    std::uint64_t address;    ///< In the other process.
};

/// Whether this process may read that one's memory: tried with some bytes of it.
bool can_fetch_from(pid_t process, std::uint64_t address) noexcept;

class FetchedCall {
public:
    /// The whole call, until the next one is fetched. Throws Error where the other process, or its memory, is gone.
    std::span<const std::byte> fetch(std::span<const std::byte> plan, pid_t process);
    /// The call is not needed any more: gives back what is more than usual.
    void let_go() noexcept;

private:
    // Shared memory, which no limit of a task's counts; kept, as the processor still has it in its caches.
    os::Mapping room_;
};

}    // namespace multihull::detail
