// Answers those who look on: a program that published a pool listens at an abstract socket, and gives whoever connects a snapshot of
// its pools. See "Looking on" in README.md.
//
// Thread-safe. One per process, made when the first pool is published. A forked child has none; its copy of the socket is closed.
//
// Invariants
// (1) An answer is one message, sent without waiting, to a socket that is closed then: nobody who reads slowly, or not at all, holds
//     up the supervisor.
// (2) Only processes of the same user are answered, as the kernel tells who they are.
// (3) Nothing is read from those who connect.
#pragma once

#include "os/clock.hpp"
#include "os/fd.hpp"
#include "process/supervisor.hpp"

#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <vector>

namespace multihull::detail {

class Engine;

class Monitor final : public Supervised, public std::enable_shared_from_this<Monitor> {
public:
    /// Makes the pool visible to `multihull top` for as long as it lives. Where the system allows no socket, says so in the log.
    static void publish(const std::shared_ptr<Engine>& engine) noexcept;

    void on_readable(int fd) override;
    std::int64_t tick(std::int64_t now_ns) override;

private:
    static std::shared_ptr<Monitor> instance();
    static std::shared_ptr<Monitor> made();

    void answer(const os::Fd& socket);
    std::vector<std::byte> snapshot();

    os::Fd listener_;
    std::mutex mutex_;
    std::vector<std::weak_ptr<Engine>> engines_;
    std::int64_t resume_at_ns_ =
        os::kNever;    // when to listen again after it could not accept; the supervisor's alone
};

/// Whether a pool with this wish is published: its own word, else the environment variable MULTIHULL_MONITOR (anything but empty and 0).
bool wants_monitor(std::optional<bool> publish) noexcept;

}    // namespace multihull::detail
