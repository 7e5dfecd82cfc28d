// Processes as the system has them: exit statuses, signals through pidfds, limits, death with the parent; and threads without signals.
#include "os/process.hpp"
#include "os/clock.hpp"
#include "os/fault.hpp"
#include "os/poll.hpp"
#include "os/thread.hpp"
#include "support/board.hpp"
#include "support/sanitizer.hpp"

#include <gtest/gtest.h>

#include <array>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstring>
#include <memory>
#include <new>
#include <pthread.h>
#include <string>
#include <sys/mman.h>
#include <sys/wait.h>
#include <system_error>
#include <thread>
#include <unistd.h>
#include <vector>

namespace {

namespace os = multihull::os;

// Runs a function in a forked child and answers the exit code, as reap() gives it.
template <class Function>
int code_of_child(Function function) {
    const pid_t pid = os::fork_process();
    if (pid == 0) {
        function();
        ::_exit(0);
    }
    const os::Fd pidfd = os::open_pidfd(pid);
    const auto status = os::reap(pidfd, true);
    EXPECT_TRUE(status.has_value());
    EXPECT_EQ(status->pid, pid);
    return status->code;
}

TEST(OsProcessTest, reap_tells_how_a_child_ended) {
    EXPECT_EQ(code_of_child([] {}), 0);
    EXPECT_EQ(code_of_child([] { ::_exit(42); }), 42);
    EXPECT_EQ(code_of_child([] { ::raise(SIGKILL); }), -SIGKILL);
    EXPECT_EQ(code_of_child([] { ::raise(SIGTERM); }), -SIGTERM);
}

TEST(OsProcessTest, reap_without_waiting_finds_nothing_while_the_child_runs) {
    const pid_t pid = os::fork_process();
    if (pid == 0) {
        for (;;) ::pause();
    }
    const os::Fd pidfd = os::open_pidfd(pid);
    EXPECT_EQ(os::reap(pidfd, false), std::nullopt);
    EXPECT_FALSE(os::wait_readable(pidfd.get(), os::now_ns() + 1'000'000));
    EXPECT_TRUE(os::signal_process(pidfd, SIGKILL));
    EXPECT_TRUE(os::wait_readable(pidfd.get(), os::kNever));
    const auto status = os::reap(pidfd, false);
    ASSERT_TRUE(status.has_value());
    EXPECT_EQ(status->code, -SIGKILL);
    EXPECT_FALSE(os::signal_process(pidfd, SIGKILL));
    EXPECT_EQ(os::reap(pidfd, true), std::nullopt);
}

TEST(OsProcessTest, a_child_dies_with_its_parent) {
    test::Board board;
    const int code = code_of_child([&] {
        const pid_t parent = ::getpid();
        if (::fork() == 0) {
            if (!os::die_with_parent(parent)) ::_exit(1);
            board[0] = ::getpid();
            for (;;) ::pause();
        }
        board.wait_until_at_least(0, 1);
        ::raise(SIGKILL);
    });
    EXPECT_EQ(code, -SIGKILL);
    const auto grandchild = static_cast<pid_t>(board[0].load());
    EXPECT_TRUE(test::eventually([&] { return ::kill(grandchild, 0) != 0; }));
}

TEST(OsProcessTest, die_with_parent_notices_that_it_came_too_late) {
    const pid_t nobody = 1;
    EXPECT_EQ(code_of_child([&] { ::_exit(os::die_with_parent(nobody) ? 1 : 7); }), 7);
}

TEST(OsProcessTest, a_subreaper_gets_the_orphans_below_it) {
    EXPECT_EQ(code_of_child([] {
                  os::become_subreaper();
                  const pid_t child = ::fork();
                  if (child == 0) {
                      if (::fork() == 0) {
                          for (;;) ::pause();
                      }
                      ::_exit(0);
                  }
                  ::waitpid(child, nullptr, 0);
                  std::array<pid_t, 8> pids{};
                  if (os::list_children(pids) != 1) ::_exit(3);
                  ::kill(pids[0], SIGKILL);
                  const auto orphan = ::waitpid(-1, nullptr, 0);
                  ::_exit(orphan == pids[0] ? 5 : 4);
              }),
              5);
}

TEST(OsProcessTest, private_memory_is_limited_and_freed_again) {
    EXPECT_EQ(code_of_child([] {
                  const std::size_t base = os::private_memory();
                  if (base == 0) ::_exit(5);
                  os::limit_private_memory(base, std::size_t{32} << 20);
                  try {
                      const std::vector<char> hog(std::size_t{256} << 20, 'x');
                      asm volatile("" : : "r"(hog.data()) : "memory");    // or clang makes none
                      ::_exit(4);
                  } catch (const std::bad_alloc&) {
                      // As it should be.
                  }
                  const std::vector<char> little(std::size_t{8} << 20, 'x');
                  // Shared mappings don't count.
                  void* const shared = ::mmap(nullptr, std::size_t{256} << 20, PROT_READ | PROT_WRITE,
                                              MAP_SHARED | MAP_ANONYMOUS, -1, 0);
                  if (shared == MAP_FAILED) ::_exit(2);
                  os::unlimit_private_memory();
                  const std::vector<char> hog(std::size_t{256} << 20, 'x');
                  ::_exit(hog.back() == little.back() ? 9 : 3);
              }),
              // Where they find no memory, sanitizers end the process with a status of their own.
              test::kAsan   ? 1
              : test::kTsan ? 66
                            : 9);
}

TEST(OsProcessTest, private_memory_grows_with_what_is_allocated) {
    const std::size_t before = os::private_memory();
    void* const memory =
        ::mmap(nullptr, std::size_t{64} << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    EXPECT_GE(os::private_memory(), before + (std::size_t{64} << 20));
    ::munmap(memory, std::size_t{64} << 20);
}

TEST(OsProcessTest, thread_count_counts_threads) {
    const std::size_t before = os::thread_count();
    std::atomic<bool> go{false};
    std::thread thread([&] {
        while (!go) std::this_thread::yield();
    });
    EXPECT_EQ(os::thread_count(), before + 1);
    go = true;
    thread.join();
    EXPECT_TRUE(test::eventually([&] { return os::thread_count() == before; }));
}

TEST(OsProcessTest, the_process_name_is_cut_to_what_the_system_keeps) {
    EXPECT_EQ(code_of_child([] {
                  os::set_process_name("a name that is longer than fifteen");
                  std::FILE* const file = std::fopen("/proc/self/comm", "r");
                  char name[64] = {};
                  if (file == nullptr || std::fgets(name, sizeof name, file) == nullptr) ::_exit(1);
                  ::_exit(std::string(name) == "a name that is \n" ? 8 : 2);
              }),
              8);
}

TEST(OsProcessTest, usable_cpus_follow_the_affinity) {
    EXPECT_GE(os::usable_cpus(), 1u);
    EXPECT_EQ(code_of_child([] {
                  cpu_set_t allowed;
                  ::sched_getaffinity(0, sizeof allowed, &allowed);
                  int first = 0;
                  while (!CPU_ISSET(first, &allowed)) ++first;
                  CPU_ZERO(&allowed);
                  CPU_SET(first, &allowed);
                  ::sched_setaffinity(0, sizeof allowed, &allowed);
                  ::_exit(static_cast<int>(os::usable_cpus()));
              }),
              1);
}

TEST(ClockTest, deadlines_saturate) {
    EXPECT_EQ(os::deadline_after(std::chrono::nanoseconds::max()), os::kNever);
    const std::int64_t passed = os::deadline_after(std::chrono::nanoseconds(-5));
    EXPECT_LE(passed, os::now_ns());
    const std::int64_t coming = os::deadline_after(std::chrono::hours(1));
    EXPECT_GT(coming, os::now_ns());
}

TEST(ClockTest, cpu_time_is_that_of_a_process) {
    EXPECT_GT(os::own_cpu_ns(), 0);
    EXPECT_GT(os::process_cpu_ns(::getpid()), 0);
    EXPECT_EQ(os::process_cpu_ns(-12345), -1);
}

sigset_t signals_kept_off() {
    sigset_t mask;
    ::pthread_sigmask(SIG_SETMASK, nullptr, &mask);
    return mask;
}

// Signals that the mask keeps off, of those that can be.
std::vector<int> listed(const sigset_t& mask) {
    std::vector<int> signals;
    for (int signal = 1; signal <= SIGRTMAX; ++signal) {
        if (signal != SIGKILL && signal != SIGSTOP && ::sigismember(&mask, signal) == 1) signals.push_back(signal);
    }
    return signals;
}

class OsThreadTest : public ::testing::Test {
protected:
    OsThreadTest() {
        sigset_t one;
        ::sigemptyset(&one);
        ::sigaddset(&one, SIGUSR2);
        ::pthread_sigmask(SIG_SETMASK, &one, &before_);
    }
    ~OsThreadTest() override { ::pthread_sigmask(SIG_SETMASK, &before_, nullptr); }

private:
    sigset_t before_;
};

TEST_F(OsThreadTest, takes_no_signals_and_its_maker_takes_those_it_took) {
    sigset_t all;
    ::sigfillset(&all);
    sigset_t inside;
    char name[16];
    os::start_thread("mh-test", [&] {
        inside = signals_kept_off();
        ::pthread_getname_np(::pthread_self(), name, sizeof name);
    }).join();
    EXPECT_EQ(listed(inside), listed(all));
    EXPECT_STREQ(name, "mh-test");
    EXPECT_EQ(listed(signals_kept_off()), std::vector<int>{SIGUSR2});
}

TEST_F(OsThreadTest, that_cannot_be_started_leaves_its_makers_signals_as_they_were) {
    // No stack is so large.
    pthread_attr_t before;
    pthread_attr_t too_much;
    ASSERT_EQ(::pthread_getattr_default_np(&before), 0);
    ASSERT_EQ(::pthread_getattr_default_np(&too_much), 0);
    ASSERT_EQ(::pthread_attr_setstacksize(&too_much, std::size_t{1} << 50), 0);
    ASSERT_EQ(::pthread_setattr_default_np(&too_much), 0);
    EXPECT_THROW(os::start_thread("mh-test", [] { ADD_FAILURE() << "it was started"; }), std::system_error);
    EXPECT_EQ(listed(signals_kept_off()), std::vector<int>{SIGUSR2});
    ASSERT_EQ(::pthread_setattr_default_np(&before), 0);
    bool ran = false;
    os::start_thread("mh-test", [&] { ran = true; }).join();
    EXPECT_TRUE(ran);
    ::pthread_attr_destroy(&before);
    ::pthread_attr_destroy(&too_much);
}

TEST(ErrnoTest, text_is_readable) { EXPECT_FALSE(os::errno_text(ENOENT).empty()); }

#ifdef MULTIHULL_FAILPOINTS
TEST(FaultTest, a_call_fails_once_when_its_time_comes) {
    os::fail_call(os::Call::pipe, EMFILE, 2);
    EXPECT_NO_THROW(os::make_pipe());
    EXPECT_THROW(os::make_pipe(), std::system_error);
    EXPECT_NO_THROW(os::make_pipe());
    os::fail_call(os::Call::fork, EAGAIN);
    EXPECT_EQ(os::fork_process(), -1);
    EXPECT_EQ(errno, EAGAIN);
    os::fail_call(os::Call::eventfd, EMFILE);
    os::clear_failures();
    EXPECT_NO_THROW(os::make_eventfd());
}
#endif

}    // namespace
