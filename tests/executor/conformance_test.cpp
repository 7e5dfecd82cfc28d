// What every executor does: submit, map, shutdown, callbacks.
#include "executor/kinds.hpp"

#include <multihull/log.hpp>

#include <array>
#include <atomic>
#include <chrono>
#include <functional>
#include <list>
#include <map>
#include <memory>
#include <mutex>
#include <numeric>
#include <ranges>
#include <sstream>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

namespace {

using namespace std::chrono_literals;
using multihull::MapOptions;
using test::divide;
using test::square;

static_assert(multihull::Executor<multihull::ProcessPoolExecutor>);
static_assert(multihull::Executor<multihull::ThreadPoolExecutor>);
static_assert(multihull::Executor<multihull::SerialExecutor>);
static_assert(!multihull::Executor<std::vector<int>>);

template <class Range>
auto to_vector(Range&& range) {
    std::vector<std::ranges::range_value_t<Range>> values;
    for (auto&& value : range) values.push_back(std::forward<decltype(value)>(value));
    return values;
}

template <class Kind>
class Conformance : public test::ExecutorTest<Kind> {};
TYPED_TEST_SUITE(Conformance, test::AllKinds, test::KindName);

TYPED_TEST(Conformance, submit_gives_a_future_of_the_result) {
    typename TypeParam::Executor executor(1);
    multihull::Future<int> future = executor.submit(square, 12);
    EXPECT_EQ(future.get(), 144);
    EXPECT_EQ(future.get(), 144);
    EXPECT_TRUE(future.ready());
    EXPECT_FALSE(future.exception());
    EXPECT_FALSE(future.cancel());
}

TYPED_TEST(Conformance, what_can_be_called_and_given) {
    typename TypeParam::Executor executor(2);
    EXPECT_EQ(executor.submit([] { return std::string("no arguments"); }).get(), "no arguments");
    EXPECT_EQ(executor.submit([](const std::string& a, std::size_t n) { return a + std::to_string(n); }, "x", 3U).get(),
              "x3");
    EXPECT_EQ(executor.submit([](std::vector<int> v) { return v.size(); }, std::vector<int>(1000)).get(), 1000U);
    executor.submit([] {}).get();
    struct Plus {
        int amount;
        int operator()(int x) const { return x + amount; }
    };
    EXPECT_EQ(executor.submit(Plus{5}, 2).get(), 7);
    EXPECT_EQ(*executor
                   .submit(
                       [](std::unique_ptr<int> p) {
                           ++*p;
                           return p;
                       },
                       std::make_unique<int>(4))
                   .get(),
              5);
}

TYPED_TEST(Conformance, an_argument_by_cref_is_the_value_that_it_refers_to) {
    typename TypeParam::Executor executor(2);
    const auto ends = [](const std::vector<int>& numbers, const std::string& text, const std::list<int>& list) {
        return text + std::to_string(numbers.front()) + std::to_string(numbers.back()) + std::to_string(list.front());
    };
    for (const std::size_t count : {1U, 100U, 30'000U, 300'000U}) {
        std::vector<int> numbers(count);
        std::iota(numbers.begin(), numbers.end(), 0);
        std::string text(count, 't');
        const std::list<int> list{8, 9};
        const auto by_cref = executor.submit(ends, std::cref(numbers), std::ref(text), std::cref(list));
        const auto mixed = executor.submit(ends, std::cref(numbers), text, std::cref(list));
        const std::string expected = text + "0" + std::to_string(count - 1) + "8";
        EXPECT_EQ(by_cref.get(), expected);
        EXPECT_EQ(mixed.get(), expected);
    }
}

TYPED_TEST(Conformance, an_exception_comes_back) {
    typename TypeParam::Executor executor(1);
    const auto future = executor.submit(divide, 1, 0);
    EXPECT_THROW(future.get(), std::domain_error);
    EXPECT_THROW(future.get(), std::domain_error);
    EXPECT_TRUE(future.exception());
    try {
        future.get();
    } catch (const std::exception& error) {
        EXPECT_STREQ(error.what(), "divided by zero");
    }
    EXPECT_EQ(executor.submit(divide, 6, 3).get(), 2);
}

TYPED_TEST(Conformance, map_answers_in_order) {
    typename TypeParam::Executor executor(3);
    std::vector<int> expected(500);
    for (int i = 0; i < 500; ++i) expected[static_cast<std::size_t>(i)] = i * i;
    EXPECT_EQ(to_vector(executor.map(square, std::views::iota(0, 500))), expected);
    std::vector<int> inputs(500);
    std::iota(inputs.begin(), inputs.end(), 0);
    EXPECT_EQ(to_vector(executor.map(square, inputs)), expected);
    EXPECT_EQ(to_vector(executor.map(square, std::list<int>(inputs.begin(), inputs.end()))), expected);
    EXPECT_TRUE(to_vector(executor.map(square, std::vector<int>{})).empty());
}

TYPED_TEST(Conformance, map_takes_several_ranges_together_until_the_shortest_ends) {
    typename TypeParam::Executor executor(2);
    const std::vector<int> powers{2, 3, 4, 5};
    const auto power = [](int base, int exponent) {
        int result = 1;
        for (int i = 0; i < exponent; ++i) result *= base;
        return result;
    };
    EXPECT_EQ(to_vector(executor.map(power, std::views::iota(1), powers)), (std::vector{1, 8, 81, 1024}));
    EXPECT_EQ(to_vector(executor.map({.chunksize = 3}, power, std::views::iota(1), powers)),
              (std::vector{1, 8, 81, 1024}));
    EXPECT_EQ(to_vector(executor.map(power, powers, std::array{0, 1}, {.buffersize = 1})), (std::vector{1, 3}));
    const auto words = [](const std::string& a, int n, char c) {
        return a + std::string(static_cast<std::size_t>(n), c);
    };
    EXPECT_EQ(to_vector(executor.map(words, std::vector<std::string>{"a", "b"}, std::views::iota(1, 3),
                                     std::string("xy"))),
              (std::vector<std::string>{"ax", "byy"}));
}

TYPED_TEST(Conformance, map_in_chunks_is_the_same) {
    typename TypeParam::Executor executor(2);
    const auto expected = to_vector(executor.map(square, std::views::iota(0, 40)));
    for (const std::size_t chunk : {1U, 6U, 40U, 41U, 1000U}) {
        EXPECT_EQ(to_vector(executor.map(square, std::views::iota(0, 40), {.chunksize = chunk})), expected) << chunk;
    }
    EXPECT_THROW(executor.map(square, std::views::iota(0, 40), {.chunksize = 0}), std::invalid_argument);
}

TYPED_TEST(Conformance, map_throws_in_the_failed_ones_place_and_goes_on) {
    typename TypeParam::Executor executor(2);
    for (const std::size_t chunk : {1U, 3U}) {
        auto results = executor.map(divide, std::vector{4, 4, 4, 4}, std::vector{1, 2, 0, 4}, {.chunksize = chunk});
        auto place = results.begin();
        EXPECT_EQ(*place, 4);
        EXPECT_EQ(*++place, 2);
        ++place;
        EXPECT_THROW(*place, std::domain_error);
        EXPECT_EQ(*++place, 1);
        EXPECT_EQ(++place, results.end());
    }
}

TYPED_TEST(Conformance, map_takes_from_an_endless_range_what_is_read) {
    typename TypeParam::Executor executor(2);
    std::size_t taken = 0;
    auto inputs = std::views::iota(0) | std::views::transform([&](int i) { return ++taken, i; });
    auto results = executor.map(square, inputs);
    auto place = results.begin();
    for (int i = 0; i < 100; ++i, ++place) EXPECT_EQ(*place, i * i);
    EXPECT_LT(taken, 1000U);
}

TYPED_TEST(Conformance, a_buffer_limits_what_is_submitted_ahead) {
    typename TypeParam::Executor executor(2);
    for (const std::size_t chunk : {1U, 2U}) {
        std::size_t taken = 0;
        std::vector<int> numbers(100);
        std::iota(numbers.begin(), numbers.end(), 0);
        auto inputs = numbers | std::views::transform([&](int i) { return ++taken, i; });
        auto results = executor.map(square, inputs, {.chunksize = chunk, .buffersize = 4});
        const std::size_t unit = TestFixture::kProcesses ? chunk : 1;
        EXPECT_EQ(taken, 4 * unit);
        auto place = results.begin();
        for (int i = 0; i < 100; ++i, ++place) {
            EXPECT_EQ(*place, i * i);
            EXPECT_LE(taken, static_cast<std::size_t>(i) + 1 + 5 * unit);
        }
        EXPECT_EQ(taken, 100U);
    }
}

TYPED_TEST(Conformance, an_input_that_fails_ends_the_map_in_its_place) {
    typename TypeParam::Executor executor(2);
    for (const std::size_t chunk : {1U, 2U, 5U}) {
        auto inputs = std::views::iota(0, 10) | std::views::transform([](int i) {
                          if (i == 3) throw std::runtime_error("no more inputs");
                          return i;
                      });
        auto results = executor.map(square, inputs, {.chunksize = chunk});
        auto place = results.begin();
        EXPECT_EQ(*place, 0);
        EXPECT_EQ(*++place, 1);
        EXPECT_EQ(*++place, 4);
        ++place;
        EXPECT_THROW(*place, std::runtime_error);
        EXPECT_EQ(++place, results.end());
    }
}

TYPED_TEST(Conformance, results_of_a_map_outlive_the_executor) {
    auto results = [] {
        typename TypeParam::Executor executor(2);
        return executor.map(square, std::views::iota(0, 50));
    }();
    int i = 0;
    for (const int y : results) {
        EXPECT_EQ(y, i * i);
        ++i;
    }
    EXPECT_EQ(i, 50);
}

TYPED_TEST(Conformance, futures_outlive_the_executor) {
    std::vector<multihull::Future<int>> futures;
    multihull::Future<int> failed;
    {
        typename TypeParam::Executor executor(2);
        for (int i = 0; i < 20; ++i) futures.push_back(executor.submit(square, i));
        failed = executor.submit(divide, 1, 0);
    }
    for (int i = 0; i < 20; ++i) {
        EXPECT_TRUE(futures[static_cast<std::size_t>(i)].ready());
        EXPECT_EQ(futures[static_cast<std::size_t>(i)].get(), i * i);
    }
    EXPECT_THROW(failed.get(), std::domain_error);
    bool called = false;
    failed.add_done_callback([&](const auto&) { called = true; });
    EXPECT_TRUE(called);
    EXPECT_EQ(multihull::wait(futures, multihull::ALL_COMPLETED).done.size(), 20U);
}

TYPED_TEST(Conformance, after_shutdown_nothing_is_taken) {
    typename TypeParam::Executor executor(2);
    const auto future = executor.submit(square, 3);
    executor.shutdown();
    executor.shutdown();
    executor.shutdown(false, true);
    EXPECT_THROW(executor.submit(square, 2), multihull::PoolClosed);
    EXPECT_THROW(executor.map(square, std::views::iota(0, 3)), multihull::PoolClosed);
    EXPECT_EQ(future.get(), 9);
}

TYPED_TEST(Conformance, shutdown_without_waiting_finishes_the_work) {
    std::vector<multihull::Future<int>> futures;
    {
        typename TypeParam::Executor executor(2);
        for (int i = 0; i < 50; ++i) futures.push_back(executor.submit(square, i));
        executor.shutdown(false);
        EXPECT_THROW(executor.submit(square, 2), multihull::PoolClosed);
    }
    for (int i = 0; i < 50; ++i) EXPECT_EQ(futures[static_cast<std::size_t>(i)].get(), i * i);
}

TYPED_TEST(Conformance, an_executor_of_no_workers_is_refused) {
    EXPECT_THROW(typename TypeParam::Executor(0), std::invalid_argument);
}

TYPED_TEST(Conformance, callbacks_come_in_order_with_the_future) {
    typename TypeParam::Executor executor(1);
    std::mutex mutex;
    std::vector<int> order;
    if (!TestFixture::kProcesses && !TestFixture::kThreads) this->board_[test::kLetGo] = 1;
    const auto future = executor.submit(test::hold, this->board_.path(), 25);
    for (int i = 0; i < 5; ++i) {
        future.add_done_callback([&, i](const multihull::Future<int>& done) {
            EXPECT_EQ(done.get(), 25);
            const std::lock_guard guard(mutex);
            order.push_back(i);
        });
    }
    this->board_[test::kLetGo] = 1;
    executor.shutdown();
    EXPECT_EQ(order, (std::vector{0, 1, 2, 3, 4}));
}

TYPED_TEST(Conformance, what_a_callback_throws_is_logged_and_no_more) {
    std::mutex mutex;
    std::vector<std::string> said;
    multihull::set_log_sink([&](multihull::LogLevel, std::string_view text) {
        const std::lock_guard guard(mutex);
        said.emplace_back(text);
    });
    {
        typename TypeParam::Executor executor(1);
        std::atomic<bool> second{false};
        const auto future = executor.submit(square, 5);
        future.add_done_callback([](const auto&) { throw std::runtime_error("from the callback"); });
        future.add_done_callback([](const auto&) { throw 5; });
        future.add_done_callback([&](const auto&) { second = true; });
        executor.shutdown();
        EXPECT_TRUE(second);
        EXPECT_EQ(future.get(), 25);
        EXPECT_NO_THROW(future.add_done_callback([](const auto&) { throw std::runtime_error("afterwards"); }));
    }
    multihull::set_log_sink({});
    std::size_t about_it = 0;
    for (const std::string& text : said) about_it += text.find("callback threw") != std::string::npos ? 1 : 0;
    EXPECT_EQ(about_it, 3U);
}

TYPED_TEST(Conformance, then_goes_on_with_the_value) {
    typename TypeParam::Executor executor(1);
    EXPECT_EQ(executor.submit(square, 3).then([](int x) { return std::to_string(x); }).get(), "9");
    EXPECT_THROW(executor.submit(divide, 3, 0).then([](int x) { return x; }).get(), std::domain_error);
}

TYPED_TEST(Conformance, an_executor_that_did_nothing_ends) {
    for (int i = 0; i < 3; ++i) typename TypeParam::Executor executor(4);
}

TYPED_TEST(Conformance, many_threads_may_submit) {
    typename TypeParam::Executor executor(2);
    std::vector<std::thread> threads;
    std::atomic<long> sum{0};
    for (int t = 0; t < 4; ++t) {
        threads.emplace_back([&, t] {
            std::vector<multihull::Future<int>> futures;
            for (int i = 0; i < 100; ++i) futures.push_back(executor.submit(square, t * 100 + i));
            for (const auto& future : futures) sum += future.get();
        });
    }
    for (auto& thread : threads) thread.join();
    long expected = 0;
    for (long i = 0; i < 400; ++i) expected += i * i;
    EXPECT_EQ(sum, expected);
}

// What only executors show whose tasks run beside the caller.
template <class Kind>
class Beside : public test::ExecutorTest<Kind> {};
TYPED_TEST_SUITE(Beside, test::ParallelKinds, test::KindName);

TYPED_TEST(Beside, get_waits_no_longer_than_it_may) {
    typename TypeParam::Executor executor(1);
    const auto future = executor.submit(test::hold, this->board_.path(), 7);
    EXPECT_THROW(future.get(0s), multihull::WaitTimeout);
    EXPECT_THROW(future.get(1ms), multihull::WaitTimeout);
    EXPECT_FALSE(future.ready());
    this->board_[test::kLetGo] = 1;
    EXPECT_EQ(future.get(), 7);
}

TYPED_TEST(Beside, a_waiting_task_can_be_cancelled) {
    typename TypeParam::Executor executor(1);
    const auto held = executor.submit(test::hold, this->board_.path(), 7);
    ASSERT_TRUE(this->board_.wait_until_at_least(test::kHeld, 1));
    const auto waiting = executor.submit(test::hold, this->board_.path(), 8);
    std::atomic<int> called{0};
    waiting.add_done_callback([&](const auto&) { ++called; });
    EXPECT_TRUE(waiting.cancel());
    EXPECT_FALSE(waiting.cancel());
    EXPECT_TRUE(waiting.ready());
    EXPECT_THROW(waiting.get(), multihull::Cancelled);
    this->board_[test::kLetGo] = 1;
    EXPECT_EQ(held.get(), 7);
    executor.shutdown();
    EXPECT_EQ(called, 1);
    EXPECT_EQ(this->board_[test::kHeld], 1);
}

TYPED_TEST(Beside, a_running_task_is_ended_where_that_is_possible) {
    typename TypeParam::Executor executor(1);
    const auto held = executor.submit(test::hold, this->board_.path(), 7);
    ASSERT_TRUE(this->board_.wait_until_at_least(test::kHeld, 1));
    EXPECT_EQ(held.cancel(), TestFixture::kProcesses);
    if (TestFixture::kProcesses) {
        EXPECT_THROW(held.get(), multihull::Cancelled);
    } else {
        this->board_[test::kLetGo] = 1;
        EXPECT_EQ(held.get(), 7);
    }
}

TYPED_TEST(Beside, a_map_is_not_waited_for_longer_than_its_time) {
    typename TypeParam::Executor executor(1);
    for (const auto timeout : {0ns, 5'000'000ns}) {
        auto results = executor.map({.timeout = timeout}, test::hold,
                                    std::vector{this->board_.path(), this->board_.path()}, std::vector{1, 2});
        auto place = results.begin();
        EXPECT_THROW(*place, multihull::WaitTimeout);
    }
    this->board_[test::kLetGo] = 1;
}

TYPED_TEST(Beside, a_map_that_is_dropped_cancels_what_waits) {
    typename TypeParam::Executor executor(1);
    {
        const std::vector<std::string> paths(20, this->board_.path());
        auto results = executor.map(test::hold, paths, std::views::iota(0));
        ASSERT_TRUE(this->board_.wait_until_at_least(test::kHeld, 1));
    }
    this->board_[test::kLetGo] = 1;
    executor.shutdown();
    EXPECT_EQ(this->board_[test::kHeld], 1);
}

TYPED_TEST(Beside, shutdown_can_cancel_what_waits) {
    typename TypeParam::Executor executor(1);
    std::vector<multihull::Future<int>> futures;
    for (int i = 0; i < 10; ++i) futures.push_back(executor.submit(test::hold, this->board_.path(), i));
    ASSERT_TRUE(this->board_.wait_until_at_least(test::kHeld, 1));
    executor.shutdown(false, true);
    for (std::size_t i = 1; i < 10; ++i) {
        EXPECT_TRUE(futures[i].ready());
        EXPECT_THROW(futures[i].get(), multihull::Cancelled);
    }
    EXPECT_FALSE(futures[0].ready());
    this->board_[test::kLetGo] = 1;
    executor.shutdown();
    EXPECT_EQ(futures[0].get(), 0);
    EXPECT_EQ(this->board_[test::kHeld], 1);
}

TYPED_TEST(Beside, shutdown_cancels_chunks_of_a_map_that_wait) {
    typename TypeParam::Executor executor(1);
    auto results = executor.map({.chunksize = 2}, test::hold, std::vector<std::string>(8, this->board_.path()),
                                std::views::iota(0));
    ASSERT_TRUE(this->board_.wait_until_at_least(test::kHeld, 1));
    executor.shutdown(false, true);
    this->board_[test::kLetGo] = 1;
    std::size_t values = 0;
    std::size_t cancelled = 0;
    for (auto place = results.begin(); place != results.end(); ++place) {
        try {
            EXPECT_EQ(*place, static_cast<int>(values));
            ++values;
        } catch (const multihull::Cancelled&) {
            ++cancelled;
        }
    }
    EXPECT_EQ(values, TestFixture::kProcesses ? 2U : 1U);
    EXPECT_GE(cancelled, 3U);
}

TYPED_TEST(Beside, any_number_of_threads_may_shut_down) {
    for (int round = 0; round < 10; ++round) {
        typename TypeParam::Executor executor(2);
        std::vector<multihull::Future<int>> futures;
        for (int i = 0; i < 20; ++i) futures.push_back(executor.submit(square, i));
        std::vector<std::thread> threads;
        std::atomic<int> early{0};
        for (int t = 0; t < 4; ++t) {
            threads.emplace_back([&] {
                executor.shutdown();
                for (const auto& future : futures) early += future.ready() ? 0 : 1;
            });
        }
        for (auto& thread : threads) thread.join();
        EXPECT_EQ(early, 0);
    }
}

TYPED_TEST(Beside, as_many_tasks_run_at_once_as_there_are_workers) {
    typename TypeParam::Executor executor(3);
    std::vector<multihull::Future<int>> futures;
    for (int i = 0; i < 5; ++i) futures.push_back(executor.submit(test::hold, this->board_.path(), i));
    EXPECT_TRUE(this->board_.wait_until_at_least(test::kHeld, 3));
    EXPECT_EQ(this->board_[test::kHeld], 3);
    this->board_[test::kLetGo] = 1;
    executor.shutdown();
    EXPECT_EQ(this->board_[test::kHeld], 5);
}

}    // namespace
