// Threads of the component: they take no signals, and are not counted among the program's own.
#pragma once

#include "process/self.hpp"

#include <csignal>
#include <pthread.h>
#include <thread>
#include <utility>

namespace multihull::mpi {

/// Starts a thread. At most 15 characters of its name are seen.
template <class Body>
std::thread start_thread(const char* name, Body body) {
    sigset_t all;
    sigset_t before;
    ::sigfillset(&all);
    ::pthread_sigmask(SIG_SETMASK, &all, &before);
    struct Restore {
        const sigset_t& mask;
        ~Restore() { ::pthread_sigmask(SIG_SETMASK, &mask, nullptr); }
    } const restore{before};
    return std::thread([name, body = std::move(body)]() mutable {
        multihull::detail::count_own_thread(1);
        ::pthread_setname_np(::pthread_self(), name);
        body();
        multihull::detail::count_own_thread(-1);
    });
}

}    // namespace multihull::mpi
