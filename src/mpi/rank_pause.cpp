// How a rank waits, for messages and for the ends of its tasks.
#include "mpi/local_task.hpp"
#include "mpi/rank_server.hpp"
#include "os/clock.hpp"

#include <algorithm>
#include <ctime>
#include <vector>

namespace multihull::mpi {

void RankServer::pause(std::int64_t now_ns) {
    const auto nap = [](std::int64_t ns) {
        const timespec time{ns / 1'000'000'000, ns % 1'000'000'000};
        ::nanosleep(&time, nullptr);
    };
    // To be woken for each of many short tasks would cost the workers more than they take.
    const Poll::Rest rest = may_rest();
    if (rest.ns != 0 && rest.task_ns < Poll::kLongTaskNs) {
        sleeper_.stay_awake();
        return nap(rest.ns);
    }
    const std::int64_t pause = std::max(poll_.pause_ns(now_ns, rest.task_ns), rest.ns);
    if (pause == 0) {
        sleeper_.stay_awake();
        return poll_.give_way(now_ns);
    }
    // What waits for more to be told with it is not to wait for a sleep.
    if (!out_.empty()) {
        hurry_ = true;
        flush(now_ns);
        return;
    }
    if (sleeper_.hears()) {
        if (sleeper_.may_sleep()) listen(now_ns + pause);
        return;
    }
    for (auto& [number, pool] : pools_) {
        if (pool.entries.empty()) continue;
        // Its end is noticed at once; those of others when the pause is over.
        const auto& first = pool.entries.front().task;
        first.completion->wait(first.task, now_ns + pause);
        return;
    }
    nap(pause);
}

// Until something was sent, or a task has ended; at `look_ns` where not all of that is heard.
void RankServer::listen(std::int64_t look_ns) {
    std::vector<os::FutexWord>& words = sleeper_.words();
    std::int64_t deadline_ns = transport_.busy() ? look_ns : os::kNever;
    for (auto& [number, pool] : pools_) {
        const std::size_t running = std::min<std::size_t>(pool.workers, pool.entries.size());
        for (std::size_t i = 0; i < running; ++i) {
            const auto& submitted = pool.entries[i].task;
            if (submitted.completion->ready(submitted.task)) return;
            if (!add_awaited(words, *pool.engine, submitted)) deadline_ns = look_ns;
        }
    }
    sleeper_.sleep(deadline_ns);
}

Poll::Rest RankServer::may_rest() const noexcept {
    Poll::Rest all{os::kNever, os::kNever};
    if (transport_.busy()) return {};    // what arrives needs MPI to be asked
    for (const auto& [number, pool] : pools_) {
        if (pool.entries.empty()) continue;
        const std::size_t tasks = pool.entries.size();
        all.ns = std::min(all.ns, std::max(Poll::rest_ns(tasks, pool.task_ns, pool.workers),
                                           Poll::rest_at_hand_ns(tasks, pool.task_ns, pool.workers)));
        all.task_ns = std::min(all.task_ns, pool.task_ns);
    }
    return all.ns == os::kNever ? Poll::Rest{} : all;
}

}    // namespace multihull::mpi
