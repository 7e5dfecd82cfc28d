// What executors of processes do where threads could not: outlive their workers.
#include "executor/kinds.hpp"
#include "support/results.hpp"
#include "support/sanitizer.hpp"

#include <algorithm>
#include <chrono>
#include <csignal>
#include <cstdlib>
#include <functional>
#include <numeric>
#include <ranges>
#include <string>
#include <sys/wait.h>
#include <unistd.h>
#include <utility>
#include <vector>

namespace {

using namespace std::chrono_literals;
using test::square;

template <class Kind>
class ProcessExecutor : public test::ExecutorTest<Kind> {};
TYPED_TEST_SUITE(ProcessExecutor, test::ProcessKinds, test::KindName);

int die_at_three(int x) {
    if (x == 3) ::raise(SIGKILL);
    return x;
}

TYPED_TEST(ProcessExecutor, a_worker_that_dies_costs_its_task) {
    typename TypeParam::Executor executor(2);
    std::vector<multihull::Future<int>> futures;
    for (int i = 0; i < 8; ++i) futures.push_back(executor.submit(die_at_three, i));
    for (int i = 0; i < 8; ++i) {
        const auto& future = futures[static_cast<std::size_t>(i)];
        if (i == 3) {
            EXPECT_EQ(test::thrown_by<multihull::WorkerCrashed>([&] { future.get(); }).signal(), SIGKILL);
        } else {
            EXPECT_EQ(future.get(), i);
        }
    }
    EXPECT_EQ(executor.submit(square, 9).get(), 81);
}

TYPED_TEST(ProcessExecutor, a_worker_that_dies_costs_one_element_of_a_map) {
    typename TypeParam::Executor executor(2);
    for (const std::size_t chunk : {1U, 4U, 100U}) {
        auto results = executor.map(die_at_three, std::views::iota(0, 8), {.chunksize = chunk});
        EXPECT_EQ(test::expect_numbers_but_three<multihull::WorkerCrashed>(std::move(results)), 8);
    }
}

TYPED_TEST(ProcessExecutor, a_map_copies_each_element_that_its_range_refers_to) {
    typename TypeParam::Executor executor(2);
    const auto sum = [](const std::vector<int>& numbers) { return std::accumulate(numbers.begin(), numbers.end(), 0); };
    std::vector<int> buffer(100'000);
    const auto rows = std::views::iota(0, 9) | std::views::transform([&](int i) {
                          std::ranges::fill(buffer, i);
                          return std::cref(buffer);
                      });
    int i = 0;
    for (const int answer : executor.map(sum, rows)) EXPECT_EQ(answer, 100'000 * i++);
    EXPECT_EQ(i, 9);
}

TYPED_TEST(ProcessExecutor, a_task_that_never_ends_is_ended) {
    typename TypeParam::Executor executor({.processes = 1, .task_timeout = 50ms});
    const auto endless = executor.submit([] {
        for (;;) ::pause();
    });
    EXPECT_THROW(endless.get(), multihull::TaskTimeout);
    EXPECT_EQ(executor.submit({.timeout = 120s}, square, 4).get(), 16);
}

TYPED_TEST(ProcessExecutor, a_worker_that_takes_no_sigterm_is_killed) {
    typename TypeParam::Executor executor(1);
    const auto stubborn = executor.submit(
        [](const std::string& path) {
            ::signal(SIGTERM, SIG_IGN);
            return test::hold(path, 1);
        },
        this->board_.path());
    ASSERT_TRUE(this->board_.wait_until_at_least(test::kHeld, 1));
    executor.terminate_workers();
    EXPECT_THROW(stubborn.get(), multihull::Cancelled);
    executor.shutdown();
}

test::Board* heard = nullptr;

TYPED_TEST(ProcessExecutor, a_worker_may_hear_sigterm) {
    typename TypeParam::Executor executor(1);
    const auto polite = executor.submit(
        [](const std::string& path) {
            heard = new test::Board(path);    // a handler must not take memory
            ::signal(SIGTERM, [](int) {
                (*heard)[6] = 1;
                ::_exit(0);
            });
            return test::hold(path, 1);
        },
        this->board_.path());
    ASSERT_TRUE(this->board_.wait_until_at_least(test::kHeld, 1));
    executor.terminate_workers();
    EXPECT_THROW(polite.get(), multihull::Cancelled);
    executor.shutdown();
    EXPECT_EQ(this->board_[6], 1);
}

TYPED_TEST(ProcessExecutor, a_forked_child_can_use_nothing_of_it) {
    if (test::kTsan) GTEST_SKIP() << "it can't start threads in a forked child";
    typename TypeParam::Executor executor(1);
    multihull::ThreadPoolExecutor threads(1);
    threads.submit(square, 1).get();
    const auto future = executor.submit(square, 3);
    const pid_t child = ::fork();
    if (child == 0) {
        int wrong = 0;
        try {
            executor.submit(square, 1);
            ++wrong;
        } catch (const multihull::PoolClosed&) {}
        try {
            threads.submit(square, 1);
            ++wrong;
        } catch (const multihull::PoolClosed&) {}
        try {
            threads.shutdown();
            ++wrong;
        } catch (const multihull::PoolClosed&) {}
        multihull::ProcessPoolExecutor own(1);
        if (own.submit(square, 2).get() != 4) ++wrong;
        multihull::ThreadPoolExecutor own_threads(1);
        if (own_threads.submit(square, 2).get() != 4) ++wrong;
        own.shutdown();
        own_threads.shutdown();
        ::_exit(wrong);
    }
    int status = 0;
    ASSERT_EQ(::waitpid(child, &status, 0), child);
    EXPECT_EQ(status, 0);
    EXPECT_EQ(future.get(), 9);
}

}    // namespace
