// Two ends of a pipe, each of which can move to another process.
#pragma once

#include <multihull/connection.hpp>

#include <utility>

namespace multihull {

/// A pair of connected ends: `auto [parent_end, child_end] = multihull::Pipe();`. With `duplex` both send and receive; without, the
/// first can only receive and the second only send. Throws Error when the system has no descriptors left.
///
/// An end that was moved into another process is closed here, so that each side sees the other's end. A process started by `fork`
/// inherits copies of all ends that are open then, as of every descriptor, and holds them open for as long as it lives.
// NOLINTNEXTLINE(readability-identifier-naming): as Python has it
std::pair<Connection, Connection> Pipe(bool duplex = true);

}    // namespace multihull
