// The program that runs under mpiexec: the executors' tests, or, with a word behind --victim, what trouble_test.cpp does harm to.
#include "os/fault.hpp"
#include "shm/region.hpp"
#include "support/board.hpp"

#include <multihull/futures.hpp>
#include <multihull/mpi.hpp>

#include <gtest/gtest.h>

#include <chrono>
#include <csignal>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <functional>
#include <map>
#include <numeric>
#include <ranges>
#include <set>
#include <span>
#include <string>
#include <sys/resource.h>
#include <thread>
#include <tuple>
#include <unistd.h>
#include <utility>
#include <vector>

multihull::mpi::Session* session = nullptr;

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

/// The launcher's other ranks of this machine have ended, and it has had time to end this one for that.
void wait_for_the_end_of_siblings() {
    const auto alone = [] {
        const std::string own = std::to_string(::getpid());
        const auto tasks = "/proc/" + std::to_string(::getppid()) + "/task";
        for (const auto& task : std::filesystem::directory_iterator(tasks)) {
            std::ifstream children(task.path() / "children");
            for (std::string child; children >> child;) {
                if (child != own) return false;
            }
        }
        return true;
    };
    while (!alone()) std::this_thread::sleep_for(std::chrono::milliseconds(1));
    std::this_thread::sleep_for(std::chrono::milliseconds(1500));
}

/// On the first rank it stays, on the second it kills that.
void stay(const std::string& path) {
    test::Board board(path);
    if (board[0].fetch_add(1) == 0) {
        board[1] = ::getpid();
    } else {
        board.wait_until_at_least(1, 1);
        ::kill(multihull::parent_process()->pid(), SIGKILL);
    }
    for (;;) ::pause();
}

/// A rank is lost while another one, which the launcher lets live, is at a task that nobody will have the result of.
int lose_one_of_two() {
    PoolExecutor executor(2);
    test::Board board;
    int lost = 0;
    const std::vector<multihull::Future<void>> futures{executor.submit(stay, board.path()),
                                                       executor.submit(stay, board.path())};
    for (const auto& future : futures) {
        try {
            future.get();
        } catch (const multihull::BrokenPool&) {
            ++lost;
        }
    }
    const auto other = static_cast<pid_t>(board[1].load());
    const bool ended = test::eventually([&] { return ::kill(other, 0) != 0; });
    std::printf("lost: %d, the other worker %s\n", lost, ended ? "has ended" : "goes on");
    std::fflush(stdout);
    return 0;
}

/// The first time that it runs late, and elsewhere than on rank 0, it kills its rank.
int kill_once(const std::string& path, int rank_0, int x, std::span<const int> big) {
    const pid_t rank = multihull::parent_process()->pid();
    if (x >= 7 && rank != rank_0 && test::Board(path)[0].fetch_add(1) == 0) {
        ::kill(rank, SIGKILL);
        for (;;) ::pause();
    }
    return big.back();
}

