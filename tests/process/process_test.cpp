// Process: its life from the outside, what it knows of itself, and what it leaves.
#include "support/board.hpp"
#include "support/run_self.hpp"
#include "support/sanitizer.hpp"
#include "support/start_methods.hpp"

#include <multihull/error.hpp>
#include <multihull/process.hpp>

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <iostream>
#include <memory>
#include <new>
#include <poll.h>
#include <stdexcept>
#include <string>
#include <sys/wait.h>
#include <thread>
#include <unistd.h>
#include <vector>

namespace {

using namespace std::chrono_literals;
using multihull::Process;
using test::Board;

void nothing() {}
void store(const std::string& path, int cell, long value) {
    Board board(path);
    board[static_cast<std::size_t>(cell)] = value;
}
void hold(const std::string& path) { test::hold(path, 0); }
void exit_with(int status) { std::exit(status); }
void raise_signal(int signal) { ::raise(signal); }
__attribute__((noinline)) void throw_it(const std::string& text) { throw std::out_of_range(text); }
void sleep_for_ever() {
    for (;;) ::pause();
}

class ProcessTest : public test::StartMethodTest {
protected:
    Board board_;
};
INSTANTIATE_TEST_SUITE_P(EachStartMethod, ProcessTest, test::each_start_method(), test::start_method_name);

TEST_P(ProcessTest, runs_a_function_with_arguments_in_a_process_of_its_own) {
    Process process(
        [](const std::string& path, const std::vector<int>& values) {
            Board board(path);
            board[1] = ::getpid();
            for (const int value : values) board[2] += value;
        },
        board_.path(), std::vector{1, 2, 3});
    EXPECT_EQ(process.pid(), std::nullopt);
    process.start();
    ASSERT_TRUE(process.pid().has_value());
    process.join();
    EXPECT_EQ(board_[1], *process.pid());
    EXPECT_NE(board_[1], ::getpid());
    EXPECT_EQ(board_[2], 6);
}

TEST_P(ProcessTest, tells_whether_it_lives_and_how_it_ended) {
    Process process(hold, board_.path());
    EXPECT_FALSE(process.is_alive());
    EXPECT_EQ(process.exitcode(), std::nullopt);
    process.start();
    EXPECT_TRUE(process.is_alive());
    EXPECT_EQ(process.exitcode(), std::nullopt);
    EXPECT_FALSE(process.join(1ms));
    board_[test::kLetGo] = 1;
    EXPECT_TRUE(process.join(test::kPatience));
    EXPECT_TRUE(process.join(0ns));
    process.join();
    EXPECT_FALSE(process.is_alive());
    EXPECT_EQ(process.exitcode(), 0);
}

TEST_P(ProcessTest, exit_codes_are_as_pythons) {
    const auto code_of = [](Process process) {
        process.start();
        process.join();
        return process.exitcode();
    };
    EXPECT_EQ(code_of(Process(nothing)), 0);
    EXPECT_EQ(code_of(Process(exit_with, 7)), 7);
    EXPECT_EQ(code_of(Process(exit_with, 0)), 0);
    EXPECT_EQ(code_of(Process([] { ::_exit(255); })), 255);
    EXPECT_EQ(code_of(Process(raise_signal, SIGKILL)), -SIGKILL);
    EXPECT_EQ(code_of(Process(raise_signal, SIGTERM)), -SIGTERM);
    EXPECT_EQ(code_of(Process(raise_signal, SIGSEGV)), -SIGSEGV);
    ::testing::internal::CaptureStderr();
    EXPECT_EQ(code_of(Process(throw_it, "text")), 1);
    EXPECT_EQ(code_of(Process([] { throw 5; })), 1);
    ::testing::internal::GetCapturedStderr();
}

TEST_P(ProcessTest, who_asks_at_the_very_end_is_told_the_exit_code) {
    for (int i = 0; i < (GetParam() == multihull::StartMethod::spawn ? 20 : 200); ++i) {
        Process process(exit_with, 7);
        process.start();
        while (!process.exitcode()) {}
        ASSERT_EQ(process.exitcode(), 7) << i;
    }
}

TEST_P(ProcessTest, DISABLED_throws) {
    Process process({.name = "unlucky"}, throw_it, "the very text");
    process.start();
    process.join();
}

TEST_P(ProcessTest, an_uncaught_exception_is_printed_with_type_text_and_stack) {
    const std::string output = test::output_of("DISABLED_throws");
    EXPECT_NE(output.find("unlucky"), std::string::npos) << output;
    EXPECT_NE(output.find("std::out_of_range"), std::string::npos) << output;
    EXPECT_NE(output.find("the very text"), std::string::npos) << output;
    EXPECT_NE(output.find("throw_it"), std::string::npos) << output;
}

TEST_P(ProcessTest, terminate_and_kill_end_it) {
    Process first(sleep_for_ever);
    Process second(sleep_for_ever);
    first.start();
    second.start();
    first.terminate();
    second.kill();
    first.join();
    second.join();
    EXPECT_EQ(first.exitcode(), -SIGTERM);
    EXPECT_EQ(second.exitcode(), -SIGKILL);
    // Of what has ended, nobody is left to be hit.
    first.terminate();
    second.kill();
    EXPECT_EQ(first.exitcode(), -SIGTERM);
}

TEST_P(ProcessTest, a_stopped_process_can_be_killed) {
    Process process(
        [](const std::string& path) {
            ++Board(path)[0];
            ::raise(SIGSTOP);
        },
        board_.path());
    process.start();
    ASSERT_TRUE(board_.wait_until_at_least(0, 1));
    process.kill();
    process.join();
    EXPECT_EQ(process.exitcode(), -SIGKILL);
}

TEST_P(ProcessTest, is_joined_when_its_object_ends) {
    {
        Process process(
            [](const std::string& path) {
                ::usleep(50'000);
                store(path, 4, 44);
            },
            board_.path());
        process.start();
    }
    EXPECT_EQ(board_[4], 44);
}

TEST_P(ProcessTest, a_daemon_is_ended_when_its_object_ends) {
    pid_t pid = 0;
    {
        Process process({.daemon = true}, sleep_for_ever);
        EXPECT_TRUE(process.daemon());
        process.start();
        pid = *process.pid();
    }
    EXPECT_NE(::kill(pid, 0), 0);
}

TEST_P(ProcessTest, is_ended_when_an_exception_leaves_its_scope) {
    pid_t pid = 0;
    try {
        Process process(sleep_for_ever);
        process.start();
        pid = *process.pid();
        throw std::runtime_error("away");
    } catch (const std::runtime_error&) {
        EXPECT_NE(::kill(pid, 0), 0);
    }
}

TEST_P(ProcessTest, what_was_never_started_ends_without_a_trace) {
    const Process process(nothing);
    EXPECT_FALSE(process.is_alive());
}

TEST_P(ProcessTest, misuse_is_told) {
    Process process(hold, board_.path());
    EXPECT_THROW(process.join(), multihull::Error);
    EXPECT_THROW(process.join(1s), multihull::Error);
    EXPECT_THROW(process.sentinel(), multihull::Error);
    process.terminate();
    process.start();
    EXPECT_THROW(process.start(), multihull::StartError);
    EXPECT_THROW(process.close(), multihull::Error);
    board_[test::kLetGo] = 1;
    process.join();
    process.close();
    process.close();
    EXPECT_THROW(process.start(), multihull::Error);
    EXPECT_THROW(process.join(), multihull::Error);
    EXPECT_THROW(static_cast<void>(process.is_alive()), multihull::Error);
    EXPECT_THROW(static_cast<void>(process.name()), multihull::Error);
}

TEST_P(ProcessTest, moves) {
    Process process(store, board_.path(), 5, 55L);
    Process other = std::move(process);
    other.start();
    std::vector<Process> list;
    list.push_back(std::move(other));
    list.emplace_back(store, board_.path(), 6, 66L);
    list.back().start();
    for (auto& each : list) each.join();
    EXPECT_EQ(board_[5], 55);
    EXPECT_EQ(board_[6], 66);
    Process assigned(nothing);
    assigned.start();
    assigned = std::move(list.front());
    EXPECT_EQ(assigned.exitcode(), 0);
}

TEST_P(ProcessTest, the_sentinel_becomes_readable_at_the_end) {
    Process process(hold, board_.path());
    process.start();
    pollfd entry{process.sentinel(), POLLIN, 0};
    EXPECT_EQ(::poll(&entry, 1, 0), 0);
    board_[test::kLetGo] = 1;
    EXPECT_EQ(::poll(&entry, 1, 60'000), 1);
    process.join();
}

TEST_P(ProcessTest, names_are_given_or_made) {
    Process named({.name = "greeter"}, nothing);
    EXPECT_EQ(named.name(), "greeter");
    const Process first(nothing);
    const Process second(nothing);
    EXPECT_EQ(first.name().rfind("Process-", 0), 0u);
    EXPECT_NE(first.name(), second.name());
}

TEST_P(ProcessTest, knows_itself_and_its_parent) {
    EXPECT_EQ(multihull::current_process().name(), "MainProcess");
    EXPECT_EQ(multihull::current_process().pid(), ::getpid());
    EXPECT_FALSE(multihull::parent_process().has_value());
    Process process(
        {.name = "child", .daemon = true},
        [](const std::string& path) {
            Board board(path);
            const auto self = multihull::current_process();
            const auto parent = multihull::parent_process();
            board[1] = self.pid() == ::getpid() ? 1 : 2;
            board[2] = self.name() == "child" ? 1 : 2;
            board[3] = self.daemon() ? 1 : 2;
            board[4] = parent ? parent->pid() : 0;
            board[5] = parent && parent->name() == "MainProcess" ? 1 : 2;
            board[6] = multihull::active_children().empty() ? 1 : 2;
        },
        board_.path());
    process.start();
    process.join();
    EXPECT_EQ(process.exitcode(), 0);
    EXPECT_EQ(board_[1], 1);
    EXPECT_EQ(board_[2], 1);
    EXPECT_EQ(board_[3], 1);
    EXPECT_EQ(board_[4], ::getpid());
    EXPECT_EQ(board_[5], 1);
    EXPECT_EQ(board_[6], 1);
}

TEST_P(ProcessTest, active_children_are_those_that_run) {
    EXPECT_TRUE(multihull::active_children().empty());
    Process first({.name = "first"}, hold, board_.path());
    Process second({.name = "second"}, hold, board_.path());
    first.start();
    second.start();
    auto children = multihull::active_children();
    ASSERT_EQ(children.size(), 2u);
    std::sort(children.begin(), children.end(), [](const auto& a, const auto& b) { return a.name() < b.name(); });
    EXPECT_EQ(children[0].name(), "first");
    EXPECT_EQ(children[0].pid(), *first.pid());
    EXPECT_EQ(children[1].name(), "second");
    first.kill();
    first.join();
    EXPECT_EQ(multihull::active_children().size(), 1u);
    board_[test::kLetGo] = 1;
    second.join();
    EXPECT_TRUE(multihull::active_children().empty());
}

TEST_P(ProcessTest, DISABLED_prints) {
    std::printf("<parent>");
    std::cout << "<stream>";
    Process process([] {
        std::printf("<child>");
        std::cout << "<child's stream>";
    });
    process.start();
    process.join();
    for (const bool by_exit : {true, false}) {
        Process ending(
            [](bool exits) {
                std::printf("<last words>");
                if (exits) std::exit(3);
                throw 3;
            },
            by_exit);
        ending.start();
        ending.join();
    }
    std::printf("<again>");
}

TEST_P(ProcessTest, output_is_flushed_and_nothing_is_printed_twice) {
    const std::string output = test::output_of("DISABLED_prints");
    for (const char* once : {"<parent>", "<stream>", "<child>", "<child's stream>", "<again>"}) {
        EXPECT_EQ(test::times(output, once), 1) << once << " in " << output;
    }
    EXPECT_EQ(test::times(output, "<last words>"), 2) << output;
}

TEST_P(ProcessTest, stdin_is_empty) {
    Process process(
        [](const std::string& path) {
            char byte = 0;
            store(path, 3, ::read(0, &byte, 1) == 0 ? 1 : 2);
        },
        board_.path());
    process.start();
    process.join();
    EXPECT_EQ(board_[3], 1);
}

TEST_P(ProcessTest, memory_is_limited) {
    Process process(
        {.limits = {.memory = std::size_t{64} << 20}},
        [](const std::string& path) {
            try {
                const std::vector<char> hog(std::size_t{1} << 30, 'x');
                store(path, 2, hog[5]);
            } catch (const std::bad_alloc&) {
                store(path, 2, 1);
            }
            const std::vector<char> small(std::size_t{8} << 20, 'x');
            store(path, 3, small.back());
        },
        board_.path());
    process.start();
    process.join();
    if (test::kAsan || test::kTsan) {
        // Their operator new ends the process instead of throwing.
        EXPECT_NE(process.exitcode(), 0);
        EXPECT_EQ(board_[2], 0);
        return;
    }
    EXPECT_EQ(board_[2], 1);
    EXPECT_EQ(board_[3], 'x');
}

TEST_P(ProcessTest, cpu_time_is_limited) {
    Process process({.limits = {.cpu_time = 1s}}, [] {
        for (volatile bool forever = true; forever;) {}
    });
    process.start();
    process.join();
    EXPECT_EQ(process.exitcode(), -SIGXCPU);
}

TEST_P(ProcessTest, big_arguments_arrive_whole) {
    std::vector<int> values(10'000'000, 3);
    values.back() = 4;
    Process process(
        [](const std::string& path, const std::vector<int>& v) {
            long sum = 0;
            for (const int value : v) sum += value;
            store(path, 7, sum);
        },
        board_.path(), values);
    process.start();
    process.join();
    EXPECT_EQ(board_[7], 30'000'001);
}

TEST_P(ProcessTest, may_have_children_of_its_own) {
    Process process(
        [](const std::string& path) {
            Process child(store, path, 8, 88L);
            child.start();
            child.join();
            store(path, 9, child.exitcode().value_or(-1000));
        },
        board_.path());
    process.start();
    process.join();
    EXPECT_EQ(process.exitcode(), 0);
    EXPECT_EQ(board_[8], 88);
    EXPECT_EQ(board_[9], 0);
}

TEST_P(ProcessTest, a_function_that_forks_and_returns_twice_ends_once_for_its_parent) {
    Process process([] {
        const pid_t child = ::fork();
        if (child == 0) ::_exit(3);
        ::waitpid(child, nullptr, 0);
    });
    process.start();
    process.join();
    EXPECT_EQ(process.exitcode(), 0);
}

TEST_P(ProcessTest, dies_with_its_parent) {
    // A child of the test that starts a process and is killed before it can clean up.
    Process parent(
        [](const std::string& path) {
            Process child(
                [](const std::string& p) {
                    store(p, 1, ::getpid());
                    sleep_for_ever();
                },
                path);
            child.start();
            Board(path).wait_until_at_least(1, 1);
            ::raise(SIGKILL);
        },
        board_.path());
    parent.start();
    parent.join();
    EXPECT_EQ(parent.exitcode(), -SIGKILL);
    const auto child = static_cast<pid_t>(board_[1].load());
    ASSERT_GT(child, 0);
    EXPECT_TRUE(test::eventually([&] { return ::kill(child, 0) != 0; }));
}

TEST_P(ProcessTest, many_start_and_end_and_leave_nothing) {
    const auto fds = [] {
        return std::distance(std::filesystem::directory_iterator("/proc/self/fd"),
                             std::filesystem::directory_iterator());
    };
    const auto some = [] {
        std::vector<Process> processes;
        for (int i = 0; i < 20; ++i) processes.emplace_back(exit_with, i);
        for (auto& process : processes) process.start();
        for (int i = 0; i < 20; ++i) {
            processes[static_cast<std::size_t>(i)].join();
            EXPECT_EQ(processes[static_cast<std::size_t>(i)].exitcode(), i);
        }
    };
    some();
    const auto before = fds();
    for (int i = 0; i < 5; ++i) some();
    EXPECT_TRUE(test::eventually([&] { return fds() <= before; }));
    EXPECT_TRUE(multihull::active_children().empty());
    // No zombies: this process has no child that has ended (the forkserver runs on).
    siginfo_t info{};
    EXPECT_TRUE(::waitid(P_ALL, 0, &info, WEXITED | WNOHANG | WNOWAIT) != 0 || info.si_pid == 0);
}

TEST_P(ProcessTest, may_be_started_from_many_threads) {
    std::vector<std::thread> threads;
    std::atomic<int> good{0};
    for (int t = 0; t < 4; ++t) {
        threads.emplace_back([&good, t] {
            for (int i = 0; i < 5; ++i) {
                Process process(exit_with, t * 10 + i);
                process.start();
                process.join();
                if (process.exitcode() == t * 10 + i) ++good;
            }
        });
    }
    for (auto& thread : threads) thread.join();
    EXPECT_EQ(good, 20);
}

TEST_P(ProcessTest, a_forked_copy_of_the_object_does_nothing) {
    Process process(hold, board_.path());
    process.start();
    const pid_t child = ::fork();
    if (child == 0) {
        {
            const Process moved = std::move(process);
        }
        ::_exit(multihull::active_children().empty() ? 6 : 7);
    }
    int status = 0;
    ::waitpid(child, &status, 0);
    EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 6) << status;
    EXPECT_TRUE(process.is_alive());
    board_[test::kLetGo] = 1;
    process.join();
    EXPECT_EQ(process.exitcode(), 0);
}

TEST_P(ProcessTest, cpu_count_is_what_this_process_may_use) {
    EXPECT_GE(multihull::cpu_count(), 1u);
    Process process(
        [](const std::string& path) {
            cpu_set_t one;
            CPU_ZERO(&one);
            cpu_set_t allowed;
            ::sched_getaffinity(0, sizeof allowed, &allowed);
            for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu) {
                if (CPU_ISSET(cpu, &allowed)) {
                    CPU_SET(cpu, &one);
                    break;
                }
            }
            ::sched_setaffinity(0, sizeof one, &one);
            store(path, 1, static_cast<long>(multihull::cpu_count()));
        },
        board_.path());
    process.start();
    process.join();
    EXPECT_EQ(board_[1], 1);
}

}    // namespace
