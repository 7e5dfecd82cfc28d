// What an executor over several ranks does beyond what all executors do.
#include "mpi/bells.hpp"
#include "mpi/tree.hpp"
#include "support/board.hpp"
#include "support/sanitizer.hpp"

#include <multihull/futures.hpp>
#include <multihull/lock.hpp>
#include <multihull/log.hpp>
#include <multihull/mpi.hpp>
#include <multihull/parallel.hpp>

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <bit>
#include <chrono>
#include <csignal>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <deque>
#include <filesystem>
#include <fstream>
#include <functional>
#include <map>
#include <numeric>
#include <ranges>
#include <set>
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>
#include <sys/wait.h>
#include <thread>
#include <tuple>
#include <type_traits>
#include <unistd.h>
#include <utility>
#include <vector>

extern multihull::mpi::Session* session;    // main()'s

namespace {

using namespace std::chrono_literals;
using multihull::mpi::PoolExecutor;

using Numbers = multihull::mpi::Broadcast<std::vector<int>>;

/// The process of the rank that the worker is of.
int rank_process() { return multihull::parent_process()->pid(); }

/// Its number.
int rank_number() {
    const char* number = std::getenv("OMPI_COMM_WORLD_RANK");
    if (number == nullptr) number = std::getenv("PMI_RANK");
    return number == nullptr ? -1 : std::stoi(number);
}

/// Whether arguments travel that workers of one machine would read where rank 0 has them.
bool far() { return std::getenv("MULTIHULL_TEST_FAR") != nullptr; }

/// Whether it lies in shared memory: in what came, or where another process has it, and not in a copy that was made of that.
bool is_shared(const void* place) {
    const auto address = reinterpret_cast<std::uintptr_t>(place);
    std::ifstream maps("/proc/self/maps");
    for (std::string line; std::getline(maps, line);) {
        std::uintptr_t begin = 0;
        std::uintptr_t end = 0;
        char rights[5] = {};
        if (std::sscanf(line.c_str(), "%lx-%lx %4s", &begin, &end, rights) == 3 && address >= begin && address < end) {
            return rights[3] == 's';
        }
    }
    return false;
}

/// What that process's thread which calls MPI has done so far: how often it has slept, and computed for how long, ms.
std::pair<long, long> looks_of(pid_t process) {
    for (const auto& task : std::filesystem::directory_iterator("/proc/" + std::to_string(process) + "/task")) {
        std::string name;
        std::getline(std::ifstream(task.path() / "comm"), name);
        if (name != "mh-mpi") continue;
        std::ifstream status(task.path() / "status");
        long sleeps = 0;
        for (std::string word; status >> word;) {
            if (word == "voluntary_ctxt_switches:") status >> sleeps;
        }
        long long ns = 0;
        std::ifstream(task.path() / "schedstat") >> ns;
        return {sleeps, static_cast<long>(ns / 1'000'000)};
    }
    throw std::runtime_error("no thread calls MPI there");
}

TEST(Ranks, all_of_them_work) {
    PoolExecutor executor({.processes = 1});
    EXPECT_EQ(executor.max_workers(), 4U);
    test::Board board;
    std::vector<multihull::Future<int>> futures;
    const auto hold = [](const std::string& path) {
        test::hold(path, 0);
        return rank_process();
    };
    for (int i = 0; i < 4; ++i) futures.push_back(executor.submit(hold, board.path()));
    ASSERT_TRUE(board.wait_until_at_least(test::kHeld, 4));
    board[test::kLetGo] = 1;
    std::set<int> ranks;
    for (const auto& future : futures) ranks.insert(future.get());
    EXPECT_EQ(ranks.size(), 4U);
}

TEST(Ranks, a_long_task_holds_up_nobody_behind_it) {
    PoolExecutor executor(3);
    test::Board board;
    const auto first = executor.submit(test::hold, board.path(), 1);
    std::vector<multihull::Future<int>> futures;
    for (int i = 0; i < 300; ++i) futures.push_back(executor.submit([](int x) { return x; }, i));
    // Some were given to the same rank ahead of need; they are done by others.
    for (int i = 0; i < 300; ++i) EXPECT_EQ(futures[static_cast<std::size_t>(i)].get(), i);
    EXPECT_FALSE(first.ready());
    board[test::kLetGo] = 1;
    EXPECT_EQ(first.get(), 1);
}

TEST(Ranks, big_arguments_and_results_arrive_whole) {
    PoolExecutor executor(2);
    std::vector<multihull::Future<std::vector<std::uint64_t>>> futures;
    const auto reverse = [](std::vector<std::uint64_t> values) {
        std::reverse(values.begin(), values.end());
        return values;
    };
    for (std::size_t i = 0; i < 24; ++i) {
        std::vector<std::uint64_t> values((i % 6) * 40'000 + i);
        std::iota(values.begin(), values.end(), i * 1'000'000);
        futures.push_back(executor.submit(reverse, values));
    }
    for (std::size_t i = 0; i < 24; ++i) {
        std::vector<std::uint64_t> expected((i % 6) * 40'000 + i);
        std::iota(expected.rbegin(), expected.rend(), i * 1'000'000);
        EXPECT_EQ(futures[i].get(), expected);
    }
    // As elements of chunks, too.
    std::vector<std::string> words;
    for (std::size_t i = 0; i < 20; ++i) words.emplace_back(i * 5000, static_cast<char>('a' + i));
    std::size_t i = 0;
    for (const std::string& word : executor.map([](std::string text) { return text + "!"; }, words, {.chunksize = 7})) {
        EXPECT_EQ(word, words[i++] + "!");
    }
    EXPECT_EQ(i, 20U);
}

std::uint64_t sum_of(std::span<const std::uint64_t> values) {
    return std::accumulate(values.begin(), values.end(), std::uint64_t{0});
}

TEST(Ranks, of_one_machine_read_big_arguments_where_rank_0_has_them) {
    constexpr std::size_t kCount = std::size_t{1} << 17;    // 1 MiB
    constexpr std::uint64_t kTasks = 24;
    PoolExecutor executor(3);    // of ranks 1 to 3
    executor.submit([] {}).get();
    const std::uint64_t before = session->traffic().bytes_sent;
    std::vector<multihull::Future<std::uint64_t>> sums;
    std::vector<std::uint64_t> kept(kCount);
    for (std::uint64_t i = 0; i < kTasks; ++i) {
        std::ranges::fill(kept, i);    // the caller's, to be changed when it has been submitted
        sums.push_back(executor.submit(sum_of, kept));
        sums.push_back(executor.submit(sum_of, std::vector<std::uint64_t>(kCount, i)));
    }
    std::ranges::fill(kept, 77);
    for (std::uint64_t i = 0; i < kTasks; ++i) {
        EXPECT_EQ(sums[2 * i].get(), i * kCount);
        EXPECT_EQ(sums[2 * i + 1].get(), i * kCount);
    }
    std::vector<std::vector<std::uint64_t>> rows(9, std::vector<std::uint64_t>(kCount, 5));
    for (const std::uint64_t sum : executor.map(sum_of, rows)) EXPECT_EQ(sum, 5 * kCount);
    const std::uint64_t sent = session->traffic().bytes_sent - before;
    const std::uint64_t all = (2 * kTasks + rows.size()) * kCount * sizeof(std::uint64_t);
    if (far()) {
        EXPECT_GE(sent, all);
    } else {
        EXPECT_LT(sent, all / 10);
    }
}

TEST(Ranks, what_is_lent_is_read_where_it_is) {
    constexpr std::uint64_t kTasks = 24;
    PoolExecutor executor(3);    // of ranks 1 to 3
    executor.submit([] {}).get();
    const std::uint64_t before = session->traffic().bytes_sent;
    const auto sum_both = [](std::span<const std::uint64_t> first, const std::string& text,
                             const std::vector<std::uint64_t>& second) {
        return sum_of(first) + text.size() + sum_of(second);
    };
    std::vector<std::vector<std::uint64_t>> rows;
    for (std::size_t i = 0; i < kTasks; ++i) rows.emplace_back(50'000 + i, i);
    const std::string text(10'000, 't');
    std::vector<multihull::Future<std::uint64_t>> sums;
    for (std::size_t i = 0; i < kTasks; ++i)
        sums.push_back(executor.submit(sum_both, std::cref(rows[i]), text, std::cref(rows[kTasks - 1 - i])));
    std::size_t all = 0;
    for (std::size_t i = 0; i < kTasks; ++i) {
        const std::size_t j = kTasks - 1 - i;
        EXPECT_EQ(sums[i].get(), i * (50'000 + i) + text.size() + j * (50'000 + j));
        all += (rows[i].size() + rows[j].size()) * sizeof(std::uint64_t);
    }
    const std::uint64_t sent = session->traffic().bytes_sent - before;
    if (far()) {
        EXPECT_GE(sent, all);
    } else {
        EXPECT_LT(sent, all / 10 + kTasks * text.size());
    }
}

TEST(Ranks, what_was_lent_is_the_callers_again_when_its_tasks_have_ended) {
    PoolExecutor executor(3);
    test::Board board;
    std::vector<std::uint64_t> values(200'000, 1);
    const auto first = executor.submit(test::hold, board.path(), 1);
    const auto others = {executor.submit(test::hold, board.path(), 2), executor.submit(test::hold, board.path(), 3)};
    ASSERT_TRUE(board.wait_until_at_least(test::kHeld, 3));
    const auto cancelled = executor.submit(sum_of, std::cref(values));
    EXPECT_TRUE(cancelled.cancel());
    EXPECT_THROW(cancelled.get(), multihull::Cancelled);
    std::vector<std::uint64_t>(200'000, 2).swap(values);    // what was lent is gone
    const auto sum = executor.submit(sum_of, std::cref(values));
    board[test::kLetGo] = 1;
    EXPECT_EQ(sum.get(), 2 * values.size());
    for (const auto& future : others) future.get();
}

TEST(Ranks, a_big_argument_outlives_the_worker_that_crashed_over_it) {
    PoolExecutor executor({.processes = 1, .retries = 1});
    test::Board board;
    const auto crash_once = [](const std::string& path, std::size_t cell, std::span<const std::uint64_t> values) {
        test::Board here(path);
        if (here[cell].fetch_add(1) == 0) ::raise(SIGKILL);
        return sum_of(values);
    };
    std::vector<multihull::Future<std::uint64_t>> sums;
    std::vector<std::vector<std::uint64_t>> rows;
    for (std::size_t i = 0; i < 12; ++i) rows.emplace_back(200'000, i);
    for (std::size_t i = 0; i < rows.size(); i += 3) {
        sums.push_back(executor.submit(crash_once, board.path(), i, rows[i]));
        sums.push_back(executor.submit(crash_once, board.path(), i + 1, std::move(rows[i + 1])));
        sums.push_back(executor.submit(crash_once, board.path(), i + 2, std::cref(rows[i + 2])));
    }
    for (std::size_t i = 0; i < sums.size(); ++i) EXPECT_EQ(sums[i].get(), i * 200'000);
}

TEST(Ranks, a_big_argument_is_not_counted_to_a_tasks_memory) {
    PoolExecutor executor(3);
    const multihull::TaskOptions limited{.memory = std::size_t{8} << 20};
    std::vector<std::uint64_t> values(std::size_t{4} << 20, 1);    // 32 MiB
    EXPECT_EQ(executor.submit(limited, sum_of, values).get(), values.size());
    EXPECT_EQ(executor.submit(limited, sum_of, std::move(values)).get(), std::size_t{4} << 20);
}

TEST(Ranks, what_is_given_away_is_sent_from_where_it_was) {
    PoolExecutor executor({.processes = 1});    // on rank 0, too, where such a call is put together
    const auto digest = [](char a, std::span<const std::uint64_t> first, const std::string& text,
                           std::span<const std::uint32_t> second, const std::vector<std::uint64_t>& third) {
        const auto in_place = [](const auto& values) { return values.size() < 100 || is_shared(values.data()); };
        const auto sum = [](const auto& values) {
            return std::accumulate(values.begin(), values.end(), std::uint64_t{0});
        };
        return std::tuple(in_place(first) && in_place(second) && a == 'a', sum(first), sum(second), sum(third), text);
    };
    using Result = std::invoke_result_t<decltype(digest), char, std::span<const std::uint64_t>, std::string,
                                        std::span<const std::uint32_t>, std::vector<std::uint64_t>>;
    std::vector<multihull::Future<Result>> futures;
    std::vector<Result> expected;
    for (std::size_t i = 0; i < 40; ++i) {
        std::vector<std::uint64_t> first(i % 4 * 30'000 + 1, i);
        std::vector<std::uint32_t> second(i % 3 * 30'001 + 2, 7);
        const std::vector<std::uint64_t> third(i % 5 * 20'000 + 3, 9);
        const std::string text(i % 2 * 30'000 + i, 't');
        expected.emplace_back(true, first.size() * i, second.size() * 7, third.size() * 9, text);
        futures.push_back(executor.submit(digest, 'a', std::move(first), text, std::move(second), third));
    }
    for (std::size_t i = 0; i < 40; ++i) EXPECT_EQ(futures[i].get(), expected[i]) << i;
    // As elements of a map, too.
    std::vector<std::vector<std::uint64_t>> rows;
    for (std::size_t i = 0; i < 12; ++i) rows.emplace_back(i * 10'000, i);
    std::size_t i = 0;
    for (const std::uint64_t sum : executor.map(
             [](std::span<const std::uint64_t> row) {
                 return std::accumulate(row.begin(), row.end(), std::uint64_t{0});
             },
             rows)) {
        EXPECT_EQ(sum, i * i * 10'000);
        ++i;
    }
    EXPECT_EQ(i, 12U);
}

TEST(Ranks, views_of_texts_look_at_what_arrived) {
    PoolExecutor executor({.processes = 1});
    const auto look = [](std::string_view text, std::string_view after) {
        return std::tuple(text.size() < 100 || is_shared(text.data()), std::string(text), std::string(after));
    };
    std::vector<multihull::Future<std::tuple<bool, std::string, std::string>>> futures;
    std::vector<std::string> texts;
    for (std::size_t i = 0; i < 24; ++i) {
        texts.emplace_back(i % 4 * 30'000 + 1, static_cast<char>('a' + i));
        if (i % 3 == 0) {
            futures.push_back(executor.submit(look, texts.back(), "a literal"));
        } else if (i % 3 == 1) {
            futures.push_back(executor.submit(look, std::string_view(texts.back()), std::string("a literal")));
        } else {
            futures.push_back(executor.submit(look, std::string(texts.back()), "a literal"));
        }
    }
    for (std::size_t i = 0; i < 24; ++i) EXPECT_EQ(futures[i].get(), std::tuple(true, texts[i], "a literal")) << i;
}

int crash_deep_inside(int x) {
    if (x >= 0) *reinterpret_cast<volatile int*>(static_cast<std::uintptr_t>(x)) = 1;
    return x;
}

TEST(Ranks, a_crash_elsewhere_is_told_as_one_here) {
    PoolExecutor executor(3);
    for (int round = 0; round < 3; ++round) {
        std::vector<multihull::Future<int>> futures;
        for (int i = 0; i < 3; ++i) futures.push_back(executor.submit(crash_deep_inside, 8));
        for (const auto& future : futures) {
            try {
                future.get();
                FAIL();
            } catch (const multihull::WorkerCrashed& crash) {
                EXPECT_EQ(crash.signal(), SIGSEGV);
                EXPECT_NE(crash.stack().to_string().find("crash_deep_inside"), std::string::npos)
                    << crash.stack().to_string();
            }
        }
    }
}

TEST(Ranks, limits_and_retries_hold_everywhere) {
    PoolExecutor executor(3);
    const auto eat = [](std::size_t size) { return std::vector<char>(size, 1).size(); };
    const auto endless = [] {
        for (;;) ::pause();
    };
    const auto crash_once = [](const std::string& path) {
        if (test::Board(path)[0].fetch_add(1) == 0) ::raise(SIGKILL);
        return 5;
    };
    test::Board board;
    std::vector<multihull::Future<std::size_t>> eaters;
    std::vector<multihull::Future<void>> sleepers;
    for (int i = 0; i < 3; ++i) {
        eaters.push_back(executor.submit({.memory = std::size_t{64} << 20}, eat, std::size_t{1} << 30));
        sleepers.push_back(executor.submit({.timeout = 20ms}, endless));
    }
    const auto again = executor.submit({.retries = 1}, crash_once, board.path());
    for (const auto& future : eaters) EXPECT_THROW(future.get(), test::OutOfMemory);
    for (const auto& future : sleepers) EXPECT_THROW(future.get(), multihull::TaskTimeout);
    EXPECT_EQ(again.get(), 5);
}

TEST(Ranks, settings_and_the_initializer_travel) {
    static int prepared = 0;
    PoolExecutor executor({.processes = 1,
                           .initializer =
                               multihull::call([](int x, std::string) { prepared = x; }, 41, std::string(1000, 'x'))});
    for (const int x : executor.map([](int i) { return prepared + i; }, std::vector<int>(12, 1))) EXPECT_EQ(x, 42);
    PoolExecutor broken({.processes = 1, .initializer = multihull::call([] { throw std::runtime_error("no"); })});
    EXPECT_THROW(broken.submit([] {}).get(), multihull::BrokenPool);
}

TEST(Ranks, a_packet_may_be_longer_than_what_one_receive_has_room_for) {
    static std::size_t prepared = 0;
    std::string text(500'000, 'x');
    for (std::size_t i = 0; i < text.size(); ++i) text[i] = static_cast<char>('a' + i % 23);
    // Settings are never bulk. Others follow at once.
    const auto prepare = [](std::string_view got) {
        for (std::size_t i = 0; i < got.size(); ++i) prepared += got[i] == static_cast<char>('a' + i % 23) ? 1 : 0;
    };
    for (int round = 0; round < 3; ++round) {
        PoolExecutor executor({.processes = 1, .initializer = multihull::call(prepare, text)});
        std::vector<multihull::Future<std::size_t>> futures;
        for (int i = 0; i < 50; ++i) futures.push_back(executor.submit([] { return prepared; }));
        for (const auto& future : futures) EXPECT_EQ(future.get(), text.size());
    }
}

TEST(Ranks, what_is_memory_of_one_machine_is_refused) {
    PoolExecutor executor(2);
    multihull::Lock lock;
    EXPECT_THROW(executor.submit([](multihull::Lock) {}, lock), multihull::CodecError);
    EXPECT_THROW(executor.submit([] { return multihull::Lock(); }).get(), multihull::CodecError);
    EXPECT_EQ(executor.submit([] { return 1; }).get(), 1);
}

TEST(Ranks, killed_workers_cost_their_tasks_and_no_others) {
    PoolExecutor executor(4);
    std::vector<multihull::Future<int>> futures;
    for (int i = 0; i < 400; ++i) {
        futures.push_back(executor.submit(
            [](int x) {
                if (x % 17 == 3) ::raise(x % 2 == 0 ? SIGKILL : SIGSEGV);
                return x;
            },
            i));
    }
    for (int i = 0; i < 400; ++i) {
        const auto& future = futures[static_cast<std::size_t>(i)];
        if (i % 17 == 3) {
            EXPECT_THROW(future.get(), multihull::WorkerCrashed) << i;
        } else {
            EXPECT_EQ(future.get(), i);
        }
    }
}

/// Stops a rank's process, and lets it go on at last.
class Stopped {
public:
    explicit Stopped(pid_t pid) : pid_(pid) { ::kill(pid_, SIGSTOP); }
    Stopped(const Stopped&) = delete;
    Stopped& operator=(const Stopped&) = delete;
    ~Stopped() { ::kill(pid_, SIGCONT); }

private:
    pid_t pid_;
};

TEST(Ranks, a_slow_rank_has_little_of_the_work) {
    PoolExecutor executor(3);
    const int slow = executor.submit(rank_process).get();
    std::vector<multihull::Future<int>> futures;
    {
        const Stopped stopped(slow);
        const auto work = [](int x) {
            std::this_thread::sleep_for(1ms);
            return x;
        };
        for (int i = 0; i < 300; ++i) futures.push_back(executor.submit(work, i));
        EXPECT_TRUE(test::eventually([&] {
            return std::ranges::count_if(futures, &multihull::Future<int>::ready) > 250;
        }));
    }
    for (int i = 0; i < 300; ++i) EXPECT_EQ(futures[static_cast<std::size_t>(i)].get(), i);
}

TEST(Ranks, tasks_are_cancelled_wherever_they_are) {
    for (int round = 0; round < 5; ++round) {
        PoolExecutor executor(3);
        test::Board board;
        std::vector<multihull::Future<int>> futures;
        for (int i = 0; i < 30; ++i) futures.push_back(executor.submit(test::hold, board.path(), i));
        ASSERT_TRUE(board.wait_until_at_least(test::kHeld, 3));
        for (const auto& future : futures) EXPECT_TRUE(future.cancel());
        for (const auto& future : futures) EXPECT_THROW(future.get(), multihull::Cancelled);
        EXPECT_EQ(executor.submit([] { return 7; }).get(), 7);
    }
}

TEST(Ranks, many_tasks_from_many_threads_with_callbacks) {
    PoolExecutor executor(4);
    std::atomic<int> called{0};
    std::vector<std::thread> threads;
    for (int t = 0; t < 3; ++t) {
        threads.emplace_back([&] {
            std::vector<multihull::Future<int>> futures;
            for (int i = 0; i < 2000; ++i) {
                futures.push_back(executor.submit([](int x) { return x + 1; }, i));
                if (i % 10 == 0) futures.back().add_done_callback([&](const auto&) { ++called; });
            }
            for (int i = 0; i < 2000; ++i) EXPECT_EQ(futures[static_cast<std::size_t>(i)].get(), i + 1);
        });
    }
    for (auto& thread : threads) thread.join();
    executor.shutdown();
    EXPECT_EQ(called, 600);
}

// Who waits for one task does the conductor's work meanwhile; the conductor must be back for what nobody waits for.
TEST(Ranks, what_nobody_waits_for_ends_after_one_task_at_a_time) {
    PoolExecutor executor(2);
    for (int round = 0; round < 100; ++round) {
        for (int i = 0; i < 10; ++i) ASSERT_EQ(executor.submit([](int x) { return x + 1; }, i).get(), i + 1);
        std::atomic<int> called{0};
        auto future = executor.submit([] {});
        future.add_done_callback([&](const auto&) {
            called = 1;
            called.notify_all();
        });
        called.wait(0);
    }
}

TEST(Ranks, one_task_at_a_time_from_many_threads) {
    PoolExecutor executor(2);
    std::atomic<int> right{0};
    std::vector<std::thread> threads;
    for (int t = 0; t < 4; ++t) {
        threads.emplace_back([&, t] {
            for (int i = 0; i < 500; ++i) {
                const auto pause = std::chrono::microseconds(i % 50 == t ? 2'000 : 0);
                auto future = executor.submit(
                    [](int x, std::chrono::microseconds time) {
                        if (time.count() != 0) std::this_thread::sleep_for(time);
                        return x;
                    },
                    i, pause);
                if (i % 3 == 0) static_cast<void>(future.wait_for(std::chrono::microseconds(i % 100)));
                right += future.get() == i ? 1 : 0;
            }
        });
    }
    for (auto& thread : threads) thread.join();
    EXPECT_EQ(right, 2000);
}

TEST(Ranks, a_forked_child_has_no_session) {
    PoolExecutor executor(2);
    const auto value = multihull::mpi::broadcast_value(7);
    const pid_t child = ::fork();
    if (child == 0) {
        const auto refused = [](auto what) {
            try {
                what();
                return false;
            } catch (const multihull::Error&) {
                return true;
            }
        };
        const bool all = refused([] { PoolExecutor other(1); }) &&
                         refused([] { static_cast<void>(multihull::mpi::broadcast_value(8)); }) &&
                         refused([&] { static_cast<void>(executor.submit([] {})); });
        ::_exit(all ? 0 : 1);
    }
    int status = -1;
    ASSERT_EQ(::waitpid(child, &status, 0), child);
    EXPECT_EQ(status, 0);
    EXPECT_EQ(executor.submit([](const multihull::mpi::Broadcast<int>& x) { return *x; }, value).get(), 7);
}

TEST(Ranks, a_parallel_loop_runs_on_all_of_them) {
    const multihull::Parallel parallel({.backend = "mpi"});
    const auto calls =
        std::views::iota(0, 300) | std::views::transform(multihull::delayed([](int x) { return x * x; }));
    const std::vector<int> squares = parallel(calls);
    ASSERT_EQ(squares.size(), 300U);
    for (int i = 0; i < 300; ++i) EXPECT_EQ(squares[static_cast<std::size_t>(i)], i * i);
    const auto fail = multihull::delayed([](int x) {
        if (x == 5) throw std::domain_error("five");
        return x;
    });
    EXPECT_THROW(parallel(std::views::iota(0, 10) | std::views::transform(fail)), std::domain_error);
    int factor = 2;
    const auto closure = multihull::delayed([&factor](int x) { return x * factor; });
    EXPECT_THROW(parallel(std::views::iota(0, 3) | std::views::transform(closure)), multihull::Error);
    // A range that can't make its first call is no reason to have no stream.
    const auto no_call = [](int x) {
        if (x == 0) throw std::out_of_range("no call");
        return multihull::delayed([](int y) { return y; })(x);
    };
    auto results = parallel.generator(std::views::iota(0, 3) | std::views::transform(no_call));
    EXPECT_THROW(static_cast<void>(results.next()), std::out_of_range);
}

TEST(Ranks, a_value_is_sent_once_and_read_by_all_tasks) {
    PoolExecutor executor({.processes = 1});
    const auto look = [](const Numbers& table, std::size_t i) { return (*table)[i]; };
    for (const std::size_t size : {100U, 1'000'000U}) {
        std::vector<int> numbers(size);
        std::iota(numbers.begin(), numbers.end(), 5);
        auto table = multihull::mpi::broadcast_value(numbers);
        EXPECT_EQ(table->size(), size);
        std::vector<multihull::Future<int>> futures;
        for (std::size_t i = 0; i < 100; ++i) futures.push_back(executor.submit(look, table, i));
        table = {};    // the tasks keep it
        for (std::size_t i = 0; i < 100; ++i) EXPECT_EQ(futures[i].get(), static_cast<int>(i) + 5);
    }
}

TEST(Ranks, each_is_reached_once_through_the_tree) {
    using multihull::mpi::children_of;
    for (std::uint32_t ranks = 1; ranks < 70; ++ranks) {
        std::vector<std::uint32_t> reached{0};
        for (std::size_t i = 0; i < reached.size(); ++i) {
            for (const std::uint32_t child : children_of(reached[i], ranks)) {
                EXPECT_EQ(multihull::mpi::parent_of(child), reached[i]);
                reached.push_back(child);
            }
        }
        std::ranges::sort(reached);
        std::vector<std::uint32_t> all(ranks);
        std::iota(all.begin(), all.end(), 0U);
        EXPECT_EQ(reached, all);
        EXPECT_EQ(children_of(0, ranks).size(), static_cast<std::size_t>(std::bit_width(ranks - 1)));
    }
}

TEST(Ranks, ranks_hand_values_on_to_others) {
    PoolExecutor executor({.processes = 1});
    const auto sum = [](const Numbers& table) {
        return std::accumulate(table->begin(), table->end(), std::uint64_t{0});
    };
    const std::vector<int> numbers(1'000'000, 2);
    const std::uint64_t before = session->traffic().bytes_sent;
    const auto table = multihull::mpi::broadcast_value(numbers);
    std::set<int> ranks;
    while (ranks.size() < 4) {
        const auto look = [](const Numbers& values, int) { return std::pair(rank_process(), values->at(999'999)); };
        std::vector<multihull::Future<std::pair<int, int>>> futures;
        for (int i = 0; i < 40; ++i) futures.push_back(executor.submit(look, table, i));
        for (const auto& future : futures) {
            const auto [rank, number] = future.get();
            EXPECT_EQ(number, 2);
            ranks.insert(rank);
        }
    }
    EXPECT_EQ(executor.submit(sum, table).get(), 2'000'000U);
    // To ranks 2 and 1; rank 3 has it from rank 2.
    const std::uint64_t sent = session->traffic().bytes_sent - before;
    EXPECT_GE(sent, 2 * sizeof(int) * numbers.size());
    EXPECT_LT(sent, 3 * sizeof(int) * numbers.size());
}

TEST(Ranks, only_tasks_that_read_a_value_wait_for_it) {
    PoolExecutor executor({.processes = 1});
    std::map<int, pid_t> ranks;
    const auto own = [](int) { return std::pair(rank_number(), rank_process()); };
    while (ranks.size() < 4) {
        for (const auto& rank : executor.map(own, std::views::iota(0, 40))) ranks.insert(rank);
    }
    const auto look = [](const Numbers& table, std::size_t i) { return (*table)[i]; };
    std::vector<multihull::Future<int>> readers;
    std::vector<multihull::Future<std::pair<int, pid_t>>> others;
    Numbers table;
    {
        const Stopped stopped(ranks[2]);    // which is to hand it on to rank 3
        table = multihull::mpi::broadcast_value(std::vector<int>(100'000, 7));
        for (std::size_t i = 0; i < 12; ++i) readers.push_back(executor.submit(look, table, i));
        EXPECT_TRUE(test::eventually([&] {
            for (int i = 0; i < 8 && others.size() < 4000; ++i) others.push_back(executor.submit(own, i));
            return std::ranges::any_of(others,
                                       [](const auto& future) { return future.ready() && future.get().first == 3; });
        }));
    }
    for (const auto& future : readers) EXPECT_EQ(future.get(), 7);
}

TEST(Ranks, a_call_keeps_the_value_that_it_names_beside_what_is_given_away_or_lent) {
    PoolExecutor executor({.processes = 1});
    test::Board board;
    const auto look = [](const std::string& path, const Numbers& table, std::span<const std::uint64_t> big) {
        test::hold(path, 0);
        return sum_of(big) + static_cast<std::uint64_t>(table->back());
    };
    const std::vector<std::uint64_t> lent(100'000, 1);
    std::vector<multihull::Future<std::uint64_t>> futures;
    for (int i = 0; i < 8; ++i) {
        const auto table =
            multihull::mpi::broadcast_value(std::vector<int>(1000, 7));    // the caller's handle is soon gone
        futures.push_back(i % 2 == 0 ? executor.submit(look, board.path(), table, std::cref(lent))
                                     : executor.submit(look, board.path(), table, std::vector<std::uint64_t>(lent)));
    }
    ASSERT_TRUE(board.wait_until_at_least(test::kHeld, 4));
    board[test::kLetGo] = 1;
    for (const auto& future : futures) EXPECT_EQ(future.get(), 100'007U);
}

TEST(Ranks, an_initializer_may_read_a_value) {
    static int prepared = 0;
    for (const std::size_t size : {100U, 1'000'000U}) {
        std::vector<int> numbers(size, 40);
        const auto table = multihull::mpi::broadcast_value(numbers);
        const auto prepare = [](const Numbers& values) { prepared = values->back(); };
        PoolExecutor executor({.processes = 1, .initializer = multihull::call(prepare, table)});
        for (const int x : executor.map([](int i) { return prepared + i; }, std::vector<int>(24, 2))) EXPECT_EQ(x, 42);
    }
}

TEST(Ranks, values_come_and_go_while_there_is_hardly_room) {
    PoolExecutor executor({.processes = 1});
    const auto look = [](const Numbers& table) { return table->front(); };
    std::deque<Numbers> tables;
    std::vector<int> numbers(5'000);    // more than a packet takes
    for (int i = 0; i < 2500; ++i) {
        numbers[0] = i;
        if (tables.size() == 1020) tables.pop_front();
        tables.push_back(multihull::mpi::broadcast_value(numbers));
        if (i % 50 != 0) continue;
        std::vector<multihull::Future<int>> futures;
        for (int j = 0; j < 8; ++j) futures.push_back(executor.submit(look, tables.back()));
        for (const auto& future : futures) EXPECT_EQ(future.get(), i);
    }
}

TEST(Ranks, two_executors_at_once) {
    PoolExecutor first(2);
    PoolExecutor second(4);
    auto a = first.map([](int x) { return x * 2; }, std::views::iota(0, 500));
    auto b = second.map([](int x) { return x * 3; }, std::views::iota(0, 500));
    auto other = b.begin();
    int i = 0;
    for (const int x : a) {
        EXPECT_EQ(x, 2 * i);
        EXPECT_EQ(*other, 3 * i);
        ++other;
        ++i;
    }
    EXPECT_EQ(i, 500);
}

TEST(Ranks, nobody_looks_again_and_again_while_a_task_takes_long) {
    if (far() || !multihull::mpi::Bells::supported()) GTEST_SKIP() << "there, somebody has to";
    PoolExecutor executor(1);    // of rank 1
    const auto take_long = [] {
        const auto [sleeps, ms] = looks_of(rank_process());
        std::this_thread::sleep_for(1s);
        const auto [more_sleeps, more_ms] = looks_of(rank_process());
        return std::pair(more_sleeps - sleeps, more_ms - ms);
    };
    static_cast<void>(executor.submit(rank_number).get());
    const auto [sleeps, ms] = looks_of(::getpid());
    const auto [ranks_sleeps, ranks_ms] = executor.submit(take_long).get();
    const auto [more_sleeps, more_ms] = looks_of(::getpid());
    // A hundred that no ring asks for, where there would be thousands.
    EXPECT_LT(ranks_sleeps, 400);
    EXPECT_LT(more_sleeps - sleeps, 400);
    EXPECT_LT(ranks_ms, 300);
    EXPECT_LT(more_ms - ms, 300);
}

}    // namespace
