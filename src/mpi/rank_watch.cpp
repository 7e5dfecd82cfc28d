#include "mpi/rank_watch.hpp"

#include "os/clock.hpp"
#include "os/process.hpp"

#include <system_error>
#include <utility>
#include <vector>

namespace multihull::mpi {

using multihull::detail::Supervisor;

void RankWatch::add(std::uint32_t rank, pid_t pid) {
    os::Fd fd;
    try {
        fd = os::open_pidfd(pid);
    } catch (const std::system_error&) {
        died_(rank);
        return;
    }
    const int number = fd.get();
    {
        const std::lock_guard guard(mutex_);
        ranks_.emplace(number, std::pair(rank, std::move(fd)));
    }
    Supervisor::instance().watch(number, shared_from_this());
}

void RankWatch::stop() {
    std::map<int, std::pair<std::uint32_t, os::Fd>> ranks;
    {
        const std::lock_guard guard(mutex_);
        ranks.swap(ranks_);
    }
    for (const auto& [fd, rank] : ranks) Supervisor::instance().unwatch(fd);
    const std::lock_guard none_under_way(telling_);
}

void RankWatch::on_readable(int fd) {
    const std::lock_guard telling(telling_);
    std::pair<std::uint32_t, os::Fd> rank;
    {
        const std::lock_guard guard(mutex_);
        const auto place = ranks_.find(fd);
        if (place == ranks_.end()) return;
        rank = std::move(place->second);
        ranks_.erase(place);
    }
    Supervisor::instance().unwatch(fd);
    died_(rank.first);
}

std::int64_t RankWatch::tick(std::int64_t) { return os::kNever; }

}    // namespace multihull::mpi
