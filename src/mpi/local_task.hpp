// Tasks and maps in an engine of this process, alike.
#pragma once

#include "os/futex.hpp"
#include "pool/engine.hpp"
#include "pool/map_state.hpp"

#include <vector>

namespace multihull::mpi {

/// Takes back a task that no worker has begun; false when one has, or it has ended.
inline bool withdraw(multihull::detail::Engine& engine, multihull::detail::Completion& completion, std::uint32_t task) {
    if (&completion == static_cast<multihull::detail::Completion*>(&engine)) return engine.withdraw(task);
    return static_cast<multihull::detail::MapState&>(completion).withdraw();
}

/// Adds where the end of a task is to be seen. False when it has ended, is not known to have begun, so that others may end before it, or there
/// is no room.
inline bool add_awaited(std::vector<os::FutexWord>& words, multihull::detail::Engine& engine,
                        const multihull::detail::Submitted& submitted) {
    if (words.size() == os::kMostFutexes) return false;
    const auto& [completion, task] = submitted;
    const auto word = completion.get() == static_cast<multihull::detail::Completion*>(&engine)
                          ? engine.awaited(task)
                          : static_cast<multihull::detail::MapState&>(*completion).awaited();
    if (!word) return false;
    words.push_back(*word);
    return multihull::detail::task_state::phase(word->expected) != multihull::detail::task_state::queued;
}

}    // namespace multihull::mpi
