// Time-outs, CPU time, memory, retries, and workers that are replaced in good time.
#include "support/board.hpp"
#include "support/sanitizer.hpp"
#include "support/start_methods.hpp"

#include <multihull/pool.hpp>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <map>
#include <new>
#include <set>
#include <stdexcept>
#include <string>
#include <thread>
#include <type_traits>
#include <unistd.h>
#include <vector>

namespace {

using namespace std::chrono_literals;
using multihull::Pool;
using multihull::RetryOn;
using test::Board;
using test::thrown_by;

int square(int x) { return x * x; }

__attribute__((noinline)) int spin_for_ever(int x) {
    for (volatile bool forever = true; forever;) {}
    return x;
}

int sleep_for_ever(int x) {
    for (;;) ::pause();
    return x;
}

int block_all_signals_and_spin(int x) {
    sigset_t all;
    sigfillset(&all);
    sigprocmask(SIG_SETMASK, &all, nullptr);
    return spin_for_ever(x);
}

int spin_on_three(int x) { return x == 3 ? spin_for_ever(x) : x; }

std::size_t eat(std::size_t bytes) {
    std::vector<char> hog(bytes, 'x');
    asm volatile("" : : "r"(hog.data()) : "memory");    // or clang makes none
    return hog.size();
}

std::size_t eat_on_three(int x) { return eat(x == 3 ? std::size_t{2} << 30 : 1024); }

// Fails in its own way until the given attempt; then gives the number of that attempt.
enum class Way { crash, exit, exception, memory, timeout, cpu };
int fail_until(const std::string& path, Way way, int good_attempt) {
    const auto attempt = static_cast<int>(++Board(path)[0]);
    if (attempt >= good_attempt) return attempt;
    switch (way) {
        case Way::crash:
            ::raise(SIGSEGV);
            break;
        case Way::exit:
            std::exit(3);
        case Way::exception:
            throw std::out_of_range("attempt " + std::to_string(attempt));
        case Way::memory:
            throw std::bad_alloc();
        case Way::timeout:
            return sleep_for_ever(0);
        case Way::cpu:
            return spin_for_ever(0);
    }
    return -1;
}

// Of an element, counted in its own cell: the first attempts end in a crash.
struct CrashTwice {
    std::string board;
    int operator()(int x) const {
        if (++Board(board)[static_cast<std::size_t>(x)] <= 2 && x % 10 == 0) ::raise(SIGKILL);
        return x;
    }
};

struct ThrowTwice {
    std::string board;
    int operator()(int x) const {
        if (++Board(board)[static_cast<std::size_t>(x)] <= 2 && x % 10 == 0) throw std::runtime_error("again");
        return x;
    }
};

class LimitsTest : public test::StartMethodTest {
protected:
    Board board_;
};
INSTANTIATE_TEST_SUITE_P(EachStartMethod, LimitsTest, test::each_start_method(), test::start_method_name);

TEST_P(LimitsTest, a_task_that_takes_too_long_is_ended_with_the_stack_it_was_stuck_in) {
    Pool pool({.processes = 1, .task_timeout = 100ms});
    const auto error = thrown_by<multihull::TaskTimeout>([&] { pool.apply(spin_for_ever, 1); });
    EXPECT_EQ(error.limit(), 100ms);
    if (test::kSignalsArriveAtOnce) {
        EXPECT_THAT(error.stack().to_string(), testing::HasSubstr("spin_for_ever"));
    }
    EXPECT_NE(std::string(error.what()).find("0.1 s"), std::string::npos) << error.what();
    EXPECT_EQ(pool.apply(square, 3), 9);
    EXPECT_THROW(pool.apply(sleep_for_ever, 1), multihull::TaskTimeout);
    EXPECT_EQ(pool.apply(square, 4), 16);
}

TEST_P(LimitsTest, a_task_that_blocks_every_signal_is_ended_without_a_stack) {
    Pool pool({.processes = 1, .task_timeout = 50ms});
    const auto error = thrown_by<multihull::TaskTimeout>([&] { pool.apply(block_all_signals_and_spin, 1); });
    EXPECT_TRUE(error.stack().empty());
    EXPECT_EQ(pool.apply(square, 3), 9);
}

TEST_P(LimitsTest, a_task_has_a_time_limit_of_its_own) {
    Pool pool(1);
    EXPECT_THROW(pool.apply({.timeout = 50ms}, sleep_for_ever, 1), multihull::TaskTimeout);
    EXPECT_EQ(pool.apply({.timeout = 60s}, square, 3), 9);
    Pool strict({.processes = 1, .task_timeout = 50ms});
    const auto held = strict.apply_async({.timeout = 0s}, test::hold, board_.path(), 5);
    ASSERT_TRUE(board_.wait_until_at_least(test::kHeld, 1));
    EXPECT_FALSE(held.wait_for(200ms));    // 0 is no limit, whatever the pool's own is
    board_[test::kLetGo] = 1;
    EXPECT_EQ(held.get(), 5);
}

TEST_P(LimitsTest, a_short_limit_is_kept_beside_a_long_one) {
    Pool pool({.processes = 2, .task_timeout = 1h});
    const auto held = pool.apply_async(test::hold, board_.path(), 1);
    ASSERT_TRUE(board_.wait_until_at_least(test::kHeld, 1));
    for (int round = 0; round < 3; ++round) {
        EXPECT_EQ(pool.apply(square, 3), 9);
        EXPECT_THROW(pool.apply({.timeout = 20ms}, sleep_for_ever, 1), multihull::TaskTimeout);
    }
    board_[test::kLetGo] = 1;
    EXPECT_EQ(held.get(), 1);
}

// How often the thread that watches over the workers has gone to sleep.
long sleeps_of_supervisor() {
    for (const auto& entry : std::filesystem::directory_iterator("/proc/self/task")) {
        std::string name;
        std::ifstream(entry.path() / "comm") >> name;
        if (name != "mh-supervisor") continue;
        std::ifstream status(entry.path() / "status");
        for (std::string word; status >> word;) {
            long count = 0;
            if (word == "voluntary_ctxt_switches:" && status >> count) return count;
        }
    }
    return -1;
}

TEST_P(LimitsTest, a_short_limit_costs_nothing_when_its_tasks_have_ended) {
    Pool pool({.processes = 2, .task_timeout = 1h});
    EXPECT_THROW(pool.apply({.timeout = 1ms}, sleep_for_ever, 1), multihull::TaskTimeout);
    const auto kept = pool.apply_async({.timeout = 30s}, square, 2);
    EXPECT_EQ(kept.get(), 4);
    const auto held = pool.apply_async(test::hold, board_.path(), 1);
    ASSERT_TRUE(board_.wait_until_at_least(test::kHeld, 1));
    EXPECT_TRUE(test::eventually([] {
        const long before = sleeps_of_supervisor();
        std::this_thread::sleep_for(100ms);
        return before > 0 && sleeps_of_supervisor() - before < 10;
    }));
    board_[test::kLetGo] = 1;
    EXPECT_EQ(held.get(), 1);
}

TEST_P(LimitsTest, waiting_in_the_queue_counts_for_nothing) {
    Pool pool(1);
    const auto held = pool.apply_async(test::hold, board_.path(), 1);
    ASSERT_TRUE(board_.wait_until_at_least(test::kHeld, 1));
    const auto behind = pool.apply_async({.timeout = 2s}, square, 5);
    EXPECT_FALSE(behind.wait_for(2100ms));
    board_[test::kLetGo] = 1;
    EXPECT_EQ(behind.get(), 25);
}

TEST_P(LimitsTest, time_outs_count_for_each_element_of_a_map) {
    Pool pool({.processes = 2, .task_timeout = 300ms});
    const auto nap = [](int x) {
        ::usleep(20'000);
        return x;
    };
    // Longer than the limit as a whole.
    EXPECT_EQ(pool.map(nap, std::views::iota(0, 60)).size(), 60u);
    EXPECT_THROW(pool.map(spin_on_three, std::views::iota(0, 20)), multihull::TaskTimeout);
    auto range = pool.imap(spin_on_three, std::views::iota(0, 8), {.chunksize = 8});
    for (int i = 0; i < 8; ++i) {
        if (i == 3) {
            const auto error = thrown_by<multihull::TaskTimeout>([&] { range.next(); });
            if (test::kSignalsArriveAtOnce) {
                EXPECT_THAT(error.stack().to_string(), testing::HasSubstr("spin_for_ever"));
            }
        } else {
            EXPECT_EQ(range.next(), i);
        }
    }
}

TEST_P(LimitsTest, many_tasks_at_their_limit_are_told_apart) {
    Pool pool({.processes = 3, .task_timeout = 60ms});
    std::vector<multihull::Future<int>> futures;
    for (int i = 0; i < 24; ++i) futures.push_back(pool.apply_async(i % 4 == 0 ? sleep_for_ever : square, i));
    for (int i = 0; i < 24; ++i) {
        const auto& future = futures[static_cast<std::size_t>(i)];
        if (i % 4 == 0) {
            EXPECT_THROW(future.get(), multihull::TaskTimeout) << i;
        } else {
            EXPECT_EQ(future.get(), i * i);
        }
    }
}

TEST_P(LimitsTest, cpu_time_is_limited) {
    Pool pool({.processes = 2, .limits = {.cpu_time = 100ms}});
    const auto error = thrown_by<multihull::CpuTimeExceeded>([&] { pool.apply(spin_for_ever, 1); });
    EXPECT_EQ(error.limit(), 100ms);
    if (test::kSignalsArriveAtOnce) {
        EXPECT_THAT(error.stack().to_string(), testing::HasSubstr("spin_for_ever"));
    }
    // What waits uses none.
    const auto held = pool.apply_async(test::hold, board_.path(), 1);
    ASSERT_TRUE(board_.wait_until_at_least(test::kHeld, 1));
    EXPECT_THROW(pool.map(spin_on_three, std::views::iota(0, 10)), multihull::CpuTimeExceeded);
    Pool unlimited(1);
    EXPECT_THROW(unlimited.apply({.cpu_time = 50ms}, spin_for_ever, 1), multihull::CpuTimeExceeded);
    board_[test::kLetGo] = 1;
    EXPECT_EQ(held.get(), 1);
}

TEST_P(LimitsTest, memory_is_limited_for_the_pool) {
    Pool pool({.processes = 2, .limits = {.memory = std::size_t{256} << 20}});
    EXPECT_THROW(pool.apply(eat, std::size_t{1} << 30), test::OutOfMemory);
    EXPECT_EQ(pool.apply(eat, std::size_t{16} << 20), std::size_t{16} << 20);
    EXPECT_THROW(pool.map(eat_on_three, std::views::iota(0, 10)), test::OutOfMemory);
    auto range = pool.imap(eat_on_three, std::views::iota(0, 6), {.chunksize = 6});
    for (int i = 0; i < 6; ++i) {
        if (i == 3) {
            EXPECT_THROW(range.next(), test::OutOfMemory);
        } else {
            EXPECT_EQ(range.next(), 1024u);
        }
    }
}

TEST_P(LimitsTest, memory_is_limited_for_a_task) {
    Pool pool(1);
    EXPECT_THROW(pool.apply({.memory = std::size_t{64} << 20}, eat, std::size_t{256} << 20), test::OutOfMemory);
    EXPECT_EQ(pool.apply(eat, std::size_t{256} << 20), std::size_t{256} << 20);
    Pool strict({.processes = 1, .limits = {.memory = std::size_t{64} << 20}});
    EXPECT_THROW(strict.apply(eat, std::size_t{256} << 20), test::OutOfMemory);
    EXPECT_EQ(strict.apply({.memory = std::size_t{1} << 30}, eat, std::size_t{256} << 20), std::size_t{256} << 20);
    EXPECT_EQ(strict.apply({.memory = std::size_t{0}}, eat, std::size_t{256} << 20), std::size_t{256} << 20);
    EXPECT_THROW(strict.apply(eat, std::size_t{256} << 20), test::OutOfMemory);
}

TEST_P(LimitsTest, the_arrays_of_a_map_dont_count) {
    Pool pool({.processes = 1, .limits = {.memory = std::size_t{16} << 20}});
    const std::vector<std::int64_t> inputs(std::size_t{8} << 20, 5);
    EXPECT_EQ(pool.map([](std::int64_t x) { return x + 1; }, inputs),
              std::vector<std::int64_t>(std::size_t{8} << 20, 6));
    EXPECT_THROW(pool.apply([](const std::vector<std::int64_t>& v) { return v.size(); }, inputs), test::OutOfMemory);
}

TEST_P(LimitsTest, retries_are_for_the_outcomes_that_are_worth_one) {
    struct Case {
        Way way;
        RetryOn worth;
    };
    const Case cases[] = {{Way::crash, RetryOn::crash},         {Way::exit, RetryOn::crash},
                          {Way::exception, RetryOn::exception}, {Way::memory, RetryOn::memory},
                          {Way::memory, RetryOn::exception},    {Way::timeout, RetryOn::timeout},
                          {Way::cpu, RetryOn::timeout}};
    Pool pool({.processes = 1, .task_timeout = test::kTsan ? 2000ms : 400ms, .limits = {.cpu_time = 150ms}});
    for (const auto& [way, worth] : cases) {
        if (test::kTsan && way == Way::memory) continue;    // it takes longer to say so than the task may run
        board_[0] = 0;
        EXPECT_EQ(pool.apply({.retries = 2, .retry_on = worth}, fail_until, board_.path(), way, 3), 3)
            << static_cast<int>(way);
        EXPECT_EQ(board_[0], 3);
        // One attempt more would have been needed.
        board_[0] = 0;
        EXPECT_THROW(pool.apply({.retries = 1, .retry_on = worth}, fail_until, board_.path(), way, 3), std::exception);
        EXPECT_EQ(board_[0], 2);
    }
}

TEST_P(LimitsTest, what_is_not_worth_a_retry_gets_none) {
    Pool pool({.processes = 1, .task_timeout = 400ms, .limits = {.cpu_time = 150ms}, .retries = 3});
    const auto attempts = [&](Way way, RetryOn worth) {
        board_[0] = 0;
        EXPECT_THROW(pool.apply({.retry_on = worth}, fail_until, board_.path(), way, 9), std::exception);
        return board_[0].load();
    };
    EXPECT_EQ(attempts(Way::crash, RetryOn::timeout | RetryOn::exception), 1);
    EXPECT_EQ(attempts(Way::exception, RetryOn::crash | RetryOn::timeout | RetryOn::memory), 1);
    EXPECT_EQ(attempts(Way::memory, RetryOn::crash | RetryOn::timeout), 1);
    EXPECT_EQ(attempts(Way::timeout, RetryOn::crash | RetryOn::exception), 1);
    EXPECT_EQ(attempts(Way::cpu, RetryOn::nothing), 1);
    // The pool's own default: crashes and time-outs.
    board_[0] = 0;
    EXPECT_THROW(pool.apply(fail_until, board_.path(), Way::crash, 9), multihull::WorkerCrashed);
    EXPECT_EQ(board_[0], 4);
    board_[0] = 0;
    EXPECT_THROW(pool.apply(fail_until, board_.path(), Way::exception, 9), std::out_of_range);
    EXPECT_EQ(board_[0], 1);
    board_[0] = 0;
    EXPECT_THROW(pool.apply({.retries = 0}, fail_until, board_.path(), Way::crash, 9), multihull::WorkerCrashed);
    EXPECT_EQ(board_[0], 1);
}

TEST_P(LimitsTest, retries_count_for_each_element_of_a_map) {
    Pool pool({.processes = 2, .retries = 2});
    for (const std::size_t chunksize : {0u, 1u, 16u}) {
        for (std::size_t i = 0; i < 50; ++i) board_[i] = 0;
        const auto results = pool.map(CrashTwice{board_.path()}, std::views::iota(0, 50), {.chunksize = chunksize});
        for (int i = 0; i < 50; ++i) {
            ASSERT_EQ(results[static_cast<std::size_t>(i)], i);
            ASSERT_EQ(board_[static_cast<std::size_t>(i)], i % 10 == 0 ? 3 : 1) << i << ", chunksize " << chunksize;
        }
        for (std::size_t i = 0; i < 50; ++i) board_[i] = 0;
        pool.map(ThrowTwice{board_.path()}, std::views::iota(0, 50),
                 {.retry_on = RetryOn::exception, .chunksize = chunksize});
        for (int i = 0; i < 50; ++i) ASSERT_EQ(board_[static_cast<std::size_t>(i)], i % 10 == 0 ? 3 : 1) << i;
    }
}

TEST_P(LimitsTest, memory_limits_and_retries_work_together) {
    constexpr RetryOn kWorth = std::is_same_v<test::OutOfMemory, std::bad_alloc> ? RetryOn::memory : RetryOn::crash;
    Pool pool({.processes = 1, .limits = {.memory = std::size_t{64} << 20}, .retries = 2, .retry_on = kWorth});
    const auto eat_until = [](const std::string& path, std::size_t bytes) {
        const auto attempt = ++Board(path)[0];
        return eat(attempt < 3 ? bytes : 10);
    };
    EXPECT_EQ(pool.apply(eat_until, board_.path(), std::size_t{1} << 30), 10u);
    EXPECT_EQ(board_[0], 3);
    board_[0] = -1000;
    EXPECT_THROW(pool.apply(eat_until, board_.path(), std::size_t{1} << 30), test::OutOfMemory);
    EXPECT_EQ(board_[0], -997);
    EXPECT_EQ(pool.apply(square, 2), 4);
}

TEST_P(LimitsTest, workers_are_replaced_after_their_number_of_tasks) {
    Pool pool({.processes = 2, .max_tasks_per_child = 3});
    std::vector<multihull::Future<std::pair<int, int>>> futures;
    for (int i = 0; i < 60; ++i)
        futures.push_back(pool.apply_async([](int x) { return std::pair(x, static_cast<int>(::getpid())); }, i));
    std::map<int, int> tasks_of;
    for (int i = 0; i < 60; ++i) {
        const auto [value, pid] = futures[static_cast<std::size_t>(i)].get();
        EXPECT_EQ(value, i);
        ++tasks_of[pid];
    }
    EXPECT_GE(tasks_of.size(), 20u);
    for (const auto& [pid, tasks] : tasks_of) EXPECT_LE(tasks, 3);
}

TEST_P(LimitsTest, replacing_workers_neither_loses_nor_delays_tasks) {
    Pool pool({.processes = 1, .max_tasks_per_child = 1});
    for (int i = 0; i < 30; ++i) ASSERT_EQ(pool.apply(square, i), i * i);
    std::vector<multihull::Future<int>> futures;
    for (int i = 0; i < 100; ++i) futures.push_back(pool.apply_async(square, i));
    pool.close();
    for (int i = 0; i < 100; ++i) ASSERT_EQ(futures[static_cast<std::size_t>(i)].get(), i * i);
    pool.join();
    Pool mapping({.processes = 2, .max_tasks_per_child = 1});
    for (int round = 0; round < 10; ++round) {
        EXPECT_EQ(mapping.map(square, std::views::iota(0, 50), {.chunksize = 1}).back(), 49 * 49);
    }
}

TEST_P(LimitsTest, workers_are_replaced_when_they_have_grown) {
    Pool pool({.processes = 1, .max_growth_per_child = std::size_t{32} << 20});
    const auto leak = [](std::size_t bytes) {
        auto* const leaked = new char[bytes];
        std::memset(leaked, 1, bytes);
        asm volatile("" : : "r"(leaked) : "memory");
        return ::getpid();
    };
    std::set<pid_t> pids;
    for (int i = 0; i < 10; ++i) pids.insert(pool.apply(leak, std::size_t{64} << 20));
    EXPECT_EQ(pids.size(), 10u);
    pids.clear();
    for (int i = 0; i < 10; ++i) pids.insert(pool.apply(leak, std::size_t{1024}));
    EXPECT_LE(pids.size(), 2u);
}

}    // namespace
