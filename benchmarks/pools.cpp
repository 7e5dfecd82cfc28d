// Whole lives of pools: made, used a little, ended; and a worker that crashes.
#include "bare_process.hpp"
#include "harness.hpp"
#include "thread_pool.hpp"

#include <multihull/pool.hpp>

#include <boost/asio/packaged_task.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/thread_pool.hpp>

#include <csignal>
#include <future>
#include <vector>

namespace bench {

namespace {

int square(int x) { return x * x; }
int crash(int) { return ::raise(SIGSEGV); }

void map_of_five(multihull::StartMethod method) {
    multihull::Pool pool({.processes = 2, .start_method = method});
    require(pool.map(square, {1, 2, 3, 4, 5}).back() == 25, "a map of five");
}

// Queues `count` tasks in a pool that `submit` knows, and adds up their results.
template <class Submit>
void run_tasks(int count, Submit submit) {
    std::vector<decltype(submit(0))> futures;
    for (int i = 0; i < count; ++i) futures.push_back(submit(i));
    long long sum = 0;
    for (auto& future : futures) sum += future.get();
    require(sum == 1LL * (count - 1) * count * (2 * count - 1) / 6, "the tasks of a short-lived pool");
}

void thread_pool_life(std::size_t workers, int tasks) {
    ThreadPool pool(workers);
    run_tasks(tasks, [&](int i) { return pool.submit([i] { return square(i); }); });
}

void asio_life(std::size_t workers, int tasks) {
    boost::asio::thread_pool pool(workers);
    run_tasks(tasks,
              [&](int i) { return boost::asio::post(pool, std::packaged_task<int()>([i] { return square(i); })); });
    pool.join();
}

void multihull_life(std::size_t workers, int tasks) {
    multihull::Pool pool(workers);
    run_tasks(tasks, [&](int i) { return pool.apply_async(square, i); });
}

Competitor lives(std::string_view name, void (*life)(std::size_t, int), std::size_t workers, int tasks) {
    return {std::string(name), [=] { return median_of(10, [&] { life(workers, tasks); }); }};
}

}    // namespace

std::vector<Competitor> prepare_pool_of_five(const Settings&) {
    return {
        {std::string(kMultihull),
         [] { return median_of(10, [] { map_of_five(multihull::StartMethod::forkserver); }); }},
        lives(kThreadPool, thread_pool_life, 2, 5),
        lives(kAsio, asio_life, 2, 5),
        {std::string(kBare), [] { return median_of(10, [] { fork_and_wait(2); }); }},
    };
}

// No threads beside it: a fork of a program with threads is another matter.
std::vector<Competitor> prepare_pool_of_five_fork(const Settings&) {
    return {
        {std::string(kMultihull), [] { return median_of(10, [] { map_of_five(multihull::StartMethod::fork); }); }},
        {std::string(kBare), [] { return median_of(10, [] { fork_and_wait(2); }); }},
    };
}

std::vector<Competitor> prepare_pool_of_999(const Settings&) {
    return {
        lives(kMultihull, multihull_life, 3, 999),
        lives(kThreadPool, thread_pool_life, 3, 999),
        lives(kAsio, asio_life, 3, 999),
    };
}

// With one worker the next task can only run in a new one.
std::vector<Competitor> prepare_crash(const Settings&) {
    const auto pool = std::make_shared<multihull::Pool>(multihull::PoolOptions{.processes = 1, .retries = 0});
    return {
        {std::string(kMultihull),
         [pool] {
             return median_of(
                 10,
                 [&] {
                     const auto lost = pool->apply_async(crash, 0);
                     require(pool->apply(square, 3) == 9, "the task after the crash");
                     require(lost.exception() != nullptr, "the crash");
                 },
                 [&] { require(pool->apply(square, 2) == 4, "the task before the crash"); });
         }},
        {std::string(kBare), [] { return median_of(10, crash_and_start_anew); }},
    };
}

}    // namespace bench
