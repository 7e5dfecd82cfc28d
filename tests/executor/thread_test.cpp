// What is particular to executors of threads, and of none.
#include "support/board.hpp"

#include <multihull/futures.hpp>

#include <gtest/gtest.h>

#include <atomic>
#include <functional>
#include <future>
#include <memory>
#include <set>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

namespace {

using multihull::SerialExecutor;
using multihull::ThreadPoolExecutor;

TEST(ThreadExecutor, closures_and_references_are_fine) {
    ThreadPoolExecutor executor(2);
    int total = 0;
    std::vector<int> inputs{1, 2, 3};
    executor.submit([&] { total += 5; }).get();
    executor
        .submit([](int& sum, const std::vector<int>& v) { sum += static_cast<int>(v.size()); }, std::ref(total), inputs)
        .get();
    EXPECT_EQ(total, 8);
    std::atomic<int> seen{0};
    for (const int y :
         executor.map([&seen, offset = std::make_shared<int>(10)](int x) { return ++seen, x + *offset; }, inputs))
        EXPECT_GT(y, 10);
    EXPECT_EQ(seen, 3);
}

TEST(ThreadExecutor, an_exception_is_the_one_that_was_thrown) {
    struct OnlyHere {
        std::shared_ptr<int> what;
    };
    ThreadPoolExecutor executor(1);
    const auto what = std::make_shared<int>(1);
    const auto future = executor.submit([what] { throw OnlyHere{what}; });
    try {
        future.get();
        FAIL();
    } catch (const OnlyHere& error) {
        EXPECT_EQ(error.what, what);
    }
}

TEST(ThreadExecutor, what_a_call_holds_is_gone_when_it_has_ended) {
    ThreadPoolExecutor executor(1);
    auto held = std::make_shared<int>(1);
    const std::weak_ptr<int> watch = held;
    const auto future = executor.submit([held = std::move(held)] { return *held; });
    EXPECT_EQ(future.get(), 1);
    EXPECT_TRUE(watch.expired());
}

TEST(ThreadExecutor, a_result_that_cannot_be_copied_is_given_away_once) {
    ThreadPoolExecutor executor(1);
    const auto future = executor.submit([] { return std::make_unique<int>(7); });
    EXPECT_EQ(*future.get(), 7);
    EXPECT_THROW(future.get(), multihull::Error);
    const auto many = executor.submit([] { return std::vector<std::unique_ptr<int>>(3); });
    EXPECT_EQ(many.get().size(), 3U);
    EXPECT_THROW(many.get(), multihull::Error);
}

TEST(ThreadExecutor, threads_cannot_be_ended_from_outside) {
    ThreadPoolExecutor executor(1);
    EXPECT_THROW(executor.terminate_workers(), multihull::Error);
    EXPECT_THROW(executor.kill_workers(), multihull::Error);
    EXPECT_EQ(executor.submit([] { return 1; }).get(), 1);
}

TEST(ThreadExecutor, an_initializer_runs_in_each_thread_first) {
    static thread_local int ready = 0;
    std::atomic<int> called{0};
    ThreadPoolExecutor executor({.max_workers = 2, .initializer = [&] { ready = 1, ++called; }});
    for (int i = 0; i < 50; ++i) EXPECT_EQ(executor.submit([] { return ready; }).get(), 1);
    executor.shutdown();
    EXPECT_LE(called, 2);
}

TEST(ThreadExecutor, an_initializer_that_throws_breaks_it) {
    ThreadPoolExecutor executor({.max_workers = 2, .initializer = [] { throw std::runtime_error("no licence"); }});
    std::vector<multihull::Future<int>> futures;
    bool refused = false;
    for (int i = 0; i < 10 && !refused; ++i) {
        try {
            futures.push_back(executor.submit([] { return 1; }));
        } catch (const multihull::BrokenPool&) {
            refused = true;
        }
    }
    for (const auto& future : futures) {
        const auto error = test::thrown_by<multihull::BrokenPool>([&] { future.get(); });
        EXPECT_NE(std::string(error.what()).find("no licence"), std::string::npos);
    }
    EXPECT_TRUE(test::eventually([&] {
        try {
            executor.submit([] { return 1; }).wait();
            return false;
        } catch (const multihull::BrokenPool&) {
            return true;
        }
    }));
}

TEST(ThreadExecutor, threads_start_as_work_comes) {
    ThreadPoolExecutor executor(1000);
    std::set<std::thread::id> ids;
    for (int i = 0; i < 20; ++i) ids.insert(executor.submit([] { return std::this_thread::get_id(); }).get());
    EXPECT_LE(ids.size(), 20U);
}

TEST(ThreadExecutor, a_task_may_submit_but_not_wait_for_the_end) {
    ThreadPoolExecutor executor(1);
    EXPECT_EQ(executor.submit([&] { return executor.submit([] { return 3; }); }).get().get(), 3);
    EXPECT_THROW(executor.submit([&] { executor.shutdown(); }).get(), multihull::Error);
}

TEST(ThreadExecutor, a_task_may_be_its_last_owner) {
    std::promise<void> ended;
    auto executor = std::make_shared<ThreadPoolExecutor>(2);
    std::promise<void> dropped;
    executor->submit([own = executor, &ended, gone = dropped.get_future().share()]() mutable {
        gone.wait();
        own.reset();
        ended.set_value();
    });
    executor.reset();
    dropped.set_value();
    ended.get_future().wait();
}

TEST(ThreadExecutor, cancel_and_run_race) {
    ThreadPoolExecutor executor(2);
    for (int i = 0; i < 2000; ++i) {
        std::atomic<int> ran{0};
        const auto future = executor.submit([&] { ++ran; });
        const bool cancelled = future.cancel();
        future.wait();
        EXPECT_EQ(ran, cancelled ? 0 : 1);
    }
}

TEST(SerialExecutor, runs_at_once_and_here) {
    SerialExecutor executor(4);
    int calls = 0;
    const auto future = executor.submit([&] { return ++calls, std::this_thread::get_id(); });
    EXPECT_EQ(calls, 1);
    EXPECT_TRUE(future.ready());
    EXPECT_EQ(future.get(), std::this_thread::get_id());
    executor.kill_workers();
    EXPECT_THROW(executor.submit([] {}), multihull::PoolClosed);
}

TEST(SerialExecutor, as_completed_keeps_the_order) {
    SerialExecutor executor;
    std::vector<multihull::Future<int>> futures;
    for (int i = 0; i < 5; ++i) futures.push_back(executor.submit([i] { return i; }));
    int next = 0;
    for (auto& done : multihull::as_completed(futures)) EXPECT_EQ(done.get(), next++);
}

}    // namespace
