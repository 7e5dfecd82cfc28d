// Names, files and lines for addresses of this process, from its symbol tables and debug information.
//
// Thread-safe: one look-up at a time. Never asks a network for debug information.
#pragma once

#include <multihull/stack.hpp>

#include <cstdint>
#include <memory>
#include <span>
#include <sys/types.h>
#include <vector>

namespace multihull::detail {

/// Looks up each address, which must lie inside the instruction it stands for (as those of a RawStack do). A function
/// that the compiler inlined there gets a frame of its own, before that of the function it went into. Costs
/// milliseconds when called first, and after shared libraries were loaded.
std::vector<Frame> symbolize(std::span<const std::uintptr_t> addresses);

class Symbolizer;

/// The same for addresses of another process of this user, for as long as it lives. Not thread-safe.
class RemoteSymbols {
public:
    explicit RemoteSymbols(pid_t process);
    RemoteSymbols(RemoteSymbols&&) noexcept;
    RemoteSymbols& operator=(RemoteSymbols&&) noexcept;
    ~RemoteSymbols();

    std::vector<Frame> frames(std::span<const std::uintptr_t> addresses);

private:
    std::unique_ptr<Symbolizer> symbols_;
};

}    // namespace multihull::detail
