// Notices that a task forked, and that the copy came back with it: the copy must not go on with the worker's work.
#pragma once

#include <atomic>
#include <cstdint>

namespace multihull::detail {

class ForkGuard {
public:
    ForkGuard() noexcept;

    /// To be called when code of the user returns: does not return itself in a process that the code forked.
    void check() const noexcept {
        if (current_->load(std::memory_order_relaxed) != made_) leave();
    }

private:
    [[noreturn]] static void leave() noexcept;

    const std::atomic<std::uint32_t>* current_;    // this process's fork_generation()
    std::uint32_t made_;
};

}    // namespace multihull::detail
