// Future: waiting, asking, cancelling, calling back.
#include "support/board.hpp"
#include "support/start_methods.hpp"

#include <multihull/log.hpp>
#include <multihull/pool.hpp>

#include <gtest/gtest.h>

#include <chrono>
#include <mutex>
#include <optional>
#include <stdexcept>
#include <string>
#include <thread>
#include <unistd.h>
#include <vector>

namespace {

using namespace std::chrono_literals;
using multihull::Future;
using multihull::Pool;
using test::Board;

int square(int x) { return x * x; }
int fail(int x) { throw std::out_of_range("failed " + std::to_string(x)); }

struct HoldFirst {
    std::string board;
    int operator()(int x) const { return x == 0 ? test::hold(board, 0) : x; }
};

class FutureTest : public test::StartMethodTest {
protected:
    Board board_;
};
INSTANTIATE_TEST_SUITE_P(EachStartMethod, FutureTest, test::each_start_method(), test::start_method_name);

TEST_P(FutureTest, get_may_be_called_again_and_from_copies) {
    Pool pool(1);
    const Future<std::string> future =
        pool.apply_async([](int n) { return std::string(static_cast<std::size_t>(n), 'f'); }, 1000);
    const Future<std::string> copy = future;    // NOLINT: the copy is what is tested
    EXPECT_EQ(future.get(), std::string(1000, 'f'));
    EXPECT_EQ(future.get(), std::string(1000, 'f'));
    EXPECT_EQ(copy.get(), std::string(1000, 'f'));
    const auto failing = pool.apply_async(fail, 1);
    EXPECT_THROW(failing.get(), std::out_of_range);
    EXPECT_THROW(failing.get(), std::out_of_range);
}

TEST_P(FutureTest, get_with_a_time_limit_leaves_the_task_running) {
    Pool pool(1);
    const auto future = pool.apply_async(test::hold, board_.path(), 7);
    EXPECT_THROW(future.get(1ms), multihull::WaitTimeout);
    EXPECT_THROW(future.get(0ns), multihull::WaitTimeout);
    EXPECT_FALSE(future.wait_for(1ms));
    EXPECT_FALSE(future.ready());
    board_[test::kLetGo] = 1;
    EXPECT_EQ(future.get(test::kPatience), 7);
    EXPECT_TRUE(future.ready());
    EXPECT_TRUE(future.wait_for(0s));
    EXPECT_EQ(future.get(std::chrono::nanoseconds::max()), 7);
}

TEST_P(FutureTest, exception_says_what_get_would_throw) {
    Pool pool(1);
    EXPECT_EQ(pool.apply_async(square, 2).exception(), nullptr);
    const auto failing = pool.apply_async(fail, 3);
    EXPECT_EQ(test::thrown_by<std::out_of_range>([&] { std::rethrow_exception(failing.exception()); }).what(),
              std::string("failed 3"));
    EXPECT_NE(pool.map_async(fail, {1, 2}).exception(), nullptr);
    EXPECT_EQ(pool.map_async(square, {1, 2}).exception(), nullptr);
}

TEST_P(FutureTest, without_a_task_says_so) {
    Pool pool(1);
    Future<int> empty;
    EXPECT_FALSE(empty.valid());
    EXPECT_THROW(empty.get(), multihull::Error);
    EXPECT_THROW(static_cast<void>(empty.ready()), multihull::Error);
    EXPECT_THROW(empty.cancel(), multihull::Error);
    auto future = pool.apply_async(square, 3);
    empty = std::move(future);
    EXPECT_TRUE(empty.valid());
    EXPECT_FALSE(future.valid());    // NOLINT: what a moved-from future answers is what is tested
    EXPECT_THROW(future.wait(), multihull::Error);
    EXPECT_EQ(empty.get(), 9);
}

TEST_P(FutureTest, outlives_its_pool) {
    Future<int> value;
    Future<std::vector<std::string>> mapped;
    Future<int> failed;
    {
        Pool pool(2);
        value = pool.apply_async(square, 12);
        mapped = pool.map_async([](int x) { return std::string(static_cast<std::size_t>(x), 'x'); }, {1, 2000});
        failed = pool.apply_async(fail, 5);
    }
    EXPECT_TRUE(value.ready());
    EXPECT_EQ(value.get(), 144);
    EXPECT_EQ(mapped.get(), (std::vector{std::string("x"), std::string(2000, 'x')}));
    EXPECT_THROW(failed.get(), std::out_of_range);
    EXPECT_FALSE(value.cancel());
    bool called = false;
    value.add_done_callback([&](const Future<int>& future) { called = future.get() == 144; });
    EXPECT_TRUE(called);
}

TEST_P(FutureTest, is_waited_for_by_many_threads) {
    Pool pool(1);
    const auto future = pool.apply_async(test::hold, board_.path(), 5);
    std::vector<std::thread> threads;
    std::atomic<int> got{0};
    for (int i = 0; i < 8; ++i) {
        threads.emplace_back([future, &got] {
            if (future.get() == 5) ++got;
        });
    }
    ASSERT_TRUE(board_.wait_until_at_least(test::kHeld, 1));
    board_[test::kLetGo] = 1;
    for (auto& thread : threads) thread.join();
    EXPECT_EQ(got, 8);
}

TEST_P(FutureTest, cancel_keeps_a_waiting_task_from_starting) {
    Pool pool(1);
    const auto running = pool.apply_async(test::hold, board_.path(), 1);
    ASSERT_TRUE(board_.wait_until_at_least(test::kHeld, 1));
    const auto waiting = pool.apply_async(test::hold, board_.path(), 2);
    const auto behind = pool.apply_async(square, 3);
    EXPECT_TRUE(waiting.cancel());
    EXPECT_TRUE(waiting.ready());
    EXPECT_THROW(waiting.get(), multihull::Cancelled);
    EXPECT_FALSE(waiting.cancel());
    board_[test::kLetGo] = 1;
    EXPECT_EQ(running.get(), 1);
    EXPECT_EQ(behind.get(), 9);
    EXPECT_EQ(board_[test::kHeld], 1);
}

TEST_P(FutureTest, cancel_ends_a_running_task_and_no_other) {
    Pool pool(2);
    const auto doomed = pool.apply_async(test::hold, board_.path(), 1);
    const auto other = pool.apply_async(test::hold, board_.path(), 2);
    ASSERT_TRUE(board_.wait_until_at_least(test::kHeld, 2));
    EXPECT_TRUE(doomed.cancel());
    EXPECT_THROW(doomed.get(), multihull::Cancelled);
    EXPECT_FALSE(doomed.cancel());
    EXPECT_EQ(pool.apply(square, 6), 36);
    EXPECT_FALSE(other.ready());
    board_[test::kLetGo] = 1;
    EXPECT_EQ(other.get(), 2);
}

TEST_P(FutureTest, cancel_of_what_has_ended_changes_nothing) {
    Pool pool(1);
    const auto future = pool.apply_async(square, 4);
    EXPECT_EQ(future.get(), 16);
    EXPECT_FALSE(future.cancel());
    EXPECT_EQ(future.get(), 16);
    const auto failing = pool.apply_async(fail, 1);
    failing.wait();
    EXPECT_FALSE(failing.cancel());
    EXPECT_THROW(failing.get(), std::out_of_range);
    const auto map = pool.map_async(square, {1, 2});
    map.wait();
    EXPECT_FALSE(map.cancel());
    EXPECT_EQ(map.get(), (std::vector{1, 4}));
}

TEST_P(FutureTest, cancel_of_a_map_ends_all_of_it) {
    Pool pool(2);
    const auto map = pool.map_async(HoldFirst{board_.path()}, std::views::iota(0, 1000));
    ASSERT_TRUE(board_.wait_until_at_least(test::kHeld, 1));
    EXPECT_TRUE(map.cancel());
    EXPECT_THROW(map.get(), multihull::Cancelled);
    EXPECT_EQ(pool.map(square, {2, 3}), (std::vector{4, 9}));
}

TEST_P(FutureTest, cancel_of_a_map_that_waits_keeps_it_from_starting) {
    Pool pool(1);
    const auto running = pool.apply_async(test::hold, board_.path(), 1);
    ASSERT_TRUE(board_.wait_until_at_least(test::kHeld, 1));
    const auto map = pool.map_async(HoldFirst{board_.path()}, std::views::iota(0, 10));
    EXPECT_TRUE(map.cancel());
    EXPECT_THROW(map.get(), multihull::Cancelled);
    board_[test::kLetGo] = 1;
    EXPECT_EQ(running.get(), 1);
    EXPECT_EQ(pool.apply(square, 2), 4);
    EXPECT_EQ(board_[test::kHeld], 1);
}

TEST_P(FutureTest, cancel_races_with_the_end) {
    Pool pool(2);
    int cancelled = 0;
    for (int i = 0; i < 100; ++i) {
        const auto future = pool.apply_async(square, i);
        const bool won = future.cancel();
        try {
            EXPECT_EQ(future.get(), i * i);
            EXPECT_FALSE(won);
        } catch (const multihull::Cancelled&) {
            EXPECT_TRUE(won);
            ++cancelled;
        }
    }
    EXPECT_EQ(pool.apply(square, 3), 9);
    SUCCEED() << cancelled << " cancelled";
}

TEST_P(FutureTest, cancel_of_a_thousand_waiting_tasks) {
    Pool pool(1);
    const auto running = pool.apply_async(test::hold, board_.path(), 1);
    ASSERT_TRUE(board_.wait_until_at_least(test::kHeld, 1));
    std::vector<Future<int>> futures;
    for (int i = 0; i < 1000; ++i) futures.push_back(pool.apply_async(square, i));
    for (std::size_t i = 0; i < futures.size(); i += 2) EXPECT_TRUE(futures[i].cancel());
    board_[test::kLetGo] = 1;
    for (std::size_t i = 0; i < futures.size(); ++i) {
        if (i % 2 == 0) {
            EXPECT_THROW(futures[i].get(), multihull::Cancelled);
        } else {
            EXPECT_EQ(futures[i].get(), static_cast<int>(i * i));
        }
    }
    EXPECT_EQ(running.get(), 1);
}

TEST_P(FutureTest, calls_back_once_when_the_task_has_ended) {
    std::atomic<int> calls{0};
    std::atomic<int> sum{0};
    {
        Pool pool(2);
        for (int i = 0; i < 500; ++i) {
            pool.apply_async(square, i % 10).add_done_callback([&](const Future<int>& future) {
                sum += future.get();
                ++calls;
            });
        }
    }
    // Leaving the pool finishes its callbacks too.
    EXPECT_EQ(calls, 500);
    EXPECT_EQ(sum, 50 * 285);
}

TEST_P(FutureTest, calls_back_at_once_in_the_callers_thread_when_it_has_ended) {
    Pool pool(1);
    const auto future = pool.apply_async(square, 3);
    future.wait();
    std::thread::id thread;
    future.add_done_callback([&](const Future<int>&) { thread = std::this_thread::get_id(); });
    EXPECT_EQ(thread, std::this_thread::get_id());
}

TEST_P(FutureTest, calls_back_of_failures_of_every_kind) {
    std::mutex mutex;
    std::vector<std::string> kinds;
    const auto note = [&](const char* expected) {
        return [&, expected](const Future<int>& future) {
            std::string kind = "value";
            try {
                future.get();
            } catch (const multihull::WorkerCrashed&) {
                kind = "crash";
            } catch (const multihull::Cancelled&) {
                kind = "cancelled";
            } catch (const multihull::TaskTimeout&) {
                kind = "timeout";
            } catch (const std::exception&) {
                kind = "exception";
            }
            EXPECT_EQ(kind, expected);
            const std::lock_guard guard(mutex);
            kinds.push_back(kind);
        };
    };
    {
        Pool pool(1);
        const auto cancelled = pool.apply_async(test::hold, board_.path(), 0);
        cancelled.add_done_callback(note("cancelled"));
        ASSERT_TRUE(board_.wait_until_at_least(test::kHeld, 1));
        const auto waiting = pool.apply_async(square, 1);
        waiting.add_done_callback(note("cancelled"));
        EXPECT_TRUE(waiting.cancel());
        EXPECT_TRUE(cancelled.cancel());
        pool.apply_async(fail, 1).add_done_callback(note("exception"));
        pool.apply_async([]() -> int { ::_exit(1); }).add_done_callback(note("crash"));
        pool.apply_async({.timeout = 20ms}, test::hold, board_.path(), 0).add_done_callback(note("timeout"));
        pool.apply_async(square, 1).add_done_callback(note("value"));
    }
    EXPECT_EQ(kinds.size(), 6u);
}

TEST_P(FutureTest, a_callback_that_throws_is_logged_and_stops_nothing) {
    std::mutex mutex;
    std::vector<std::string> messages;
    multihull::set_log_sink([&](multihull::LogLevel, std::string_view message) {
        const std::lock_guard guard(mutex);
        messages.emplace_back(message);
    });
    std::atomic<int> called{0};
    {
        Pool pool(1);
        const auto held = pool.apply_async(test::hold, board_.path(), 0);
        held.add_done_callback([](const Future<int>&) { throw std::runtime_error("a callback's own"); });
        held.add_done_callback([&](const Future<int>&) { ++called; });
        board_[test::kLetGo] = 1;
        pool.apply_async(square, 1).add_done_callback([&](const Future<int>&) { ++called; });
    }
    multihull::set_log_sink({});
    EXPECT_EQ(called, 2);
    ASSERT_EQ(messages.size(), 1u);
    EXPECT_NE(messages[0].find("a callback's own"), std::string::npos);
}

TEST_P(FutureTest, a_callback_may_submit_cancel_and_wait) {
    Pool pool(2);
    std::atomic<int> result{0};
    {
        const auto held = pool.apply_async(test::hold, board_.path(), 4);
        held.add_done_callback([&](const Future<int>& future) {
            const auto cancelled = pool.apply_async(square, 1);
            cancelled.cancel();
            result = pool.apply(square, future.get());
        });
        board_[test::kLetGo] = 1;
    }
    EXPECT_TRUE(test::eventually([&] { return result == 16; }));
}

TEST_P(FutureTest, then_gives_a_future_of_what_follows) {
    Pool pool(2);
    const auto text = pool.apply_async(square, 5).then([](int x) { return std::to_string(x); });
    const auto size = text.then([](const std::string& t) { return t.size(); });
    EXPECT_EQ(text.get(), "25");
    EXPECT_EQ(size.get(), 2u);
    bool ran = false;
    pool.apply_async([] {}).then([&] { ran = true; }).get();
    EXPECT_TRUE(ran);
    const auto sum =
        pool.map_async(square, {1, 2, 3}).then([](const std::vector<int>& v) { return v[0] + v[1] + v[2]; });
    EXPECT_EQ(sum.get(), 14);
}

TEST_P(FutureTest, then_passes_failures_on) {
    Pool pool(1);
    bool ran = false;
    const auto after = pool.apply_async(fail, 1).then([&](int x) {
        ran = true;
        return x;
    });
    EXPECT_THROW(after.get(), std::out_of_range);
    EXPECT_FALSE(ran);
    const auto throwing = pool.apply_async(square, 1).then([](int) -> int { throw std::domain_error("after"); });
    EXPECT_THROW(throwing.get(), std::domain_error);
    EXPECT_THROW(throwing.then([](int x) { return x; }).get(), std::domain_error);
    const auto cancelled = pool.apply_async(test::hold, board_.path(), 1);
    const auto behind = cancelled.then([](int x) { return x; });
    ASSERT_TRUE(board_.wait_until_at_least(test::kHeld, 1));
    EXPECT_TRUE(cancelled.cancel());
    EXPECT_THROW(behind.get(), multihull::Cancelled);
}

TEST_P(FutureTest, then_can_be_waited_for_with_a_limit_and_cancelled) {
    Pool pool(1);
    const auto held = pool.apply_async(test::hold, board_.path(), 1);
    const auto after = held.then([](int x) { return x + 1; });
    EXPECT_FALSE(after.wait_for(1ms));
    EXPECT_THROW(after.get(1ms), multihull::WaitTimeout);
    const auto cancelled = held.then([](int x) { return x + 1; });
    EXPECT_TRUE(cancelled.cancel());
    EXPECT_THROW(cancelled.get(), multihull::Cancelled);
    board_[test::kLetGo] = 1;
    EXPECT_EQ(after.get(), 2);
    EXPECT_FALSE(after.cancel());
}

TEST_P(FutureTest, map_calls_back_once_for_all_its_elements) {
    std::atomic<int> calls{0};
    {
        Pool pool(3);
        for (int i = 0; i < 50; ++i) {
            pool.map_async(square, std::views::iota(0, 20))
                .add_done_callback([&](const Future<std::vector<int>>& future) {
                    if (future.get().back() == 361) ++calls;
                });
        }
    }
    EXPECT_EQ(calls, 50);
}

TEST_P(FutureTest, thousands_that_nobody_keeps_take_no_memory_and_still_run) {
    constexpr int kTasks = 30'000;
    {
        Pool pool(2);
        for (int i = 0; i < kTasks; ++i) {
            pool.apply_async([](const std::string& path) { ++Board(path)[3]; }, board_.path());
        }
    }
    EXPECT_EQ(board_[3], kTasks);
}

}    // namespace
