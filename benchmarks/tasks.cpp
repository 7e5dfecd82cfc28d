// Single tasks: there and back, and a hundred thousand with a future each.
#include "bare_process.hpp"
#include "harness.hpp"
#include "thread_pool.hpp"

#include <multihull/monitor.hpp>
#include <multihull/pool.hpp>
#include <multihull/process.hpp>
#include <multihull/sync.hpp>

#include <boost/asio/packaged_task.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/thread_pool.hpp>
#include <oneapi/tbb/global_control.h>
#include <oneapi/tbb/task_arena.h>

#include <cstdint>
#include <future>
#include <memory>
#include <thread>
#include <vector>

namespace bench {

namespace {

constexpr int kTinyTasks = 100'000;

int add_one(int x) { return x + 1; }

// What each competitor offers: a function that queues add_one(x) and answers a future of it.
auto submit_to(multihull::Pool& pool, int x) { return pool.apply_async(add_one, x); }
auto submit_to(ThreadPool& pool, int x) {
    return pool.submit([x] { return add_one(x); });
}
auto submit_to(boost::asio::thread_pool& pool, int x) {
    return boost::asio::post(pool, std::packaged_task<int()>([x] { return add_one(x); }));
}
auto submit_to(oneapi::tbb::task_arena& arena, int x) {
    auto task = std::make_shared<std::packaged_task<int()>>([x] { return add_one(x); });
    auto future = task->get_future();
    arena.enqueue([task] { (*task)(); });
    return future;
}

// No place in the arena is kept for the caller: the task runs in another thread, as with all the others. TBB by itself allows
// one worker less than there are processors.
std::shared_ptr<oneapi::tbb::task_arena> make_arena(std::size_t workers) {
    static const oneapi::tbb::global_control control(oneapi::tbb::global_control::max_allowed_parallelism, workers + 1);
    return std::make_shared<oneapi::tbb::task_arena>(static_cast<int>(workers), 0);
}

// `idle`: time that passes before each trip, in which everybody may fall asleep.
template <class Pool>
Competitor round_trips(std::string_view name, std::shared_ptr<Pool> pool, int trips, std::chrono::microseconds idle) {
    return {std::string(name), [pool, trips, idle, x = 0]() mutable {
                return median_of(
                    trips,
                    [&] {
                        require(submit_to(*pool, x).get() == x + 1, "a round trip");
                        ++x;
                    },
                    [&] {
                        if (idle.count() > 0) std::this_thread::sleep_for(idle);
                    });
            }};
}

std::vector<Competitor> round_trip_competitors(const Settings& settings, int trips, std::chrono::microseconds idle) {
    const auto echo_trips = [trips, idle] {
        BareEcho echo(idle.count() == 0);    // lives for one sample: it may burn a processor
        std::uint32_t x = 1;
        return median_of(
            trips,
            [&] {
                require(echo.add_one(x) == x + 1, "a bare round trip");
                x += 2;    // never the number that is there already
            },
            [&] {
                if (idle.count() > 0) std::this_thread::sleep_for(idle);
            });
    };
    return {
        round_trips(kMultihull, std::make_shared<multihull::Pool>(settings.workers), trips, idle),
        round_trips(kThreadPool, std::make_shared<ThreadPool>(settings.workers), trips, idle),
        round_trips(kAsio, std::make_shared<boost::asio::thread_pool>(settings.workers), trips, idle),
        round_trips(kTbb, make_arena(settings.workers), trips, idle),
        {std::string(kBare), echo_trips},
    };
}

template <class Pool>
Competitor many_tasks(std::string_view name, std::shared_ptr<Pool> pool) {
    return {std::string(name), [pool] {
                std::vector<decltype(submit_to(*pool, 0))> futures;
                futures.reserve(kTinyTasks);
                long long sum = 0;
                const double ns = timed([&] {
                    for (int i = 0; i < kTinyTasks; ++i) futures.push_back(submit_to(*pool, i));
                    for (auto& future : futures) sum += future.get();
                    futures.clear();
                });
                require(sum == 1LL * kTinyTasks * (kTinyTasks + 1) / 2, "tiny tasks");
                return ns / kTinyTasks;
            }};
}

// What `multihull top` does, as often as it does, while the event is set.
void look_on(multihull::Event watch) {
    multihull::PoolWatcher watcher;
    for (;;) {
        watch.wait();
        watcher.look();
        std::this_thread::sleep_for(std::chrono::milliseconds(500));
    }
}

}    // namespace

std::vector<Competitor> prepare_round_trip(const Settings& settings) {
    return round_trip_competitors(settings, 5000, std::chrono::microseconds(0));
}

std::vector<Competitor> prepare_round_trip_idle(const Settings& settings) {
    return round_trip_competitors(settings, 60, std::chrono::microseconds(1000));
}

std::vector<Competitor> prepare_tiny_tasks(const Settings& settings) {
    return {
        many_tasks(kMultihull, std::make_shared<multihull::Pool>(settings.workers)),
        many_tasks(kThreadPool, std::make_shared<ThreadPool>(settings.workers)),
        many_tasks(kAsio, std::make_shared<boost::asio::thread_pool>(settings.workers)),
        many_tasks(kTbb, make_arena(settings.workers)),
    };
}

std::vector<Competitor> prepare_tiny_tasks_traced(const Settings& settings) {
    const auto traced = multihull::PoolOptions{.processes = settings.workers, .trace = true};
    return {
        many_tasks(kMultihull, std::make_shared<multihull::Pool>(traced)),
        many_tasks(kUntraced, std::make_shared<multihull::Pool>(settings.workers)),
    };
}

// Ten samples in one, as an onlooker comes by twice a second only.
std::vector<Competitor> prepare_tiny_tasks_watched(const Settings& settings) {
    multihull::Event watch;
    const auto onlooker =
        std::make_shared<multihull::Process>(multihull::ProcessOptions{.daemon = true}, look_on, watch);
    onlooker->start();
    const auto ten = [](const Competitor& one) {
        double sum = 0;
        for (int i = 0; i < 10; ++i) sum += one.sample();
        return sum / 10;
    };
    const auto published = multihull::PoolOptions{.processes = settings.workers, .publish = true};
    const Competitor watched = many_tasks(kMultihull, std::make_shared<multihull::Pool>(published));
    const Competitor alone = many_tasks(kUnwatched, std::make_shared<multihull::Pool>(settings.workers));
    return {
        {watched.name,
         [=, keep = onlooker]() mutable {
             watch.set();
             const double ns = ten(watched);
             watch.clear();
             return ns;
         }},
        {alone.name, [=] { return ten(alone); }},
    };
}

}    // namespace bench
