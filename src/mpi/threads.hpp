// Threads of the component: they take no signals, and are not counted among the program's own.
#pragma once

#include "os/thread.hpp"
#include "process/self.hpp"

#include <thread>
#include <utility>

namespace multihull::mpi {

/// Starts a thread. At most 15 characters of its name are seen.
template <class Body>
std::thread start_thread(const char* name, Body body) {
    return os::start_thread(name, [body = std::move(body)]() mutable {
        multihull::detail::count_own_thread(1);
        body();
        multihull::detail::count_own_thread(-1);
    });
}

}    // namespace multihull::mpi
