// wait(), as_completed() and co_await over the futures of every executor.
#include "executor/kinds.hpp"

#include <multihull/wait.hpp>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <coroutine>
#include <csignal>
#include <set>
#include <stdexcept>
#include <string>
#include <thread>
#include <unistd.h>
#include <vector>

namespace {

using namespace std::chrono_literals;
using multihull::ALL_COMPLETED;
using multihull::as_completed;
using multihull::FIRST_COMPLETED;
using multihull::FIRST_EXCEPTION;
using multihull::Future;
using multihull::wait;
using test::divide;
using test::square;

template <class Kind>
class Wait : public test::ExecutorTest<Kind> {
protected:
    using Futures = std::vector<Future<int>>;
};
TYPED_TEST_SUITE(Wait, test::ParallelKinds, test::KindName);

TYPED_TEST(Wait, for_the_first) {
    typename TypeParam::Executor executor(2);
    typename TestFixture::Futures futures{executor.submit(test::hold, this->board_.path(), 1),
                                          executor.submit(square, 2)};
    const auto [done, not_done] = wait(futures, FIRST_COMPLETED);
    ASSERT_EQ(done.size(), 1U);
    ASSERT_EQ(not_done.size(), 1U);
    EXPECT_EQ(done[0], futures[1]);
    EXPECT_EQ(not_done[0], futures[0]);
    this->board_[test::kLetGo] = 1;
}

TYPED_TEST(Wait, for_the_first_of_those_that_have_ended) {
    typename TypeParam::Executor executor(2);
    const auto ended = executor.submit(square, 2);
    ended.wait();
    const auto held = executor.submit(test::hold, this->board_.path(), 1);
    const auto [done, not_done] = wait(std::vector{held, ended}, FIRST_COMPLETED);
    EXPECT_EQ(done, std::vector{ended});
    EXPECT_EQ(not_done, std::vector{held});
    this->board_[test::kLetGo] = 1;
}

TYPED_TEST(Wait, for_the_first_exception) {
    typename TypeParam::Executor executor(2);
    const auto held = executor.submit(test::hold, this->board_.path(), 1);
    ASSERT_TRUE(this->board_.wait_until_at_least(test::kHeld, 1));
    const auto fine = executor.submit(square, 3);
    const auto failed = executor.submit(divide, 3, 0);
    const auto [done, not_done] = wait(std::vector{held, fine, failed}, FIRST_EXCEPTION);
    EXPECT_EQ(done, (std::vector{fine, failed}));
    EXPECT_EQ(not_done, std::vector{held});
    const auto again = wait(std::vector{held, failed}, FIRST_EXCEPTION);
    EXPECT_EQ(again.done, std::vector{failed});
    this->board_[test::kLetGo] = 1;
    const auto none = wait(std::vector{held, fine}, FIRST_EXCEPTION);
    EXPECT_EQ(none.done.size(), 2U);
}

TYPED_TEST(Wait, a_cancelled_task_is_no_exception) {
    typename TypeParam::Executor executor(1);
    const auto held = executor.submit(test::hold, this->board_.path(), 1);
    const auto cancelled = executor.submit(square, 3);
    ASSERT_TRUE(this->board_.wait_until_at_least(test::kHeld, 1));
    ASSERT_TRUE(cancelled.cancel());
    const auto early = wait(std::vector{held, cancelled}, FIRST_EXCEPTION, 5ms);
    EXPECT_EQ(early.done, std::vector{cancelled});
    this->board_[test::kLetGo] = 1;
    EXPECT_EQ(wait(std::vector{held, cancelled}, FIRST_EXCEPTION).done.size(), 2U);
}

TYPED_TEST(Wait, for_all) {
    typename TypeParam::Executor executor(2);
    typename TestFixture::Futures futures;
    for (int i = 0; i < 30; ++i)
        futures.push_back(i % 3 == 0 ? executor.submit(divide, 1, 0) : executor.submit(square, i));
    const auto [done, not_done] = wait(futures, ALL_COMPLETED);
    EXPECT_EQ(done, futures);
    EXPECT_TRUE(not_done.empty());
}

TYPED_TEST(Wait, no_longer_than_it_may) {
    typename TypeParam::Executor executor(2);
    const auto held = executor.submit(test::hold, this->board_.path(), 1);
    const auto ended = executor.submit(square, 3);
    ended.wait();
    for (const auto when : {ALL_COMPLETED, FIRST_EXCEPTION}) {
        for (const auto timeout : {0ns, 3'000'000ns}) {
            const auto [done, not_done] = wait(std::vector{held, ended}, when, timeout);
            EXPECT_EQ(done, std::vector{ended});
            EXPECT_EQ(not_done, std::vector{held});
        }
    }
    EXPECT_TRUE(wait(std::vector{held}, FIRST_COMPLETED, 0s).done.empty());
    this->board_[test::kLetGo] = 1;
}

TYPED_TEST(Wait, of_nothing_and_of_duplicates) {
    typename TypeParam::Executor executor(1);
    for (const auto when : {ALL_COMPLETED, FIRST_EXCEPTION, FIRST_COMPLETED}) {
        EXPECT_TRUE(wait(typename TestFixture::Futures{}, when).done.empty());
    }
    const auto one = executor.submit(square, 3);
    EXPECT_EQ(wait(std::vector{one, one, one}, ALL_COMPLETED).done.size(), 1U);
    EXPECT_THROW(wait(typename TestFixture::Futures(1), ALL_COMPLETED), multihull::Error);
}

TYPED_TEST(Wait, again_and_again_for_the_first) {
    typename TypeParam::Executor executor(2);
    typename TestFixture::Futures left;
    for (int i = 0; i < 60; ++i) left.push_back(executor.submit(square, i));
    long sum = 0;
    while (!left.empty()) {
        auto [done, not_done] = wait(left, FIRST_COMPLETED);
        EXPECT_FALSE(done.empty());
        for (const auto& future : done) sum += future.get();
        left = std::move(not_done);
    }
    EXPECT_EQ(sum, 59 * 60 * 119 / 6);
}

TYPED_TEST(Wait, the_other_wait_is_still_there) {
    typename TypeParam::Executor executor(2);
    typename TestFixture::Futures futures{executor.submit(test::hold, this->board_.path(), 1),
                                          executor.submit(square, 2)};
    const std::vector<Future<int>*> ready = wait(futures);
    EXPECT_EQ(ready, std::vector{&futures[1]});
    this->board_[test::kLetGo] = 1;
}

TYPED_TEST(Wait, as_completed_tells_each_once_as_it_ends) {
    typename TypeParam::Executor executor(2);
    typename TestFixture::Futures futures;
    futures.push_back(executor.submit(test::hold, this->board_.path(), 1));
    for (int i = 0; i < 20; ++i) futures.push_back(executor.submit(square, i));
    std::vector<const Future<int>*> told;
    for (auto& done : as_completed(futures)) {
        EXPECT_TRUE(done.ready());
        told.push_back(&done);
        if (told.size() == 20) this->board_[test::kLetGo] = 1;
    }
    EXPECT_EQ(told.size(), 21U);
    EXPECT_EQ(std::set(told.begin(), told.end()).size(), 21U);
    EXPECT_EQ(told.back(), &futures.front());
}

TYPED_TEST(Wait, as_completed_tells_those_first_that_have_ended) {
    typename TypeParam::Executor executor(2);
    typename TestFixture::Futures futures{executor.submit(test::hold, this->board_.path(), 1),
                                          executor.submit(square, 2), executor.submit(square, 3)};
    wait(std::vector{futures[1], futures[2]}, ALL_COMPLETED);
    std::vector<int> values;
    for (auto& done : as_completed(futures)) {
        this->board_[test::kLetGo] = 1;
        values.push_back(done.get());
    }
    EXPECT_EQ(values, (std::vector{4, 9, 1}));
}

TYPED_TEST(Wait, as_completed_no_longer_than_it_may) {
    typename TypeParam::Executor executor(2);
    typename TestFixture::Futures futures{executor.submit(test::hold, this->board_.path(), 1),
                                          executor.submit(square, 2)};
    futures[1].wait();
    for (const auto timeout : {0ns, 3'000'000ns}) {
        std::size_t told = 0;
        const auto read = [&] {
            for (auto& done : as_completed(futures, timeout)) {
                EXPECT_EQ(done.get(), 4);
                ++told;
            }
        };
        EXPECT_THROW(read(), multihull::WaitTimeout);
        EXPECT_EQ(told, 1U);
    }
    this->board_[test::kLetGo] = 1;
}

TYPED_TEST(Wait, as_completed_tells_a_duplicate_once) {
    typename TypeParam::Executor executor(2);
    const auto one = executor.submit(square, 2);
    std::size_t told = 0;
    for (auto& done : as_completed(std::vector{one, one})) told += done.get() == 4 ? 1 : 0;
    EXPECT_EQ(told, 1U);
    for ([[maybe_unused]] auto& done : as_completed(typename TestFixture::Futures{})) ADD_FAILURE();
}

TYPED_TEST(Wait, as_completed_left_half_way_leaves_nothing) {
    typename TypeParam::Executor executor(2);
    typename TestFixture::Futures futures{executor.submit(square, 2),
                                          executor.submit(test::hold, this->board_.path(), 1)};
    for (auto& done : as_completed(futures)) {
        EXPECT_EQ(done.get(), 4);
        break;
    }
    this->board_[test::kLetGo] = 1;
    EXPECT_EQ(futures[1].get(), 1);
}

TYPED_TEST(Wait, a_told_future_may_be_replaced) {
    typename TypeParam::Executor executor(2);
    typename TestFixture::Futures futures;
    for (int i = 0; i < 10; ++i) futures.push_back(executor.submit(square, i));
    int sum = 0;
    for (auto& done : as_completed(futures)) {
        sum += done.get();
        done = executor.submit(square, 100);
    }
    EXPECT_EQ(sum, 285);
    for (const auto& future : futures) EXPECT_EQ(future.get(), 10000);
}

TYPED_TEST(Wait, as_completed_for_many) {
    constexpr int kMany = 20'000;
    typename TypeParam::Executor executor(2);
    typename TestFixture::Futures futures;
    for (int i = 0; i < kMany; ++i) futures.push_back(executor.submit([](int x) { return x; }, i));
    std::vector<bool> told(kMany);
    for (auto& done : as_completed(futures)) {
        const auto value = static_cast<std::size_t>(done.get());
        EXPECT_FALSE(told[value]);
        told[value] = true;
    }
    EXPECT_EQ(std::ranges::count(told, true), kMany);
}

TYPED_TEST(Wait, several_threads_for_the_same_tasks) {
    typename TypeParam::Executor executor(2);
    typename TestFixture::Futures futures;
    for (int i = 0; i < 50; ++i) futures.push_back(executor.submit(square, i));
    std::vector<std::thread> threads;
    std::atomic<int> wrong{0};
    for (int t = 0; t < 3; ++t) {
        threads.emplace_back([&] {
            std::vector<Future<int>> own = futures;
            std::size_t told = 0;
            for ([[maybe_unused]] auto& done : as_completed(own)) ++told;
            if (told != 50) ++wrong;
            if (wait(own, ALL_COMPLETED).done.size() != 50) ++wrong;
        });
    }
    for (auto& thread : threads) thread.join();
    EXPECT_EQ(wrong, 0);
}

// A coroutine that runs by itself, and says when it has ended.
struct Detached {
    struct promise_type {
        Detached get_return_object() noexcept { return {}; }
        std::suspend_never initial_suspend() noexcept { return {}; }
        std::suspend_never final_suspend() noexcept { return {}; }
        void return_void() noexcept {}
        void unhandled_exception() noexcept { std::terminate(); }
    };
};

template <class Executor>
Detached add_up(Executor& executor, std::atomic<int>& result) {
    int sum = 0;
    for (int i = 1; i <= 10; ++i) sum += co_await executor.submit(square, i);
    co_await executor.submit([] {});
    try {
        co_await executor.submit(divide, 1, 0);
    } catch (const std::domain_error&) {
        ++sum;
    }
    result = sum;
}

TYPED_TEST(Wait, a_coroutine_can) {
    typename TypeParam::Executor executor(2);
    std::atomic<int> result{0};
    add_up(executor, result);
    EXPECT_TRUE(test::eventually([&] { return result == 386; }));
}

template <class Kind>
class WaitAndDie : public test::ExecutorTest<Kind> {};
TYPED_TEST_SUITE(WaitAndDie, test::ProcessKinds, test::KindName);

int tell_pid_and_hold(const std::string& path) {
    test::Board board(path);
    board[5] = ::getpid();
    return test::hold(path, 1);
}

TYPED_TEST(WaitAndDie, a_worker_killed_while_somebody_waits) {
    typename TypeParam::Executor executor(2);
    std::vector<Future<int>> futures{executor.submit(tell_pid_and_hold, this->board_.path()),
                                     executor.submit(test::hold, this->board_.path(), 2)};
    ASSERT_TRUE(this->board_.wait_until_at_least(test::kHeld, 2));
    std::thread killer([&] { ::kill(static_cast<pid_t>(this->board_[5].load()), SIGKILL); });
    const auto [done, not_done] = wait(futures, FIRST_EXCEPTION);
    killer.join();
    EXPECT_EQ(done, std::vector{futures[0]});
    EXPECT_THROW(futures[0].get(), multihull::WorkerCrashed);
    this->board_[test::kLetGo] = 1;
    std::size_t told = 0;
    for ([[maybe_unused]] auto& each : as_completed(futures)) ++told;
    EXPECT_EQ(told, 2U);
    EXPECT_EQ(futures[1].get(), 2);
}

TYPED_TEST(WaitAndDie, workers_ended_while_somebody_waits) {
    for (const bool kill : {false, true}) {
        typename TypeParam::Executor executor(2);
        this->board_[test::kHeld] = 0;
        std::vector<Future<int>> futures;
        for (int i = 0; i < 6; ++i) futures.push_back(executor.submit(test::hold, this->board_.path(), i));
        ASSERT_TRUE(this->board_.wait_until_at_least(test::kHeld, 2));
        std::thread ender([&] { kill ? executor.kill_workers() : executor.terminate_workers(); });
        std::size_t told = 0;
        for (auto& done : as_completed(futures)) {
            EXPECT_THROW(done.get(), multihull::Cancelled);
            ++told;
        }
        EXPECT_EQ(told, 6U);
        ender.join();
        EXPECT_THROW(executor.submit(square, 1), multihull::PoolClosed);
    }
}

}    // namespace
