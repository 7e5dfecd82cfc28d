// Tasks and maps in an engine of this process, alike.
#pragma once

#include "pool/engine.hpp"
#include "pool/map_state.hpp"

namespace multihull::mpi {

/// Takes back a task that no worker has begun; false when one has, or it has ended.
inline bool withdraw(multihull::detail::Engine& engine, multihull::detail::Completion& completion, std::uint32_t task) {
    if (&completion == static_cast<multihull::detail::Completion*>(&engine)) return engine.withdraw(task);
    return static_cast<multihull::detail::MapState&>(completion).withdraw();
}

/// Where the end of a task can be waited for; none when it has ended.
inline std::optional<os::FutexWord> awaited(multihull::detail::Engine& engine,
                                            multihull::detail::Completion& completion, std::uint32_t task) {
    if (&completion == static_cast<multihull::detail::Completion*>(&engine)) return engine.awaited(task);
    return static_cast<multihull::detail::MapState&>(completion).awaited();
}

}    // namespace multihull::mpi
