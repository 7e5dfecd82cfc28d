#include "os/fault.hpp"

#ifdef MULTIHULL_FAILPOINTS

#include <cerrno>
#include <csignal>
#include <unistd.h>

namespace multihull::os {

namespace {

struct Failure {
    std::atomic<std::uint32_t> countdown{0};
    std::atomic<int> error{0};
};

Failure failures[kCallCount];

}    // namespace

void kill_here(KillPoint point) noexcept {
    auto& countdown = kill_points->countdown[static_cast<std::uint32_t>(point)];
    std::uint32_t left = countdown.load(std::memory_order_relaxed);
    while (left != 0) {
        if (countdown.compare_exchange_weak(left, left - 1, std::memory_order_relaxed)) {
            if (left == 1) ::kill(::getpid(), SIGKILL);
            return;
        }
    }
}

bool fails(Call call) noexcept {
    auto& failure = failures[static_cast<std::uint32_t>(call)];
    if (failure.countdown.load(std::memory_order_relaxed) == 0) return false;
    if (failure.countdown.fetch_sub(1, std::memory_order_relaxed) != 1) return false;
    errno = failure.error.load(std::memory_order_relaxed);
    return true;
}

void fail_call(Call call, int error, std::uint32_t nth) noexcept {
    auto& failure = failures[static_cast<std::uint32_t>(call)];
    failure.error.store(error, std::memory_order_relaxed);
    failure.countdown.store(nth, std::memory_order_relaxed);
}

void clear_failures() noexcept {
    for (auto& failure : failures) failure.countdown.store(0, std::memory_order_relaxed);
}

}    // namespace multihull::os

#endif
