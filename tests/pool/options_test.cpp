// Settings of pools: how many workers, what they begin and end with, and what follows when that fails.
#include "support/board.hpp"
#include "support/start_methods.hpp"

#include <multihull/pool.hpp>

#include <gtest/gtest.h>

#include <csignal>
#include <set>
#include <stdexcept>
#include <string>
#include <unistd.h>
#include <vector>

namespace {

using multihull::Pool;
using test::Board;
using test::thrown_by;

int square(int x) { return x * x; }

int prepared = 0;
std::string greeting;

void prepare(int value) { prepared = value; }
void prepare_more(const std::string& path, int value, std::string text) {
    ++Board(path)[0];
    prepared = value;
    greeting = std::move(text);
}
void say_goodbye(const std::string& path) { ++Board(path)[1]; }
void refuse() { throw std::runtime_error("no database here"); }
void refuse_oddly() { throw 42; }
void crash() { ::raise(SIGSEGV); }
void leave() { ::_exit(4); }

class OptionsTest : public test::StartMethodTest {
protected:
    Board board_;
};
INSTANTIATE_TEST_SUITE_P(EachStartMethod, OptionsTest, test::each_start_method(), test::start_method_name);

TEST_P(OptionsTest, a_pool_has_as_many_workers_as_it_is_told) {
    EXPECT_EQ(Pool().processes(), multihull::cpu_count());
    EXPECT_EQ(Pool(3).processes(), 3u);
    EXPECT_EQ(Pool(multihull::PoolOptions{}).processes(), multihull::cpu_count());
    Board board;
    Pool pool(5);
    std::vector<multihull::Future<int>> futures;
    for (int i = 0; i < 6; ++i) futures.push_back(pool.apply_async(test::hold, board.path(), i));
    // Exactly five run at once.
    ASSERT_TRUE(board.wait_until_at_least(test::kHeld, 5));
    EXPECT_FALSE(futures[5].ready());
    board[test::kLetGo] = 1;
    for (int i = 0; i < 6; ++i) EXPECT_EQ(futures[static_cast<std::size_t>(i)].get(), i);
}

TEST_P(OptionsTest, a_pool_of_no_worker_or_too_many_is_refused) {
    EXPECT_THROW(Pool(0), std::invalid_argument);
    EXPECT_THROW(Pool(100'000), std::invalid_argument);
    EXPECT_THROW(Pool(4097), std::invalid_argument);
    EXPECT_THROW(Pool({.processes = 100'000}), std::invalid_argument);
    EXPECT_THROW(Pool(static_cast<std::size_t>(-1)), std::invalid_argument);
    EXPECT_EQ(Pool(1).apply(square, 2), 4);
}

TEST_P(OptionsTest, many_workers_work) {
    Pool pool(60);
    EXPECT_EQ(pool.map(square, std::views::iota(0, 1000)).back(), 999 * 999);
}

TEST_P(OptionsTest, the_initializer_runs_in_each_worker_before_its_first_task) {
    Pool simple({.processes = 2, .initializer = {prepare, 7}});
    for (int i = 0; i < 20; ++i) ASSERT_EQ(simple.apply([] { return prepared; }), 7);
    Pool pool({.processes = 2,
               .initializer = multihull::call(prepare_more, board_.path(), 8, std::string("hello")),
               .exit_function = {say_goodbye, board_.path()}});
    for (int i = 0; i < 20; ++i) ASSERT_EQ(pool.apply([] { return greeting + std::to_string(prepared); }), "hello8");
    // A worker that follows another is prepared as well.
    EXPECT_THROW(pool.apply(crash), multihull::WorkerCrashed);
    EXPECT_THROW(pool.apply(crash), multihull::WorkerCrashed);
    for (int i = 0; i < 20; ++i) ASSERT_EQ(pool.apply([] { return greeting + std::to_string(prepared); }), "hello8");
    EXPECT_EQ(prepared, 0);
    pool.close();
    pool.join();
    EXPECT_EQ(board_[0], 4);
    EXPECT_EQ(board_[1], 2);
}

TEST_P(OptionsTest, the_exit_function_runs_in_workers_that_leave_in_good_order) {
    {
        Pool pool({.processes = 3, .exit_function = {say_goodbye, board_.path()}});
        pool.map(square, std::views::iota(0, 10));
    }
    EXPECT_EQ(board_[1], 3);
    {
        Pool pool({.processes = 1, .max_tasks_per_child = 2, .exit_function = {say_goodbye, board_.path()}});
        for (int i = 0; i < 8; ++i) pool.apply(square, i);
    }
    EXPECT_GE(board_[1], 3 + 4);
    const auto before = board_[1].load();
    {
        Pool pool({.processes = 2, .exit_function = {say_goodbye, board_.path()}});
        pool.apply(square, 1);
        pool.terminate();
    }
    EXPECT_EQ(board_[1], before);
}

TEST_P(OptionsTest, an_exit_function_that_fails_costs_nothing) {
    for (void (*bad)() : {refuse, refuse_oddly, crash, leave}) {
        Pool pool({.processes = 2, .exit_function = bad});
        EXPECT_EQ(pool.map(square, {1, 2, 3}), (std::vector{1, 4, 9}));
        pool.close();
        pool.join();
    }
}

TEST_P(OptionsTest, an_initializer_that_throws_breaks_the_pool_with_its_reason) {
    Pool pool({.processes = 2, .initializer = refuse});
    const auto error = thrown_by<multihull::BrokenPool>([&] { pool.apply(square, 1); });
    EXPECT_NE(std::string(error.what()).find("no database here"), std::string::npos) << error.what();
    EXPECT_THROW(pool.apply(square, 1), multihull::BrokenPool);
    EXPECT_THROW(pool.map(square, {1, 2}), multihull::BrokenPool);
    EXPECT_THROW(pool.imap(square, std::views::iota(0)).next(), multihull::BrokenPool);
    EXPECT_THROW(pool.imap_unordered(square, std::views::iota(0)).next(), multihull::BrokenPool);
}

TEST_P(OptionsTest, an_initializer_that_crashes_leaves_or_throws_oddly_breaks_the_pool) {
    for (void (*bad)() : {crash, leave, refuse_oddly}) {
        Pool pool({.processes = 2, .initializer = bad});
        std::vector<multihull::Future<int>> futures;
        try {
            for (int i = 0; i < 10; ++i) futures.push_back(pool.apply_async(square, i));
        } catch (const multihull::BrokenPool&) {
            // It broke while it was given tasks.
        }
        for (const auto& future : futures) EXPECT_THROW(future.get(), multihull::BrokenPool);
        EXPECT_TRUE(test::eventually([&] {
            try {
                pool.apply(square, 1);
            } catch (const multihull::BrokenPool&) {
                return true;
            }
            return false;
        }));
    }
}

TEST_P(OptionsTest, a_pool_names_its_workers) {
    Pool pool({.processes = 1, .name = "painters"});
    EXPECT_EQ(pool.apply([] { return multihull::current_process().name(); }), "painters-worker-0");
    const auto parent = pool.apply([] { return multihull::parent_process()->name(); });
    EXPECT_EQ(parent, multihull::current_process().name());
    pool.close();
    const auto error = thrown_by<multihull::PoolClosed>([&] { pool.apply(square, 1); });
    EXPECT_NE(std::string(error.what()).find("painters"), std::string::npos) << error.what();
}

TEST_P(OptionsTest, a_pool_starts_as_its_own_options_say) {
    for (const auto method :
         {multihull::StartMethod::fork, multihull::StartMethod::forkserver, multihull::StartMethod::spawn}) {
        prepared = 77;
        Pool pool({.processes = 1, .start_method = method});
        // Only a fork sees what this process has become since init().
        EXPECT_EQ(pool.apply([] { return prepared; }), method == multihull::StartMethod::fork ? 77 : 0);
        prepared = 0;
    }
}

TEST_P(OptionsTest, all_workers_of_a_forked_pool_see_one_snapshot) {
    prepared = 5;
    Pool pool({.processes = 1, .start_method = multihull::StartMethod::fork});
    prepared = 6;
    EXPECT_EQ(pool.apply([] { return prepared; }), 5);
    EXPECT_THROW(pool.apply(crash), multihull::WorkerCrashed);
    EXPECT_EQ(pool.apply([] { return prepared; }), 5);
    prepared = 0;
}

TEST_P(OptionsTest, what_a_worker_writes_to_stderr_is_passed_on) {
    ::testing::internal::CaptureStderr();
    {
        Pool pool(1);
        pool.apply([] { ::dprintf(2, "a line of a worker\n"); });
    }
    EXPECT_EQ(::testing::internal::GetCapturedStderr(), "a line of a worker\n");
}

}    // namespace
