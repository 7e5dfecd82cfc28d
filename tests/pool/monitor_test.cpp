// Looking on from another process: what is seen, who may see it, and that nobody who looks can hold a pool up.
#include "os/fault.hpp"
#include "os/unix_socket.hpp"
#include "pool/monitor_wire.hpp"
#include "support/board.hpp"

#include <multihull/monitor.hpp>
#include <multihull/pool.hpp>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <csignal>
#include <fcntl.h>
#include <optional>
#include <set>
#include <string>
#include <sys/socket.h>
#include <sys/wait.h>
#include <thread>
#include <unistd.h>
#include <vector>

namespace multihull {
namespace {

using namespace std::chrono_literals;
using test::eventually;
using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::SizeIs;

std::optional<PublishedProgram> program_of(PoolWatcher& watcher, pid_t pid) {
    for (PublishedProgram& program : watcher.look(10s)) {
        if (program.pid == pid) return std::move(program);
    }
    return std::nullopt;
}

std::optional<PublishedPool> pool_named(PoolWatcher& watcher, const std::string& name) {
    const auto program = program_of(watcher, getpid());
    if (!program) return std::nullopt;
    const auto pool = std::ranges::find(program->pools, name, [](const PublishedPool& p) { return p.stats.name; });
    return pool == program->pools.end() ? std::nullopt : std::optional(*pool);
}

std::string name_of(pid_t pid) {
    const std::string mine =
        std::string(detail::kMonitorPrefix) + std::to_string(geteuid()) + '/' + std::to_string(pid) + '/';
    const auto names = os::names_listened_at(mine);
    return names.empty() ? "" : names.front();
}

/// A process that runs the function and is then there until it is killed, with what it has forked.
class Child {
public:
    template <class Function>
    explicit Child(Function function) : pid_(::fork()) {
        if (pid_ != 0) return;
        function();
        for (;;) ::pause();
    }
    Child(const Child&) = delete;
    Child& operator=(const Child&) = delete;
    ~Child() { kill(); }

