// The end of pools: scopes, close, terminate, join; forked copies; and that nothing is left behind.
#include "support/board.hpp"
#include "support/sanitizer.hpp"
#include "support/start_methods.hpp"

#include <multihull/pool.hpp>

#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <csignal>
#include <filesystem>
#include <fstream>
#include <memory>
#include <set>
#include <stdexcept>
#include <string>
#include <sys/wait.h>
#include <thread>
#include <unistd.h>
#include <vector>

namespace {

using namespace std::chrono_literals;
using multihull::Pool;
using test::Board;

// The address sanitizer keeps up to 256 MiB of what was freed, in mappings of its own.
constexpr std::size_t kMapsRoom = test::kAsan ? 60 : 2;
constexpr std::size_t kRssRoomKib = (test::kAsan ? std::size_t{320} : std::size_t{8}) * 1024;

int square(int x) { return x * x; }
void count(const std::string& path) { ++Board(path)[9]; }

class LifetimeTest : public test::StartMethodTest {
protected:
    Board board_;
};
INSTANTIATE_TEST_SUITE_P(EachStartMethod, LifetimeTest, test::each_start_method(), test::start_method_name);

TEST_P(LifetimeTest, leaving_the_scope_finishes_the_work) {
    {
        Pool pool(2);
        for (int i = 0; i < 300; ++i) pool.apply_async(count, board_.path());
        pool.map_async(count, std::vector<std::string>(100, board_.path()));
    }
    EXPECT_EQ(board_[9], 400);
}

TEST_P(LifetimeTest, leaving_the_scope_by_an_exception_ends_the_workers) {
    multihull::Future<int> running;
    multihull::Future<int> waiting;
    pid_t worker = 0;
    try {
        Pool pool(1);
        worker = pool.apply([] { return ::getpid(); });
        running = pool.apply_async(test::hold, board_.path(), 1);
        waiting = pool.apply_async(square, 1);
        ASSERT_TRUE(board_.wait_until_at_least(test::kHeld, 1));
        throw std::runtime_error("away");
    } catch (const std::runtime_error&) {
        EXPECT_TRUE(running.ready());
        EXPECT_TRUE(waiting.ready());
        EXPECT_THROW(running.get(), multihull::Cancelled);
        EXPECT_THROW(waiting.get(), multihull::Cancelled);
    }
    EXPECT_NE(::kill(worker, 0), 0);
}

TEST_P(LifetimeTest, a_pool_made_while_an_exception_unwinds_finishes_its_work) {
    struct InDestructor {
        int* result;
        ~InDestructor() {
            Pool pool(1);
            const auto future = pool.apply_async(square, 6);
            *result = future.get();
        }
    };
    int result = 0;
    try {
        const InDestructor guard{&result};
        throw std::runtime_error("away");
    } catch (const std::runtime_error&) {
        EXPECT_EQ(result, 36);
    }
}

TEST_P(LifetimeTest, a_closed_pool_finishes_what_it_has_and_takes_no_more) {
    Pool pool(1);
    const auto held = pool.apply_async(test::hold, board_.path(), 4);
    const auto behind = pool.apply_async(square, 5);
    pool.close();
    pool.close();
    EXPECT_THROW(pool.apply(square, 1), multihull::PoolClosed);
    EXPECT_THROW(pool.apply_async(square, 1), multihull::PoolClosed);
    EXPECT_THROW(pool.map(square, {1, 2}), multihull::PoolClosed);
    EXPECT_THROW(pool.map_async(square, {1, 2}), multihull::PoolClosed);
    EXPECT_THROW(pool.starmap([](int a, int b) { return a + b; }, std::vector{std::pair(1, 2)}), multihull::PoolClosed);
    EXPECT_THROW(pool.imap(square, std::vector{1}).next(), multihull::PoolClosed);
    EXPECT_THROW(pool.imap_unordered(square, std::vector{1}).next(), multihull::PoolClosed);
    board_[test::kLetGo] = 1;
    pool.join();
    EXPECT_TRUE(held.ready());
    EXPECT_EQ(held.get(), 4);
    EXPECT_EQ(behind.get(), 25);
    pool.join();
    EXPECT_THROW(pool.apply(square, 1), multihull::PoolClosed);
}

TEST_P(LifetimeTest, join_before_close_says_what_is_missing) {
    Pool pool(1);
    EXPECT_THROW(pool.join(), multihull::Error);
    EXPECT_EQ(pool.apply(square, 2), 4);
}

TEST_P(LifetimeTest, any_number_of_threads_may_join) {
    for (int round = 0; round < 20; ++round) {
        Pool pool(2);
        std::atomic<int> called{0};
        std::vector<multihull::Future<int>> futures;
        for (int i = 0; i < 20; ++i) {
            futures.push_back(pool.apply_async(square, i));
            futures.back().add_done_callback([&](const auto&) { ++called; });
        }
        pool.close();
        std::vector<std::thread> threads;
        std::atomic<int> early{0};
        for (int t = 0; t < 4; ++t) {
            threads.emplace_back([&] {
                pool.join();
                if (called != 20) ++early;    // join() waits for the callbacks, whoever calls it
            });
        }
        for (auto& thread : threads) thread.join();
        EXPECT_EQ(early, 0);
        for (int i = 0; i < 20; ++i) EXPECT_EQ(futures[static_cast<std::size_t>(i)].get(), i * i);
    }
}

TEST_P(LifetimeTest, a_callback_may_join_beside_others) {
    for (int round = 0; round < 20; ++round) {
        Pool pool(2);
        std::atomic<int> called{0};
        const auto held = pool.apply_async(test::hold, board_.path(), 1);
        held.add_done_callback([&](const auto&) {
            pool.join();    // for the workers; it can't wait for itself
            ++called;
        });
        pool.close();
        std::vector<std::thread> threads;
        std::atomic<int> early{0};
        for (int t = 0; t < round % 4; ++t) {
            threads.emplace_back([&] {
                pool.join();
                if (called != 1) ++early;
            });
        }
        board_[test::kLetGo] = 1;
        for (auto& thread : threads) thread.join();
        pool.join();
        EXPECT_EQ(called, 1);
        EXPECT_EQ(early, 0);
        board_[test::kLetGo] = 0;
    }
}

TEST_P(LifetimeTest, terminate_ends_running_and_waiting_tasks) {
    Pool pool(2);
    std::vector<multihull::Future<int>> futures;
    for (int i = 0; i < 100; ++i) futures.push_back(pool.apply_async(test::hold, board_.path(), i));
    ASSERT_TRUE(board_.wait_until_at_least(test::kHeld, 2));
    pool.terminate();
    // Nobody needs to join for those who wait to hear of it.
    for (const auto& future : futures) EXPECT_THROW(future.get(), multihull::Cancelled);
    EXPECT_THROW(pool.apply(square, 1), multihull::PoolClosed);
    pool.terminate();
    pool.join();
    EXPECT_EQ(board_[test::kHeld], 2);
}

TEST_P(LifetimeTest, terminate_ends_maps) {
    Pool pool(2);
    const auto map = pool.map_async([](const std::string& path) { return test::hold(path, 1); },
                                    std::vector<std::string>(50, board_.path()));
    const auto behind = pool.map_async(square, std::views::iota(0, 100));
    ASSERT_TRUE(board_.wait_until_at_least(test::kHeld, 2));
    pool.terminate();
    EXPECT_THROW(map.get(), multihull::Cancelled);
    EXPECT_THROW(behind.get(), multihull::Cancelled);
    auto range = pool.imap(square, std::views::iota(0));
    EXPECT_THROW(range.next(), multihull::PoolClosed);
}

TEST_P(LifetimeTest, terminate_of_an_idle_pool_is_quick) {
    for (int i = 0; i < 10; ++i) {
        Pool pool(3);
        if (i % 2 == 0) pool.apply(square, i);
        pool.terminate();
        pool.join();
    }
}

TEST_P(LifetimeTest, terminate_while_others_submit_and_wait) {
    for (int round = 0; round < 10; ++round) {
        Pool pool(2);
        std::vector<std::thread> threads;
        std::atomic<int> odd{0};
        for (int t = 0; t < 3; ++t) {
            threads.emplace_back([&] {
                try {
                    for (;;) {
                        if (pool.apply(square, 3) != 9) ++odd;
                        if (pool.map(square, {1, 2, 3}) != std::vector{1, 4, 9}) ++odd;
                    }
                } catch (const multihull::PoolClosed&) {
                    return;
                } catch (const multihull::Cancelled&) {
                    return;
                } catch (...) {
                    ++odd;
                }
            });
        }
        for (int i = 0; i < 20; ++i) pool.apply_async(square, i);
        pool.terminate();
        for (auto& thread : threads) thread.join();
        EXPECT_EQ(odd, 0);
    }
}

TEST_P(LifetimeTest, close_while_a_worker_crashes_still_finishes) {
    Pool pool(2);
    std::vector<multihull::Future<int>> futures;
    for (int i = 0; i < 40; ++i) {
        futures.push_back(pool.apply_async(
            [](int x) {
                if (x % 5 == 0) ::raise(SIGKILL);
                return x;
            },
            i));
    }
    pool.close();
    pool.join();
    for (int i = 0; i < 40; ++i) {
        ASSERT_TRUE(futures[static_cast<std::size_t>(i)].ready());
        if (i % 5 == 0) {
            EXPECT_THROW(futures[static_cast<std::size_t>(i)].get(), multihull::WorkerCrashed);
        } else {
            EXPECT_EQ(futures[static_cast<std::size_t>(i)].get(), i);
        }
    }
}

TEST_P(LifetimeTest, a_forked_child_has_none_of_its_parents_pools) {
    Pool pool(1);
    const auto ended = pool.apply_async(square, 3);
    EXPECT_EQ(ended.get(), 9);
    const auto held = pool.apply_async(test::hold, board_.path(), 1);
    ASSERT_TRUE(board_.wait_until_at_least(test::kHeld, 1));
    const pid_t child = ::fork();
    if (child == 0) {
        int good = 0;
        const auto refused = [&](auto action) {
            try {
                action();
            } catch (const multihull::PoolClosed&) {
                ++good;
            }
        };
        refused([&] { pool.apply(square, 1); });
        refused([&] { pool.map(square, {1, 2}); });
        refused([&] { pool.close(); });
        refused([&] { pool.join(); });
        pool.terminate();
        // A pool of its own works.
        try {
            Pool own(1);
            if (own.apply(square, 5) == 25) ++good;
        } catch (const std::exception& error) {
            ::dprintf(2, "in the forked child: %s\n", error.what());
        }
        ::_exit(good);
    }
    int status = 0;
    ASSERT_EQ(::waitpid(child, &status, 0), child);
    EXPECT_TRUE(WIFEXITED(status)) << "signal " << WTERMSIG(status);
    EXPECT_EQ(WEXITSTATUS(status), 5);
    // The parent's pool was not touched.
    EXPECT_FALSE(held.ready());
    board_[test::kLetGo] = 1;
    EXPECT_EQ(held.get(), 1);
    EXPECT_EQ(pool.apply(square, 4), 16);
}

TEST_P(LifetimeTest, a_forked_child_may_leave_the_scope_and_exit) {
    auto pool = std::make_unique<Pool>(1);
    auto future = pool->apply_async(square, 3);
    future.add_done_callback([](const auto&) {});
    EXPECT_EQ(future.get(), 9);
    const pid_t child = ::fork();
    if (child == 0) {
        future = {};
        pool.reset();
        ::_exit(17);
    }
    int status = 0;
    ASSERT_EQ(::waitpid(child, &status, 0), child);
    EXPECT_TRUE(WIFEXITED(status)) << "signal " << WTERMSIG(status);
    EXPECT_EQ(WEXITSTATUS(status), 17);
    EXPECT_EQ(pool->apply(square, 4), 16);
}

TEST_P(LifetimeTest, a_program_that_forks_and_waits_for_any_child_keeps_its_pools) {
    Pool pool(2);
    for (int i = 0; i < 10; ++i) {
        const pid_t child = ::fork();
        if (child == 0) ::_exit(1);
        int status = 0;
        pid_t got = ::waitpid(-1, &status, 0);
        EXPECT_EQ(got, child);
        EXPECT_EQ(pool.apply(square, i), i * i);
    }
}

TEST_P(LifetimeTest, may_end_in_another_thread_than_it_began_in) {
    std::unique_ptr<Pool> pool;
    std::thread([&] { pool = std::make_unique<Pool>(2); }).join();
    EXPECT_EQ(pool->apply(square, 3), 9);
    std::thread([&] { pool.reset(); }).join();
    EXPECT_EQ(pool, nullptr);
}

// What a process holds, to compare before and after.
struct Holdings {
    std::size_t fds = 0;
    std::size_t maps = 0;
    std::size_t threads = 0;
    std::size_t children = 0;
    std::size_t rss_kib = 0;
};

std::size_t entries(const char* folder) {
    return static_cast<std::size_t>(std::distance(std::filesystem::directory_iterator(folder),
                                                  std::filesystem::directory_iterator()));
}

// Children of every thread of this process, and of the zygotes below them.
void add_descendants(const std::filesystem::path& process, std::size_t& count) {
    std::error_code gone;
    for (const auto& task : std::filesystem::directory_iterator(process / "task", gone)) {
        std::ifstream children(task.path() / "children");
        for (pid_t pid = 0; children >> pid;) {
            ++count;
            add_descendants("/proc/" + std::to_string(pid), count);
        }
    }
}

std::size_t descendants() {
    std::size_t count = 0;
    add_descendants("/proc/self", count);
    return count;
}

Holdings holdings() {
    Holdings now;
    now.fds = entries("/proc/self/fd");
    now.threads = entries("/proc/self/task");
    now.children = descendants();
    std::ifstream maps("/proc/self/maps");
    for (std::string line; std::getline(maps, line);) ++now.maps;
    std::ifstream statm("/proc/self/statm");
    std::size_t pages = 0;
    statm >> pages >> pages;
    now.rss_kib = pages * static_cast<std::size_t>(::sysconf(_SC_PAGESIZE)) / 1024;
    return now;
}

void use_a_pool(int round) {
    Pool pool(2);
    switch (round % 5) {
        case 0:
            pool.map(square, {1, 2, 3, 4, 5});
            break;
        case 1:
            pool.apply_async(square, 1).add_done_callback([](const auto&) {});
            break;
        case 2:
            try {
                pool.apply([] { ::raise(SIGKILL); });
            } catch (const multihull::WorkerCrashed&) {
                // As it should be.
            }
            break;
        case 3:
            pool.apply_async([] { ::pause(); });
            pool.terminate();
            break;
        default:
            pool.apply([](const std::vector<int>& v) { return v; }, std::vector<int>(200'000, 1));
            break;
    }
}

TEST_P(LifetimeTest, a_thousand_pools_leave_nothing_behind) {
    // A program that has the address sanitizer's shadow is slow to fork.
    const int pools = test::kAsan ? 150 : GetParam() == multihull::StartMethod::spawn ? 300 : 1000;
    for (int i = 0; i < 25; ++i) use_a_pool(i);
    const Holdings before = holdings();
    for (int i = 0; i < pools; ++i) use_a_pool(i);
    // Threads and processes may be on their last instructions.
    EXPECT_TRUE(test::eventually([&] { return entries("/proc/self/task") <= before.threads; }));
    EXPECT_TRUE(test::eventually([&] { return descendants() <= before.children; }));
    EXPECT_TRUE(test::eventually([&] { return entries("/proc/self/fd") <= before.fds; }));
    const Holdings after = holdings();
    EXPECT_LE(after.fds, before.fds);
    EXPECT_LE(after.maps, before.maps + kMapsRoom) << "mappings";
    EXPECT_LE(after.threads, before.threads);
    EXPECT_LE(after.children, before.children);
    EXPECT_LE(after.rss_kib, before.rss_kib + kRssRoomKib) << "KiB of memory";
}

TEST_P(LifetimeTest, a_long_life_of_crashes_leaves_nothing_behind) {
    Pool pool(2);
    // Two tasks that run at once have two workers: none is still to be replaced.
    const auto be_complete = [&] {
        board_[test::kHeld] = 0;
        board_[test::kLetGo] = 0;
        const std::vector futures{pool.apply_async(test::hold, board_.path(), 1),
                                  pool.apply_async(test::hold, board_.path(), 2)};
        EXPECT_TRUE(board_.wait_until_at_least(test::kHeld, 2));
        board_[test::kLetGo] = 1;
        for (const auto& future : futures) future.wait();
    };
    const auto crash = [](int x) {
        if (x % 2 == 0) ::raise(SIGKILL);
        return std::string(20'000, 'r');
    };
    const auto round = [&] {
        for (int i = 0; i < 50; ++i) {
            try {
                pool.apply(crash, i);
            } catch (const multihull::WorkerCrashed&) {
                // As it should be.
            }
        }
    };
    round();
    be_complete();
    const Holdings before = holdings();
    for (int i = 0; i < 10; ++i) round();
    be_complete();
    // The pool's zygote, and the forkserver, may have got their twins since: a process and its pidfd each.
    EXPECT_TRUE(test::eventually([&] { return entries("/proc/self/fd") <= before.fds + 2; }));
    EXPECT_TRUE(test::eventually([&] { return descendants() <= before.children + 2; }));
    const Holdings after = holdings();
    EXPECT_LE(after.maps, before.maps + kMapsRoom);
    EXPECT_LE(after.threads, before.threads);
    EXPECT_LE(after.rss_kib, before.rss_kib + kRssRoomKib);
}

TEST_P(LifetimeTest, a_hundred_thousand_tasks_leave_no_memory_behind) {
    Pool pool(2);
    const auto round = [&] {
        for (int i = 0; i < 200; ++i) {
            std::vector<multihull::Future<std::string>> futures;
            for (int k = 0; k < 50; ++k) {
                futures.push_back(pool.apply_async([](const std::string& text) { return text; },
                                                   std::string(1000, 't')));
            }
            for (const auto& future : futures) future.wait();
        }
    };
    round();
    const Holdings before = holdings();
    for (int i = 0; i < 10; ++i) round();
    EXPECT_LE(holdings().rss_kib, before.rss_kib + kRssRoomKib);
}

/// Shared memory and files that are in memory: what a sanitizer keeps for itself is not among it.
std::size_t shared_kib() {
    std::ifstream statm("/proc/self/statm");
    std::size_t pages = 0;
    statm >> pages >> pages >> pages;
    return pages * static_cast<std::size_t>(::sysconf(_SC_PAGESIZE)) / 1024;
}

// It is kept for a moment, as another burst may follow.
TEST(BurstTest, memory_of_very_many_tasks_at_once_goes_back) {
    constexpr int kTasks = 150'000;
    Pool pool(2);
    const auto burst = [&] {
        std::vector<multihull::Future<int>> futures;
        futures.reserve(kTasks);
        for (int i = 0; i < kTasks; ++i) futures.push_back(pool.apply_async(square, i % 1000));
        for (int i = 0; i < kTasks; ++i) EXPECT_EQ(futures[static_cast<std::size_t>(i)].get(), square(i % 1000));
        return shared_kib();
    };
    burst();
    const std::size_t full = burst();
    // 256 bytes of shared memory each, but for the first 65,536.
    constexpr std::size_t kGoesBackKib = (kTasks - 65'536) / 4 * 9 / 10;
    EXPECT_TRUE(test::eventually([&] { return shared_kib() + kGoesBackKib <= full; }));
    burst();
}

}    // namespace
