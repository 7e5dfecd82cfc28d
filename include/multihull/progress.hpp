// How far long work has come.
#pragma once

#include <chrono>
#include <cstddef>
#include <optional>

namespace multihull {

/// How far a map or a Parallel has come, as its progress callback is told.
struct Progress {
    std::size_t done = 0;                   ///< Calls that have ended; while processes run, about as many.
    std::optional<std::size_t> total{};     ///< Empty where the range does not know its size.
    std::chrono::nanoseconds elapsed{0};    ///< Since the work began.
};

}    // namespace multihull
