// Notices the death of other ranks' processes, where they are of this machine.
//
// Thread-safe. The supervisor's thread calls back, once a rank.
#pragma once

#include "os/fd.hpp"
#include "process/supervisor.hpp"

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <sys/types.h>

namespace multihull::mpi {

class RankWatch final : public multihull::detail::Supervised, public std::enable_shared_from_this<RankWatch> {
public:
    explicit RankWatch(std::function<void(std::uint32_t rank)> died) : died_(std::move(died)) {}

    /// Watches a process from now on; one that is gone already counts as died.
    void add(std::uint32_t rank, pid_t pid);
    /// When it has returned, `died` is not called any more.
    void stop();

    void on_readable(int fd) override;
    std::int64_t tick(std::int64_t) override;

private:
    const std::function<void(std::uint32_t)> died_;
    std::mutex telling_;    // held while `died` is called; before mutex_
    std::mutex mutex_;
    std::map<int, std::pair<std::uint32_t, os::Fd>> ranks_;    // by descriptor
};

}    // namespace multihull::mpi
