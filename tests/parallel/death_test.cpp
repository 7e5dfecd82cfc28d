// Calls that crash, never end, are killed, or wait for each other; and what they leave behind.
#include "parallel/kinds.hpp"
#include "support/results.hpp"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <csignal>
#include <cstdlib>
#include <ranges>
#include <set>
#include <stdexcept>
#include <string>
#include <sys/wait.h>
#include <thread>
#include <unistd.h>
#include <vector>

namespace {

using namespace std::chrono_literals;
using multihull::delayed;
using multihull::Parallel;
using multihull::ParallelOptions;

int die_at_three(int x) {
    if (x == 3) ::raise(SIGSEGV);
    return x;
}
int endless_at_three(int x) {
    while (x == 3) ::pause();
    return x;
}
int value(int x) { return x; }

class ParallelDeath : public test::ParallelTest {};
INSTANTIATE_TEST_SUITE_P(EachWay, ParallelDeath, ::testing::ValuesIn(test::parallel_process_kinds()),
                         test::parallel_kind_name);

TEST_P(ParallelDeath, a_crash_is_thrown_with_its_account) {
    const auto calls = std::views::iota(0, 10) | std::views::transform(delayed(die_at_three));
    const auto crash = test::thrown_by<multihull::WorkerCrashed>([&] { parallel()(calls); });
    EXPECT_EQ(crash.signal(), SIGSEGV);
    int three = 3;
    const auto closure = delayed([&three](int x) {
        if (x == three) ::_exit(7);
        return std::to_string(x);
    });
    const auto left = test::thrown_by<multihull::WorkerCrashed>([&] {
        parallel()(std::views::iota(0, 10) | std::views::transform(closure));
    });
    EXPECT_EQ(left.exit_status(), 7);
    EXPECT_EQ(parallel()(std::views::iota(0, 3) | std::views::transform(delayed(value))), (std::vector{0, 1, 2}));
}

TEST_P(ParallelDeath, a_generator_loses_only_the_call_that_crashed) {
    const auto calls = std::views::iota(0, 10) | std::views::transform(delayed(die_at_three));
    EXPECT_EQ(test::expect_numbers_but_three<multihull::WorkerCrashed>(parallel().generator(calls)), 10);
    std::size_t values = 0;
    std::size_t crashes = 0;
    auto unordered = parallel().generator_unordered(calls);
    for (auto place = unordered.begin(); place != unordered.end(); ++place) {
        try {
            *place;
            ++values;
        } catch (const multihull::WorkerCrashed&) {
            ++crashes;
        }
    }
    EXPECT_EQ(values, 9U);
    EXPECT_EQ(crashes, 1U);
}

TEST_P(ParallelDeath, a_call_that_never_ends_is_ended) {
    const auto limit = [](ParallelOptions& options) { options.timeout = 100ms; };
    const auto calls = std::views::iota(0, 6) | std::views::transform(delayed(endless_at_three));
    EXPECT_THROW(parallel(limit)(calls), multihull::TaskTimeout);
    EXPECT_EQ(test::expect_numbers_but_three<multihull::TaskTimeout>(parallel(limit).generator(calls)), 6);
}

TEST_P(ParallelDeath, a_failure_ends_what_still_runs) {
    if (GetParam().options.pre_dispatch != 0 || GetParam().options.batch_size != 0)
        GTEST_SKIP() << "results are looked at in order, or calls share a batch";
    const auto fail_or_wait = [](const std::string& path, int x) {
        if (x == 0) return test::hold(path, 0);
        test::Board board(path);
        board.wait_until_at_least(test::kHeld, 1);
        throw std::out_of_range("beyond");
    };
    const auto make = [&](int x) { return delayed(fail_or_wait)(board_.path(), x); };
    EXPECT_THROW(parallel()(std::views::iota(0, 2) | std::views::transform(make)), std::out_of_range);
    EXPECT_EQ(board_[test::kLetGo], 0);    // nobody let the first one go: it was ended
}

TEST_P(ParallelDeath, workers_killed_from_outside_cost_their_calls) {
    const auto tell_and_hold = [](const std::string& path, int x) {
        test::Board board(path);
        board[10 + static_cast<std::size_t>(x)] = ::getpid();
        return test::hold(path, x);
    };
    const auto make = [&](int x) { return delayed(tell_and_hold)(board_.path(), x); };
    std::thread killer([&] {
        if (board_.wait_until_at_least(10, 1)) ::kill(static_cast<pid_t>(board_[10].load()), SIGKILL);
        board_[test::kLetGo] = 1;
    });
    EXPECT_THROW(parallel()(std::views::iota(0, 2) | std::views::transform(make)), multihull::WorkerCrashed);
    killer.join();
}

TEST_P(ParallelDeath, a_generator_dropped_while_calls_run_ends_them) {
    const auto make = [&](int x) { return delayed(test::hold)(board_.path(), x); };
    {
        auto results = parallel().generator(std::views::iota(0, 50) | std::views::transform(make));
        ASSERT_TRUE(board_.wait_until_at_least(test::kHeld, 2));
    }
    EXPECT_EQ(parallel()(std::views::iota(0, 2) | std::views::transform(delayed(value))), (std::vector{0, 1}));
}

// Kept workers.

std::vector<int> pids(const ParallelOptions& options) {
    return Parallel(options)(std::views::iota(0, 40) | std::views::transform(delayed([](int) { return ::getpid(); })));
}

bool alive(int pid) { return ::kill(pid, 0) == 0; }

TEST(KeptWorkers, the_next_loop_has_the_same) {
    const auto first = pids({.n_jobs = 2});
    const auto second = pids({.n_jobs = 2});
    const std::set<int> seen(first.begin(), first.end());
    for (const int pid : second) EXPECT_TRUE(alive(pid));
    std::set<int> both = seen;
    both.insert(second.begin(), second.end());
    EXPECT_LE(both.size(), 2U);
    multihull::end_reusable_workers();
    for (const int pid : both) EXPECT_FALSE(alive(pid));
}

TEST(KeptWorkers, a_snapshot_is_of_one_loop) {
    const auto first = pids({.n_jobs = 2, .snapshot = true});
    for (const int pid : first) EXPECT_FALSE(alive(pid));
    EXPECT_FALSE(std::ranges::count(first, ::getpid()));
}

TEST(KeptWorkers, another_number_of_jobs_has_others) {
    const auto first = pids({.n_jobs = 2});
    const auto second = pids({.n_jobs = 3});
    for (const int pid : second) EXPECT_FALSE(std::ranges::count(first, pid));
    EXPECT_TRUE(test::eventually([&] { return std::ranges::none_of(first, alive); }));
    multihull::end_reusable_workers();
    EXPECT_TRUE(std::ranges::none_of(second, alive));
}

TEST(KeptWorkers, leave_when_idle) {
    const auto first = pids({.n_jobs = 2, .idle_timeout = 1ms});
    EXPECT_TRUE(test::eventually([&] { return std::ranges::none_of(first, alive); }));
    EXPECT_EQ(pids({.n_jobs = 2}).size(), 40U);
    multihull::end_reusable_workers();
}

TEST(KeptWorkers, serve_loops_of_several_threads) {
    std::vector<std::thread> threads;
    std::atomic<int> wrong{0};
    for (int t = 0; t < 4; ++t) {
        threads.emplace_back([&, t] {
            for (int round = 0; round < 10; ++round) {
                const auto values =
                    Parallel({.n_jobs = 2 + t / 2})(std::views::iota(0, 20) | std::views::transform(delayed(value)));
                if (values.size() != 20 || values[19] != 19) ++wrong;
            }
        });
    }
    for (auto& thread : threads) thread.join();
    EXPECT_EQ(wrong, 0);
    multihull::end_reusable_workers();
}

TEST(KeptWorkers, a_forked_child_makes_its_own) {
    const auto mine = pids({.n_jobs = 2});
    const pid_t child = ::fork();
    if (child == 0) {
        const auto own = pids({.n_jobs = 2});
        int wrong = own.size() == 40 ? 0 : 1;
        for (const int pid : own) wrong += std::ranges::count(mine, pid) != 0 ? 1 : 0;
        multihull::end_reusable_workers();
        ::_exit(wrong == 0 ? 0 : 1);
    }
    int status = 0;
    ASSERT_EQ(::waitpid(child, &status, 0), child);
    EXPECT_EQ(status, 0);
    EXPECT_TRUE(std::ranges::all_of(mine, alive));
    multihull::end_reusable_workers();
}

// Workers that are still there when a program ends leave with it; this process is such a program, too.
TEST(KeptWorkers, leave_with_the_program) {
    int ends[2];
    ASSERT_EQ(::pipe(ends), 0);
    const pid_t child = ::fork();
    if (child == 0) {
        ::close(ends[0]);
        const auto own = pids({.n_jobs = 2});
        [[maybe_unused]] const auto written = ::write(ends[1], own.data(), own.size() * sizeof(int));
        std::exit(0);
    }
    ::close(ends[1]);
    std::vector<int> theirs(40);
    ASSERT_EQ(::read(ends[0], theirs.data(), theirs.size() * sizeof(int)), 160);
    ::close(ends[0]);
    int status = 0;
    ASSERT_EQ(::waitpid(child, &status, 0), child);
    EXPECT_EQ(status, 0);
    EXPECT_TRUE(test::eventually([&] { return std::ranges::none_of(theirs, alive); }));
}

}    // namespace