    pid_t pid() const { return pid_; }
    void kill() {
        if (pid_ <= 0) return;
        ::kill(pid_, SIGKILL);
        ::waitpid(std::exchange(pid_, 0), nullptr, 0);
    }

private:
    pid_t pid_;
};

int square(int x) { return x * x; }
[[gnu::noinline]] void crash(int signal) {
    ::raise(signal);
    asm volatile("");    // optimized, a call at the end is a jump, and leaves no frame on the stack
}

TEST(Monitor, ShowsWhatAPoolIsAt) {
    test::Board board;
    Pool pool({.processes = 2, .name = "visible", .publish = true});
    pool.map(square, {1, 2, 3});
    const auto held = pool.apply_async(test::hold, board.path(), 1);
    ASSERT_TRUE(board.wait_until_at_least(test::kHeld, 1));
    PoolWatcher watcher;
    const auto seen = pool_named(watcher, "visible");
    ASSERT_TRUE(seen);
    EXPECT_EQ(seen->stats.done, 3U);
    EXPECT_EQ(seen->stats.running, 1U);
    ASSERT_THAT(seen->stats.workers, SizeIs(2));
    ASSERT_THAT(seen->memory, SizeIs(2));
    const auto busy = std::ranges::find(seen->stats.workers, WorkerState::busy, &WorkerStats::state);
    ASSERT_NE(busy, seen->stats.workers.end());
    EXPECT_THAT(busy->task, HasSubstr("test::hold("));
    ASSERT_TRUE(busy->task_age);
    EXPECT_GT(*busy->task_age, 0ns);
    EXPECT_GT(busy->pid, 0);
    EXPECT_GT(seen->memory[static_cast<std::size_t>(busy - seen->stats.workers.begin())], 0U);
    const auto program = program_of(watcher, getpid());
    EXPECT_EQ(program->command.substr(0, 12), "pool_monitor");
    EXPECT_EQ(program->trouble, "");
    board[test::kLetGo] = 1;
    EXPECT_EQ(held.get(), 1);
}

TEST(Monitor, ShowsOnlyWhatWasPublished) {
    PoolWatcher watcher;
    {
        const Pool hidden({.processes = 1, .name = "hidden"});
        const Pool shown({.processes = 1, .name = "shown", .publish = true});
        EXPECT_FALSE(pool_named(watcher, "hidden"));
        EXPECT_TRUE(pool_named(watcher, "shown"));
        ::setenv("MULTIHULL_MONITOR", "1", 1);
        const Pool by_environment({.processes = 1, .name = "by environment"});
        const Pool refused({.processes = 1, .name = "refused", .publish = false});
        ::setenv("MULTIHULL_MONITOR", "0", 1);
        const Pool off({.processes = 1, .name = "off"});
        ::unsetenv("MULTIHULL_MONITOR");
        EXPECT_TRUE(pool_named(watcher, "by environment"));
        EXPECT_FALSE(pool_named(watcher, "refused"));
        EXPECT_FALSE(pool_named(watcher, "off"));
    }
    EXPECT_FALSE(pool_named(watcher, "shown"));
}

TEST(Monitor, ShowsEachDeathWhileLookedAt) {
    constexpr int kDeaths = 20;
    Pool pool({.processes = 2, .pass_stderr = false, .name = "dying", .publish = true});
    std::atomic<bool> over{false};
    // They look as fast as they can; some hang up before they are answered.
    std::vector<std::jthread> onlookers;
    for (int i = 0; i < 2; ++i) {
        onlookers.emplace_back([&over] {
            PoolWatcher watcher;
            while (!over) {
                watcher.look(10s);
                os::connect_now(name_of(getpid()));
            }
        });
    }
    std::vector<Future<void>> deaths;
    for (int i = 0; i < kDeaths; ++i) deaths.push_back(pool.apply_async(crash, i % 2 == 0 ? SIGSEGV : SIGKILL));
    for (const auto& death : deaths) EXPECT_THROW(death.get(), WorkerCrashed);
    EXPECT_EQ(pool.apply(square, 3), 9);
    over = true;
    onlookers.clear();
    PoolWatcher watcher;
    const auto seen = pool_named(watcher, "dying");
    ASSERT_TRUE(seen);
    EXPECT_EQ(seen->stats.crashed, static_cast<std::uint64_t>(kDeaths));
    EXPECT_GE(seen->stats.restarts, static_cast<std::uint64_t>(kDeaths) - 2);
    ASSERT_THAT(seen->failures, SizeIs(kDeaths));
    std::set<int> pids;
    for (const PublishedFailure& failure : seen->failures) {
        pids.insert(failure.pid);
        EXPECT_EQ(failure.outcome, TaskOutcome::crashed);
        EXPECT_THAT(failure.function, HasSubstr("crash(int)"));
        EXPECT_GE(failure.age, 0ns);
    }
    EXPECT_THAT(pids, SizeIs(kDeaths));
    const auto told =
        std::ranges::find_if(seen->failures, [](const auto& f) { return f.what.find("SIGSEGV") != std::string::npos; });
    ASSERT_NE(told, seen->failures.end());
    EXPECT_THAT(told->stack, HasSubstr("crash(int)"));
}

TEST(Monitor, WhoReadsNothingHoldsNobodyUp) {
    Pool pool({.processes = 1, .name = "undisturbed", .publish = true});
    std::vector<os::Fd> silent;
    ASSERT_TRUE(eventually([&] {
        os::Fd socket = os::connect_now(name_of(getpid()));
        if (socket) silent.push_back(std::move(socket));
        return silent.size() == 100;
    }));
    EXPECT_EQ(pool.apply(square, 4), 16);
    PoolWatcher watcher;
    EXPECT_TRUE(pool_named(watcher, "undisturbed"));
    EXPECT_EQ(pool.map(square, {1, 2, 3}), (std::vector<int>{1, 4, 9}));
}

#ifdef MULTIHULL_FAILPOINTS
TEST(Monitor, GoesOnWhenDescriptorsAreThereAgain) {
    Pool pool({.processes = 1, .name = "short of descriptors", .publish = true});
    PoolWatcher watcher;
    ASSERT_TRUE(pool_named(watcher, "short of descriptors"));
    os::fail_call(os::Call::accept, EMFILE);
    EXPECT_EQ(pool.apply(square, 5), 25);
    // The first look meets the failure, and is answered when it has passed.
    EXPECT_TRUE(eventually([&] { return pool_named(watcher, "short of descriptors").has_value(); }));
}

TEST(Monitor, APoolWithoutASocketWorks) {
    const Child child([] {
        os::fail_call(os::Call::socket, EMFILE);
        Pool pool({.processes = 1, .publish = true});
        ::_exit(pool.apply(square, 6) == 36 ? 0 : 1);
    });
    int status = 0;
    ::waitpid(child.pid(), &status, 0);
    EXPECT_EQ(status, 0);
}
#endif

TEST(Monitor, NothingIsLeftOfAKilledProgram) {
    test::Board board;
    Child child([&board] {
        static Pool pool({.processes = 1, .publish = true});
        pool.apply(square, 1);
        const pid_t grandchild = ::fork();    // has copies of all its descriptors
        if (grandchild == 0) {
            for (;;) ::pause();
        }
        board[2] = grandchild;
    });
    ASSERT_TRUE(board.wait_until_at_least(2, 1));
    const pid_t pid = child.pid();
    EXPECT_NE(name_of(pid), "");
    PoolWatcher watcher;
    EXPECT_TRUE(program_of(watcher, pid));
    child.kill();
    // Its last descriptors are closed when the kernel gets to it, and nobody has others.
    EXPECT_TRUE(eventually([&] { return name_of(pid).empty(); }));
    EXPECT_FALSE(program_of(watcher, pid));
    EXPECT_EQ(::kill(static_cast<pid_t>(board[2].load()), SIGKILL), 0);
}

TEST(Monitor, AProgramThatIsStoppedHasTrouble) {
    test::Board board;
    const Child child([&board] {
        static Pool pool({.processes = 1, .publish = true});
        pool.apply(square, 1);
        board[2] = 1;
    });
    ASSERT_TRUE(board.wait_until_at_least(2, 1));
    PoolWatcher watcher;
    ASSERT_TRUE(program_of(watcher, child.pid()));
    ::kill(child.pid(), SIGSTOP);
    ASSERT_TRUE(eventually([&] {
        const auto programs = watcher.look(20ms);
        const auto stopped = std::ranges::find(programs, child.pid(), &PublishedProgram::pid);
        return stopped != programs.end() && stopped->trouble.find("does not answer") != std::string::npos;
    }));
    ::kill(child.pid(), SIGCONT);
    EXPECT_TRUE(eventually([&] {
        const auto program = program_of(watcher, child.pid());
        return program && program->trouble.empty();
    }));
}

std::string bytes_from(const os::Fd& socket) {
    std::string bytes(64, '\0');
    const ssize_t n = ::recv(socket.get(), bytes.data(), bytes.size(), 0);
    bytes.resize(static_cast<std::size_t>(std::max<ssize_t>(n, 0)));
    return bytes;
}

TEST(Monitor, OtherUsersAreRefused) {
    if (geteuid() != 0) GTEST_SKIP() << "only root can be another user";
    const Pool pool({.processes = 1, .publish = true});
    const std::string name = name_of(getpid());
    const auto asks = [&name](uid_t user) {
        const pid_t pid = ::fork();
        if (pid == 0) {
            if (::setresuid(user, user, user) != 0) ::_exit(3);
            const os::Fd socket = os::connect_now(name);
            if (!socket) ::_exit(4);
            const int flags = ::fcntl(socket.get(), F_GETFL);
            ::fcntl(socket.get(), F_SETFL, flags & ~O_NONBLOCK);
            ::_exit(bytes_from(socket).empty() ? 1 : 0);
        }
        int status = 0;
        ::waitpid(pid, &status, 0);
        return WEXITSTATUS(status);
    };
    EXPECT_EQ(asks(0), 0);
    EXPECT_EQ(asks(65534), 1);
}

TEST(Monitor, ImpostorsAreNotBelieved) {
    PoolWatcher watcher;
    const auto listen = [](const std::string& user, pid_t pid) {
        os::Fd socket = os::make_unix_socket();
        os::listen_at(socket, std::string(detail::kMonitorPrefix) + user + '/' + std::to_string(pid) + "/1");
        return socket;
    };
    const std::string me = std::to_string(geteuid());
    // In another's name: the kernel says who really listens.
    const os::Fd for_init = listen(me, 1);
    EXPECT_FALSE(program_of(watcher, 1));
    const os::Fd for_another_user = listen("4294967294", getpid());
    const os::Fd nonsense = os::make_unix_socket();
    os::listen_at(nonsense, std::string(detail::kMonitorPrefix) + "who/knows");
    watcher.look(0ns);
}

TEST(Monitor, AnAnswerOfAnotherVersionIsTrouble) {
    test::Board board;
    const Child child([&board] {
        const os::Fd socket = os::make_unix_socket();
        os::listen_at(socket, std::string(detail::kMonitorPrefix) + std::to_string(geteuid()) + '/' +
                                  std::to_string(getpid()) + "/1");
        board[2] = 1;
        for (;;) {
            const os::Fd asked = os::accept_now(socket);
            if (asked) ::send(asked.get(), "HTTP/1.1 200", 12, MSG_NOSIGNAL);
            std::this_thread::sleep_for(1ms);
        }
    });
    ASSERT_TRUE(board.wait_until_at_least(2, 1));
    PoolWatcher watcher;
    const auto program = program_of(watcher, child.pid());
    ASSERT_TRUE(program);
    EXPECT_NE(program->trouble, "");
    EXPECT_THAT(program->pools, SizeIs(0));
}

}    // namespace
}    // namespace multihull