int redo_elsewhere(PoolExecutor&& executor) {
    static_cast<void>(executor.submit([] {}));
    test::Board board;
    int right = 0;
    std::vector<multihull::Future<int>> futures;
    // Given away, so that they are sent from where they are; copied into shared memory; and lent. All may be sent again.
    std::vector<std::vector<int>> rows;
    for (int i = 0; i < 40; ++i) rows.emplace_back(i % 4 == 0 ? 10 : 50'000, i);
    for (int i = 0; i < 40; ++i) {
        std::vector<int>& row = rows[static_cast<std::size_t>(i)];
        if (i % 4 == 1) {
            futures.push_back(executor.submit(kill_once, board.path(), ::getpid(), i, row));
        } else if (i % 4 == 2) {
            futures.push_back(executor.submit(kill_once, board.path(), ::getpid(), i, std::cref(row)));
        } else {
            futures.push_back(executor.submit(kill_once, board.path(), ::getpid(), i, std::move(row)));
        }
    }
    for (int i = 0; i < 40; ++i) right += futures[static_cast<std::size_t>(i)].get() == i ? 1 : 0;
    std::printf("right: %d\n", right);
    std::fflush(stdout);
    return 0;
}

/// A rank is lost while its only task's caller does the conductor's work.
int redo_one() {
    PoolExecutor executor(2);
    test::Board board;
    int right = 0;
    for (int i = 0; i < 40; ++i)
        right +=
            executor.submit(kill_once, board.path(), ::getpid(), i % 20, std::vector<int>(10, i)).get() == i ? 1 : 0;
    std::printf("right: %d\n", right);
    std::fflush(stdout);
    return 0;
}

/// A rank is lost that has sent more packets than rank 0, which is held meanwhile, has receives for: none of them comes whole.
int redo_flood() {
    PoolExecutor executor(2);
    test::Board board;
    const auto work = [](const std::string& path, int rank_0, int i) {
        const pid_t rank = multihull::parent_process()->pid();
        // Late, when the rank has many tasks ahead; it goes on with them until another process, as this one dies with it, ends it.
        if (i >= 200 && test::Board(path)[0].exchange(1) == 0) {
            ::kill(rank_0, SIGSTOP);
            const std::string later = "kill -9 " + std::to_string(rank) + "; kill -CONT " + std::to_string(rank_0);
            if (std::system(("(sleep 1; " + later + ") >&- 2>&- &").c_str()) != 0) std::abort();
        }
        return std::string(15'000, static_cast<char>('a' + i % 26));
    };
    int right = 0;
    std::vector<multihull::Future<std::string>> futures;
    for (int i = 0; i < 400; ++i) futures.push_back(executor.submit(work, board.path(), ::getpid(), i));
    for (int i = 0; i < 400; ++i) {
        const std::string text = futures[static_cast<std::size_t>(i)].get();
        right += text == std::string(15'000, static_cast<char>('a' + i % 26)) ? 1 : 0;
    }
    std::printf("right: %d\n", right);
    std::fflush(stdout);
    return 0;
}

/// The last number of a line of /proc/PID/status, bytes.
std::size_t bytes_of(pid_t pid, const std::string& name) {
    std::ifstream status("/proc/" + std::to_string(pid) + "/status");
    for (std::string line; std::getline(status, line);) {
        if (line.starts_with(name + ":")) return std::stoul(line.substr(name.size() + 1)) * 1024;
    }
    throw std::runtime_error("no " + name);
}

/// A rank gets no more memory: whatever becomes of its tasks is said, and nobody waits for ever.
int starve_a_rank() {
    PoolExecutor executor(1);    // of rank 1
    executor
        .submit([] {
            const pid_t rank = multihull::parent_process()->pid();
            const rlimit limit{bytes_of(rank, "VmData") + (std::size_t{1} << 20), RLIM_INFINITY};
            if (::prlimit(rank, RLIMIT_DATA, &limit, nullptr) != 0) throw std::runtime_error("prlimit");
        })
        .get();
    int whole = 0;
    int refused = 0;
    std::vector<std::size_t> sizes(40, 100);
    for (std::size_t i = 0; i < sizes.size(); i += 4) sizes[i] = std::size_t{4} << 20;
    for (int round = 0; round < 5; ++round) {
        try {
            for (const std::string& text :
                 executor.map([](std::size_t size) { return std::string(size, 'x'); }, sizes, {.chunksize = 10}))
                whole += text.empty() ? 0 : 1;
        } catch (const std::bad_alloc&) {
            ++refused;
        }
    }
    std::printf("settled: %d values, %d of 5 maps refused\n", whole, refused);
    std::fflush(stdout);
    return 0;
}

/// A rank and its workers in a control group that has little memory: what takes too much is killed, and is a worker.
int crowd_a_rank(const std::string& group) {
    PoolExecutor executor(1);    // of rank 1
    const auto move = [](const std::string& path) {
        const pid_t rank = multihull::parent_process()->pid();
        for (const pid_t pid : {rank, ::getppid(), ::getpid()}) {
            std::ofstream procs(path);
            procs << pid << std::flush;
            if (!procs) throw std::runtime_error("can't join " + path);
        }
        return rank;
    };
    const pid_t rank = executor.submit(move, group + "/cgroup.procs").get();
    const auto eat = [](std::size_t size) {
        const std::vector<char> taken(size, 1);
        return std::pair(taken.size(), multihull::parent_process()->pid());
    };
    int right = 0;
    int killed = 0;
    std::vector<multihull::Future<std::pair<std::size_t, pid_t>>> futures;
    for (std::size_t i = 0; i < 20; ++i)
        futures.push_back(executor.submit(eat, i % 5 == 2 ? std::size_t{1} << 30 : std::size_t{1000}));
    for (const auto& future : futures) {
        try {
            right += future.get() == std::pair(std::size_t{1000}, rank) ? 1 : 0;
        } catch (const multihull::WorkerCrashed& crash) {
            killed += crash.signal() == SIGKILL ? 1 : 0;
        }
    }
    std::printf("right: %d, killed: %d\n", right, killed);
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

int count_ranks() {
    PoolExecutor executor({.processes = 1});
    std::set<int> ranks;
    while (ranks.size() < 4) {
        for (const int rank :
             executor.map([](int) { return multihull::parent_process()->pid(); }, std::views::iota(0, 30)))
            ranks.insert(rank);
    }
    std::printf("workers: %zu\n", executor.max_workers());
    std::fflush(stdout);
    return 0;
}

/// The worker's rank, and its process.
std::pair<int, pid_t> own_rank() {
    const char* number = std::getenv("OMPI_COMM_WORLD_RANK");
    if (number == nullptr) number = std::getenv("PMI_RANK");
    if (number == nullptr) throw std::runtime_error("no number of the rank in its environment");
    return {std::stoi(number), multihull::parent_process()->pid()};
}

std::map<int, pid_t> find_ranks(PoolExecutor& executor, std::size_t count) {
    std::map<int, pid_t> ranks;
    while (ranks.size() < count) {
        for (const auto& rank : executor.map([](int) { return own_rank(); }, std::views::iota(0, 50)))
            ranks.insert(rank);
    }
    return ranks;
}

using Numbers = multihull::mpi::Broadcast<std::vector<int>>;

/// Has the process of one rank killed at a place on the way of the next value that it gets.
void arm(PoolExecutor& executor, int victim, multihull::os::KillPoint point) {
    const auto arm_own = [](int rank, std::uint32_t place) {
        if (own_rank().first != rank) return false;
        multihull::shm::Region::instance().header().kill_points.countdown[place] = 1;
        return true;
    };
    for (bool armed = false; !armed;) {
        std::vector<multihull::Future<bool>> futures;
        for (int i = 0; i < 20; ++i)
            futures.push_back(executor.submit(arm_own, victim, static_cast<std::uint32_t>(point)));
        for (const auto& future : futures) armed |= future.get();
    }
}

/// A rank is killed where it wakes another one, or is about to sleep; others do its tasks.
int lose_at_a_bell(const std::string& how) {
    using multihull::os::KillPoint;
    PoolExecutor executor({.processes = 1});
    const pid_t victim = find_ranks(executor, executor.max_workers()).at(1);
    const auto arm_own = [](pid_t rank, const std::string& path, std::uint32_t place) {
        if (own_rank().second != rank) return;
        multihull::shm::Region::instance().header().kill_points.countdown[place] = 1;
        test::Board there(path);
        there[0] = 1;
    };
    test::Board board;
    const auto place =
        static_cast<std::uint32_t>(how == "awaited" ? KillPoint::bell_awaited : KillPoint::bell_silenced);
    while (board[0] == 0) {
        std::vector<multihull::Future<void>> futures;
        for (int i = 0; i < 20; ++i) futures.push_back(executor.submit(arm_own, victim, board.path(), place));
        for (const auto& future : futures) future.get();
    }
    const auto square = [](int x) {
        std::this_thread::sleep_for(std::chrono::milliseconds(2));
        return x * x;
    };
    int wrong = 0;
    while (::kill(victim, 0) == 0) {
        int x = 0;
        for (const int y : executor.map(square, std::views::iota(0, 40))) {
            wrong += y == x * x ? 0 : 1;
            ++x;
        }
    }
    std::printf("lost, wrong: %d\n", wrong);
    std::fflush(stdout);
    return 0;
}

/// Ranks are killed while they hand values on. Of nine, 4 does to 6 and 5, 6 to 7, and 2 to 3.
int hand_on(const std::string& how, bool redo) {
    PoolExecutor executor({.processes = 1});
    std::map<int, pid_t> ranks = find_ranks(executor, executor.max_workers());
    const auto look = [](const Numbers& many, const Numbers& few, std::size_t i) {
        return std::tuple((*many)[i], few->back(), own_rank().first);
    };
    std::vector<int> numbers(1'000'000);
    std::iota(numbers.begin(), numbers.end(), 0);
    std::vector<Numbers> kept;
    int ended = 0;
    for (const int victim : redo ? std::vector{4, 6, 2} : std::vector{4}) {
        if (how == "announced") arm(executor, victim, multihull::os::KillPoint::value_announced);
        if (how == "received") arm(executor, victim, multihull::os::KillPoint::value_received);
        if (how == "forwarded") arm(executor, victim, multihull::os::KillPoint::value_forwarded);
        kept.push_back(multihull::mpi::broadcast_value(numbers));
        kept.push_back(multihull::mpi::broadcast_value(std::vector<int>(10, victim)));
        if (how == "signal") ::kill(ranks[victim], SIGKILL);
        ranks.erase(victim);
        // Whoever is left has both.
        for (std::set<int> seen; seen.size() < ranks.size();) {
            std::vector<multihull::Future<std::tuple<int, int, int>>> futures;
            try {
                for (std::size_t i = 0; i < 40; ++i) {
                    futures.push_back(executor.submit(look, kept.end()[-2], kept.end()[-1], i));
                }
            } catch (const multihull::BrokenPool&) {
                ranks.clear();
            }
            for (std::size_t i = 0; i < futures.size(); ++i) {
                try {
                    const auto [number, last, rank] = futures[i].get();
                    if (number != static_cast<int>(i) || last != victim || rank == victim) return 1;
                    seen.insert(rank);
                } catch (const multihull::BrokenPool&) {
                    ranks.clear();
                }
            }
        }
        ++ended;
    }
    std::printf("ended: %d, %s\n", ended, ranks.empty() ? "broken" : "all have them");
    std::fflush(stdout);
    return 0;
}

int be_a_victim(const std::string& what, const std::string& more) {
    if (what == "lose") return lose_a_rank();
    if (what == "lose-one") return lose_one_of_two();
    if (what == "redo") return redo_elsewhere(PoolExecutor(2));
    if (what == "redo-here") return redo_elsewhere(PoolExecutor({.processes = 1}));    // on rank 0, too
    if (what == "redo-one") return redo_one();
    if (what == "redo-flood") return redo_flood();
    if (what == "end") return end_when_asked();
    if (what == "work") return work_for_ever();
    if (what == "starve") return starve_a_rank();
    if (what == "crowd") return crowd_a_rank(more);
    if (what == "spawn") return count_ranks();
    if (what == "redo-values") return hand_on(more, true);
    if (what == "lose-values") return hand_on(more, false);
    if (what == "redo-bells") return lose_at_a_bell(more);
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
        const auto lost = what.starts_with("redo") ? multihull::mpi::RankLost::redo : multihull::mpi::RankLost::fail;
        // As between machines, where the environment says so.
        const bool near = std::getenv("MULTIHULL_TEST_FAR") == nullptr;
        multihull::mpi::Session own(argc, argv,
                                    {.on_rank_lost = lost, .spawn = what == "spawn" ? 3 : 0, .read_in_place = near});
        session = &own;
        if (victim) return be_a_victim(what, argc > 3 ? argv[3] : "");
        ::testing::InitGoogleTest(&argc, argv);
        return RUN_ALL_TESTS();
    } catch (const std::exception& error) {
        if (what == "refused-late") wait_for_the_end_of_siblings();
        std::printf("refused: %s\n", error.what());
        std::fflush(stdout);
        return 3;
    }
}
