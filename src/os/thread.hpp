// Threads of the library's own. They take no signals: those are for the program's threads.
#pragma once

#include <csignal>
#include <pthread.h>
#include <thread>
#include <utility>

namespace multihull::os {

/// Starts a thread that takes no signals. At most 15 characters of its name, a literal, are seen. Throws std::system_error where the
/// system has no thread to give; which signals the caller takes is as before in any case.
template <class Body>
std::thread start_thread(const char* name, Body body) {
    sigset_t all;
    sigset_t before;
    ::sigfillset(&all);
    ::pthread_sigmask(SIG_SETMASK, &all,
                      &before);    // a thread begins with its maker's mask: no signal can come before its own
    struct Restore {
        const sigset_t& mask;
        ~Restore() { ::pthread_sigmask(SIG_SETMASK, &mask, nullptr); }
    } const restore{before};
    return std::thread([name, body = std::move(body)]() mutable {
        ::pthread_setname_np(::pthread_self(), name);
        body();
    });
}

}    // namespace multihull::os
