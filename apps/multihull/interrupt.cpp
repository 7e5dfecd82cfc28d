#include "interrupt.hpp"

#include <atomic>
#include <csignal>

namespace app {

namespace {

std::atomic<int> received{0};
static_assert(std::atomic<int>::is_always_lock_free, "a signal handler may only write lock-free atomics");

void note(int signal) {
    // Relaxed: the flag publishes nothing but itself.
    received.store(signal, std::memory_order_relaxed);
}

}    // namespace

void watch_for_interrupts() {
    for (const int signal : {SIGINT, SIGTERM, SIGHUP}) {
        struct sigaction previous {};
        sigaction(signal, nullptr, &previous);
        if (previous.sa_handler == SIG_IGN) {
            continue;    // nohup, or a shell's background job: it was asked not to stop
        }
        struct sigaction action {};
        action.sa_handler = note;
        action.sa_flags = SA_RESTART;    // no call is cut short
        // The second Ctrl-C is not asked politely again. The second SIGTERM is: schedulers send several at once.
        if (signal == SIGINT) action.sa_flags |= static_cast<int>(SA_RESETHAND);
        sigemptyset(&action.sa_mask);
        sigaction(signal, &action, nullptr);
    }
}

int interrupted_by() noexcept { return received.load(std::memory_order_relaxed); }

}    // namespace app
