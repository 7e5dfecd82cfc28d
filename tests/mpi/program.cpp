// The program that runs under mpiexec: the executors' tests, or, with a word behind --victim, what trouble_test.cpp does harm to.
#include "support/board.hpp"

#include <multihull/futures.hpp>
#include <multihull/mpi.hpp>

#include <gtest/gtest.h>

#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstring>
#include <ranges>
#include <set>
#include <string>
#include <thread>
#include <unistd.h>
#include <vector>

namespace {

using multihull::mpi::PoolExecutor;

std::atomic<int> asked_to_end{0};

/// Kills the process of the worker's rank, unless that is rank 0.
int kill_rank(int rank_0, int x) {
    if (x == 7 && multihull::parent_process()->pid() != rank_0) {
        ::kill(multihull::parent_process()->pid(), SIGKILL);
        for (;;) ::pause();
    }
    return x;
}

int lose_a_rank() {
    PoolExecutor executor(2);    // of ranks 1 and 2
    int values = 0;
    int lost = 0;
    std::string why;
    std::vector<multihull::Future<int>> futures;
    for (int i = 0; i < 40; ++i) futures.push_back(executor.submit(kill_rank, ::getpid(), i));
    for (const auto& future : futures) {
        try {
            future.get();
            ++values;
        } catch (const multihull::BrokenPool& error) {
            ++lost;
            why = error.what();
        }
    }
    try {
        executor.submit(kill_rank, ::getpid(), 1);
    } catch (const multihull::BrokenPool&) {
        std::printf("refused\n");
    }
    std::printf("values and lost: %d, %s: %s\n", values + lost, lost > 0 ? "some" : "none", why.c_str());
    std::fflush(stdout);
    return 0;
}

int redo_elsewhere() {
    PoolExecutor executor(2);
    static_cast<void>(executor.submit([] {}));
    const auto kill_once = [](const std::string& path, int x) {
        if (x == 7 && test::Board(path)[0].fetch_add(1) == 0) {
            ::kill(multihull::parent_process()->pid(), SIGKILL);
            for (;;) ::pause();
        }
        return x;
    };
    test::Board board;
    int right = 0;
    std::vector<multihull::Future<int>> futures;
    for (int i = 0; i < 40; ++i) futures.push_back(executor.submit(kill_once, board.path(), i));
    for (int i = 0; i < 40; ++i) right += futures[static_cast<std::size_t>(i)].get() == i ? 1 : 0;
    std::printf("right: %d\n", right);
    std::fflush(stdout);
    return 0;
}

int end_when_asked() {
    ::signal(SIGTERM, [](int signal) { asked_to_end = signal; });
    PoolExecutor executor({.processes = 1});
    std::set<int> ranks{::getpid()};
    const auto find_ranks = [&] {
        for (const int rank :
             executor.map([](int) { return multihull::parent_process()->pid(); }, std::views::iota(0, 30)))
            ranks.insert(rank);
        return ranks.size() == 3;
    };
    while (!find_ranks()) {}
    auto results = executor.map(
        [](int x) {
            std::this_thread::sleep_for(std::chrono::milliseconds(1));
            return x;
        },
        std::views::iota(0));
    int kept = 0;
    for ([[maybe_unused]] const int x : results) {
        if (++kept == 20) {
            for (const int rank : ranks) std::printf("rank %d\n", rank);
            std::printf("begun\n");
            std::fflush(stdout);
        }
        if (asked_to_end != 0) break;
    }
    executor.kill_workers();
    std::printf("kept in order: %s\n", kept >= 20 ? "yes" : "no");
    std::fflush(stdout);
    return 0;
}

/// Works until somebody ends it.
int work_for_ever() {
    PoolExecutor executor({.processes = 1});
    for ([[maybe_unused]] const int x : executor.map([](int x) { return x; }, std::views::iota(0))) {
        if (x == 100) {
            std::printf("begun %d\n", ::getpid());
            std::fflush(stdout);
        }
    }
    return 0;
}

int be_a_victim(const std::string& what) {
    if (what == "lose") return lose_a_rank();
    if (what == "redo") return redo_elsewhere();
    if (what == "end") return end_when_asked();
    if (what == "work") return work_for_ever();
    PoolExecutor executor;
    std::printf("%d\n", executor.submit([](int x) { return x + 1; }, 41).get());
    return 0;
}

}    // namespace

// What the sanitizers' runtimes ask for: see tests/support/test_main.cpp. MPI leaves memory behind that is not ours to free.
extern "C" {
const char* __asan_default_options() {
    return "handle_segv=0:handle_sigbus=0:handle_sigill=0:handle_sigfpe=0:handle_abort=0";
}
int __lsan_is_turned_off() { return 1; }
}

int main(int argc, char** argv) {
    const bool victim = argc > 2 && std::strcmp(argv[1], "--victim") == 0;
    const std::string what = victim ? argv[2] : "";
    try {
        const auto lost = what == "redo" ? multihull::mpi::RankLost::redo : multihull::mpi::RankLost::fail;
        multihull::mpi::Session session(argc, argv, {.on_rank_lost = lost});
        if (victim) return be_a_victim(what);
        ::testing::InitGoogleTest(&argc, argv);
        return RUN_ALL_TESTS();
    } catch (const std::exception& error) {
        std::printf("refused: %s\n", error.what());
        std::fflush(stdout);
        return 3;
    }
}
