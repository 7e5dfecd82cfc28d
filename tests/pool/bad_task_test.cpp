// Tasks gone wrong in every way we could think of: each costs itself alone, and its future says how it ended.
#include "support/board.hpp"
#include "support/run_self.hpp"
#include "support/sanitizer.hpp"
#include "support/start_methods.hpp"

#include <multihull/pool.hpp>

#include <gtest/gtest.h>

#include <array>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <iostream>
#include <map>
#include <memory>
#include <new>
#include <stdexcept>
#include <string>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <thread>
#include <unistd.h>
#include <vector>

namespace {

using namespace std::chrono_literals;
using multihull::Pool;
using multihull::WorkerCrashed;
using test::Board;
using test::thrown_by;

int square(int x) { return x * x; }

__attribute__((noinline)) void write_to(volatile int* place) { *place = 1; }
__attribute__((noinline)) int write_to_nowhere(int x) {
    write_to(reinterpret_cast<volatile int*>(std::uintptr_t{0xdead0}));
    return x;
}
volatile int deepest = -1;
__attribute__((noinline)) int overflow_the_stack(int depth) {
    volatile char room[4096];
    room[depth % 4096] = 1;
    return depth == deepest ? 0 : overflow_the_stack(depth + 1) + room[0];
}
__attribute__((noinline)) int call_abort(int x) {
    ::dprintf(2, "first line\nlast words of %d\n", x);
    std::abort();
}

void throw_one() { throw 1; }

struct ThrowsInDestructor {
    ~ThrowsInDestructor() noexcept(false) { throw std::logic_error("from a destructor"); }
};
struct TerminatesInDestructor {
    ~TerminatesInDestructor() { throw_now(); }
    static void throw_now() { throw std::logic_error("from a destructor that may not throw"); }
};

// A value whose encoding would be larger than all memory.
struct Enormous {
    std::uint64_t size = 0;
};

class Untravelled {
public:
    explicit Untravelled(std::string text) : text_(std::move(text)) {}

private:
    std::string text_;
};

class BadTaskTest : public test::StartMethodTest {
protected:
    Board board_;
};
INSTANTIATE_TEST_SUITE_P(EachStartMethod, BadTaskTest, test::each_start_method(), test::start_method_name);

}    // namespace

template <>
struct multihull::Codec<Enormous> {
    static void encode(detail::Writer& writer, const Enormous& value) { writer.claim(value.size); }
    static Enormous decode(detail::Reader&) { return {}; }
};

namespace {

TEST_P(BadTaskTest, a_crash_is_told_in_full) {
    Pool pool(1);
    const pid_t worker = pool.apply([] { return ::getpid(); });
    const auto error = thrown_by<WorkerCrashed>([&] { pool.apply(write_to_nowhere, 1); });
    EXPECT_EQ(error.signal(), SIGSEGV);
    EXPECT_EQ(error.signal_name(), "SIGSEGV");
    EXPECT_EQ(error.address(), 0xdead0u);
    EXPECT_EQ(error.exit_status(), std::nullopt);
    EXPECT_EQ(error.report().pid, worker);
    EXPECT_EQ(error.report().code, SEGV_MAPERR);
    EXPECT_EQ(error.report().sender_pid, 0);
    EXPECT_EQ(error.report().map_index, std::nullopt);
    EXPECT_NE(error.stack().to_string().find("write_to_nowhere"), std::string::npos) << error.stack().to_string();
    EXPECT_NE(std::string(error.what()).find("SIGSEGV"), std::string::npos) << error.what();
    EXPECT_NE(pool.apply([] { return ::getpid(); }), worker);
}

TEST_P(BadTaskTest, a_crash_gives_the_last_lines_of_stderr) {
    ::testing::internal::CaptureStderr();
    Pool pool(1);
    const auto error = thrown_by<WorkerCrashed>([&] { pool.apply(call_abort, 3); });
    EXPECT_EQ(error.signal(), SIGABRT);
    EXPECT_EQ(error.last_stderr(), "first line\nlast words of 3\n");
    EXPECT_EQ(error.report().sender_pid, error.report().pid);
    EXPECT_NE(std::string(error.what()).find("raised by itself"), std::string::npos) << error.what();
    EXPECT_NE(std::string(error.what()).find("last words of 3"), std::string::npos) << error.what();
    EXPECT_NE(error.stack().to_string().find("call_abort"), std::string::npos) << error.stack().to_string();
    // Of a task that said more than is kept, the end is kept.
    const auto talkative = thrown_by<WorkerCrashed>([&] {
        pool.apply([] {
            for (int i = 0; i < 20'000; ++i) ::dprintf(2, "line %d\n", i);
            std::abort();
        });
    });
    EXPECT_NE(talkative.last_stderr().find("line 19999\n"), std::string::npos);
    EXPECT_LT(talkative.last_stderr().size(), 20'000u);
    EXPECT_EQ(thrown_by<WorkerCrashed>([&] { pool.apply([] { ::raise(SIGKILL); }); }).last_stderr(), "");
    EXPECT_NE(::testing::internal::GetCapturedStderr().find("line 100\n"), std::string::npos);
}

TEST_P(BadTaskTest, without_captured_stderr_there_are_no_last_lines) {
    ::testing::internal::CaptureStderr();
    Pool pool({.processes = 1, .capture_stderr = false});
    EXPECT_EQ(thrown_by<WorkerCrashed>([&] { pool.apply(call_abort, 3); }).last_stderr(), "");
    ::testing::internal::GetCapturedStderr();
}

TEST_P(BadTaskTest, a_stack_overflow_is_a_crash) {
    Pool pool(1);
    const auto error = thrown_by<WorkerCrashed>([&] { pool.apply(overflow_the_stack, 0); });
    EXPECT_EQ(error.signal(), SIGSEGV);
    EXPECT_NE(error.stack().to_string().find("overflow_the_stack"), std::string::npos);
    EXPECT_EQ(pool.apply(square, 2), 4);
}

TEST_P(BadTaskTest, a_crash_in_a_thread_of_a_task_is_told) {
    Pool pool(1);
    const auto error =
        thrown_by<WorkerCrashed>([&] { pool.apply([] { std::thread([] { write_to_nowhere(1); }).join(); }); });
    EXPECT_EQ(error.signal(), SIGSEGV);
    EXPECT_NE(error.stack().to_string().find("write_to_nowhere"), std::string::npos);
}

TEST_P(BadTaskTest, a_crash_names_the_input_of_a_map) {
    Pool pool(2);
    const auto crash_at_37 = [](int x) { return x == 37 ? write_to_nowhere(x) : x; };
    for (const std::size_t chunksize : {0u, 1u, 100u}) {
        const auto error = thrown_by<WorkerCrashed>([&] {
            pool.map(crash_at_37, std::views::iota(0, 100), {.chunksize = chunksize});
        });
        EXPECT_EQ(error.report().map_index, std::size_t{37});
        EXPECT_NE(std::string(error.what()).find("37"), std::string::npos) << error.what();
    }
}

TEST_P(BadTaskTest, exit_is_told_with_its_status) {
    Pool pool(2);
    for (const int status : {0, 1, 77}) {
        const auto error = thrown_by<WorkerCrashed>([&] { pool.apply([](int s) { std::exit(s); }, status); });
        EXPECT_EQ(error.exit_status(), status);
        EXPECT_EQ(error.signal(), 0);
        EXPECT_EQ(error.signal_name(), "exit");
        EXPECT_EQ(thrown_by<WorkerCrashed>([&] { pool.apply([](int s) { ::_exit(s); }, status); }).exit_status(),
                  status);
        EXPECT_EQ(thrown_by<WorkerCrashed>([&] {
                      pool.apply([](int s) { std::quick_exit(s); }, status);
                  }).exit_status(),
                  status);
    }
    EXPECT_EQ(pool.apply(square, 3), 9);
    const auto error = thrown_by<WorkerCrashed>([&] {
        pool.map(
            [](int x) {
                if (x == 5) std::exit(2);
                return x;
            },
            std::views::iota(0, 10));
    });
    EXPECT_EQ(error.exit_status(), 2);
    EXPECT_EQ(error.report().map_index, std::size_t{5});
}

TEST_P(BadTaskTest, closing_every_descriptor_costs_nothing) {
    Pool pool(1);
    const auto close_all = [](int x) {
        for (int fd = 0; fd < 4096; ++fd) ::close(fd);
        return x + 1;
    };
    EXPECT_EQ(pool.apply(close_all, 1), 2);
    EXPECT_EQ(pool.apply(square, 3), 9);
    EXPECT_EQ(pool.map([](int x) { return std::to_string(x); }, {1, 2}), (std::vector<std::string>{"1", "2"}));
    EXPECT_EQ(pool.apply([](const std::vector<int>& v) { return v; }, std::vector<int>(1'000'000, 4)),
              std::vector<int>(1'000'000, 4));
    EXPECT_THROW(pool.apply([] { ::raise(SIGSEGV); }), WorkerCrashed);
    EXPECT_EQ(pool.apply(square, 3), 9);
}

TEST_P(BadTaskTest, a_copy_that_a_task_forks_and_that_returns_is_nobodys_result) {
    Pool pool(2);
    const auto fork_and_return = [](const std::string& path) {
        const pid_t child = ::fork();
        if (child == 0) {
            // The copy is first to return.
            return std::string("from the copy");
        }
        ::waitpid(child, nullptr, 0);
        ++Board(path)[0];
        return std::string("from the task");
    };
    for (int i = 0; i < 20; ++i) ASSERT_EQ(pool.apply(fork_and_return, board_.path()), "from the task");
    const auto plain = [](int x) {
        const pid_t child = ::fork();
        if (child == 0) return -1;
        ::waitpid(child, nullptr, 0);
        return x;
    };
    for (int i = 0; i < 20; ++i) ASSERT_EQ(pool.apply(plain, i), i);
    EXPECT_EQ(pool.map(plain, {1, 2, 3, 4, 5, 6}), (std::vector{1, 2, 3, 4, 5, 6}));
    EXPECT_EQ(pool.map(fork_and_return, std::vector<std::string>(6, board_.path())),
              std::vector<std::string>(6, "from the task"));
    EXPECT_EQ(board_[0], 26);
}

TEST_P(BadTaskTest, a_copy_that_a_task_forks_and_that_throws_is_nobodys_result) {
    Pool pool(1);
    const auto fork_and_throw = [](int x) {
        const pid_t child = ::fork();
        if (child == 0) throw std::runtime_error("from the copy");
        ::waitpid(child, nullptr, 0);
        return x;
    };
    for (int i = 0; i < 10; ++i) ASSERT_EQ(pool.apply(fork_and_throw, i), i);
    EXPECT_EQ(pool.map(fork_and_throw, {1, 2, 3}), (std::vector{1, 2, 3}));
    const auto nothing = [](const std::string& path) {
        const pid_t child = ::fork();
        if (child == 0) return;
        ::waitpid(child, nullptr, 0);
        ++Board(path)[0];
    };
    pool.map(nothing, std::vector<std::string>(5, board_.path()));
    EXPECT_EQ(board_[0], 5);
}

TEST_P(BadTaskTest, a_copy_that_outlives_the_task_that_forked_it_is_ended_with_its_worker) {
    pid_t copy = 0;
    {
        Pool pool(1);
        copy = pool.apply([] {
            const pid_t child = ::fork();
            if (child == 0) {
                for (;;) ::pause();
            }
            return child;
        });
        EXPECT_EQ(::kill(copy, 0), 0);
        EXPECT_EQ(pool.apply(square, 3), 9);
    }
    EXPECT_TRUE(test::eventually([&] { return ::kill(copy, 0) != 0; }));
}

TEST_P(BadTaskTest, a_destructor_that_throws_is_an_exception_or_an_abort) {
    ::testing::internal::CaptureStderr();
    Pool pool(1);
    EXPECT_THROW(pool.apply([] { const ThrowsInDestructor bad; }), std::logic_error);
    const auto while_unwinding = [] {
        const ThrowsInDestructor bad;
        throw std::runtime_error("first");
    };
    EXPECT_EQ(thrown_by<WorkerCrashed>([&] { pool.apply(while_unwinding); }).signal(), SIGABRT);
    EXPECT_EQ(thrown_by<WorkerCrashed>([&] { pool.apply([] { const TerminatesInDestructor bad; }); }).signal(),
              SIGABRT);
    EXPECT_EQ(pool.apply(square, 3), 9);
    ::testing::internal::GetCapturedStderr();
}

TEST_P(BadTaskTest, an_exception_that_cant_travel_comes_as_remote_error) {
    Pool pool(1);
    const auto error = thrown_by<multihull::RemoteError>([&] { pool.apply([] { throw Untravelled("x"); }); });
    EXPECT_NE(error.type_name().find("Untravelled"), std::string::npos);
    const auto big =
        thrown_by<std::runtime_error>([&] { pool.apply([] { throw std::runtime_error(std::string(1 << 20, 'e')); }); });
    // However long its text, what comes back is short enough to be read.
    EXPECT_EQ(std::string(big.what()).substr(0, 1000), std::string(1000, 'e'));
    EXPECT_LE(std::string(big.what()).size(), std::size_t{1} << 20);
}

TEST_P(BadTaskTest, terminate_in_a_task_is_a_crash) {
    ::testing::internal::CaptureStderr();
    Pool pool(1);
    EXPECT_EQ(thrown_by<WorkerCrashed>([&] { pool.apply([] { std::terminate(); }); }).signal(), SIGABRT);
    EXPECT_EQ(thrown_by<WorkerCrashed>([&] { pool.apply([]() noexcept { throw_one(); }); }).signal(), SIGABRT);
    EXPECT_EQ(thrown_by<WorkerCrashed>([&] {
                  pool.apply([] { std::thread([] { throw std::runtime_error("in a thread"); }).join(); });
              }).signal(),
              SIGABRT);
    ::testing::internal::GetCapturedStderr();
}

TEST_P(BadTaskTest, DISABLED_scribbles) {
    Pool pool(1);
    const auto scribble = [](int x) {
        const std::string noise(10'000, '\xff');
        static_cast<void>(!::write(0, noise.data(), noise.size()));
        static_cast<void>(!::write(1, noise.data(), noise.size()));
        std::printf("<printed>");
        std::cout << "<streamed>";
        char buffer[16];
        const bool nothing_to_read = ::read(0, buffer, sizeof buffer) <= 0;
        return nothing_to_read ? x : -1;
    };
    EXPECT_EQ(pool.apply(scribble, 1), 1);
    EXPECT_EQ(pool.apply(scribble, 2), 2);
    pool.apply([] {
        std::fclose(stdout);
        std::cin.putback('x');
        ::close(0);
        ::close(1);
    });
    EXPECT_EQ(pool.apply(square, 3), 9);
    EXPECT_EQ(pool.map(square, {1, 2}), (std::vector{1, 4}));
    std::printf("<parent>");
}

TEST_P(BadTaskTest, scribbling_on_stdin_and_stdout_disturbs_nobody) {
    const std::string output = test::output_of("DISABLED_scribbles");
    EXPECT_EQ(test::times(output, "<printed>"), 2);
    EXPECT_EQ(test::times(output, "<streamed>"), 2);
    EXPECT_EQ(test::times(output, "<parent>"), 1);
}

// The defined outcome of raise(signal) in a task.
enum class Outcome { crash, value, stops };

Outcome outcome_of(int signal) {
    switch (signal) {
        case SIGCHLD:
        case SIGCONT:
        case SIGURG:
        case SIGWINCH:
            return Outcome::value;    // ignored by every process
        case SIGINT:
            return Outcome::value;    // Ctrl-C is the program's to act on
        case SIGSTOP:
        case SIGTSTP:
        case SIGTTIN:
        case SIGTTOU:
            return Outcome::stops;
        default:
            return signal == SIGRTMAX - 1 ? Outcome::value : Outcome::crash;    // the one that asks for a stack
    }
}

TEST_P(BadTaskTest, each_signal_has_a_defined_outcome) {
    Pool pool({.processes = 2});
    const auto raise_it = [](int signal) {
        ::rlimit no_core{0, 0};
        ::setrlimit(RLIMIT_CORE, &no_core);
        ::raise(signal);
        return signal;
    };
    std::map<int, multihull::Future<int>> futures;
    for (int signal = 1; signal <= SIGRTMAX; ++signal) {
        if (signal >= 32 && signal < SIGRTMIN) continue;    // the C library's own
        if (outcome_of(signal) == Outcome::stops) continue;
        futures.emplace(signal, pool.apply_async(raise_it, signal));
    }
    for (const auto& [signal, future] : futures) {
        if (outcome_of(signal) == Outcome::value) {
            EXPECT_EQ(future.get(), signal);
        } else {
            const auto error = thrown_by<WorkerCrashed>([&] { future.get(); });
            EXPECT_EQ(error.signal(), signal);
            EXPECT_EQ(error.exit_status(), std::nullopt);
        }
    }
    // A stopped task never ends: its time-out ends it. (The kernel stops nobody without a shell to continue it, except by SIGSTOP.)
    EXPECT_THROW(pool.apply({.timeout = 100ms}, raise_it, SIGSTOP), multihull::TaskTimeout);
    for (const int signal : {SIGTSTP, SIGTTIN, SIGTTOU}) {
        try {
            EXPECT_EQ(pool.apply({.timeout = 100ms}, raise_it, signal), signal);
        } catch (const multihull::TaskTimeout&) {
            // It was stopped.
        }
    }
    EXPECT_EQ(pool.map(square, {1, 2, 3}), (std::vector{1, 4, 9}));
}

TEST_P(BadTaskTest, a_stopped_worker_can_be_cancelled_and_terminated) {
    Pool pool(2);
    const auto stopped = pool.apply_async(
        [](const std::string& path) {
            ++Board(path)[0];
            ::raise(SIGSTOP);
        },
        board_.path());
    ASSERT_TRUE(board_.wait_until_at_least(0, 1));
    EXPECT_TRUE(stopped.cancel());
    EXPECT_THROW(stopped.get(), multihull::Cancelled);
    pool.apply_async([] { ::raise(SIGSTOP); });
    pool.terminate();
}

TEST_P(BadTaskTest, a_result_too_big_for_memory_is_bad_alloc) {
    Pool pool(1);
    EXPECT_THROW(pool.apply([] { return Enormous{std::uint64_t{1} << 50}; }), std::bad_alloc);
    EXPECT_EQ(pool.apply(square, 3), 9);
    // The size is an argument because clang 16 dies of computing such a vector when it compiles.
    EXPECT_THROW(pool.apply([](std::size_t size) { return std::vector<char>(size); }, std::size_t{1} << 46),
                 test::OutOfMemory);
    EXPECT_EQ(pool.apply(square, 3), 9);
    EXPECT_THROW(pool.map([](int) { return Enormous{std::uint64_t{1} << 50}; }, {1, 2}), std::bad_alloc);
    EXPECT_EQ(pool.apply(square, 3), 9);
    // An argument is the caller's to hear of.
    EXPECT_THROW(pool.apply_async([](const Enormous&) { return 1; }, Enormous{std::uint64_t{1} << 50}), std::bad_alloc);
    EXPECT_THROW(pool.map([](const Enormous&) { return 1; }, std::vector{Enormous{std::uint64_t{1} << 50}}),
                 std::bad_alloc);
    EXPECT_EQ(pool.apply(square, 3), 9);
}

TEST_P(BadTaskTest, blocking_every_signal_or_handling_them_changes_nothing) {
    Pool pool(1);
    pool.apply([] {
        sigset_t all;
        sigfillset(&all);
        sigprocmask(SIG_BLOCK, &all, nullptr);
        for (int signal = 1; signal < 32; ++signal) ::signal(signal, SIG_IGN);
    });
    EXPECT_EQ(pool.apply(square, 3), 9);
    EXPECT_EQ(thrown_by<WorkerCrashed>([&] { pool.apply(write_to_nowhere, 1); }).signal(), SIGSEGV);
    EXPECT_EQ(pool.apply(square, 4), 16);
}

TEST_P(BadTaskTest, changing_the_folder_the_limits_or_the_session_changes_nothing_for_others) {
    Pool pool(1);
    pool.apply([] {
        static_cast<void>(!::chdir("/"));
        ::setsid();
        ::rlimit none{0, 0};
        ::setrlimit(RLIMIT_NOFILE, &none);
        ::setrlimit(RLIMIT_FSIZE, &none);
    });
    EXPECT_EQ(pool.apply([](const std::vector<int>& v) { return v.size(); }, std::vector<int>(1'000'000, 1)),
              1'000'000u);
    EXPECT_EQ(pool.apply([](std::size_t n) { return std::vector<int>(n, 7); }, 1'000'000u),
              std::vector<int>(1'000'000, 7));
}

TEST_P(BadTaskTest, one_bad_task_costs_that_task_alone) {
    ::testing::internal::CaptureStderr();
    Pool pool({.processes = 3, .task_timeout = 60s});
    std::vector<multihull::Future<int>> futures;
    for (int i = 0; i < 60; ++i) {
        futures.push_back(pool.apply_async(
            [](int x) {
                switch (x % 6) {
                    case 1:
                        return write_to_nowhere(x);
                    case 2:
                        std::exit(x);
                    case 3:
                        throw std::out_of_range("three");
                    case 4:
                        std::abort();
                    default:
                        return x;
                }
            },
            i));
    }
    for (int i = 0; i < 60; ++i) {
        const auto& future = futures[static_cast<std::size_t>(i)];
        switch (i % 6) {
            case 1:
                EXPECT_EQ(thrown_by<WorkerCrashed>([&] { future.get(); }).signal(), SIGSEGV);
                break;
            case 2:
                EXPECT_EQ(thrown_by<WorkerCrashed>([&] { future.get(); }).exit_status(), i);
                break;
            case 3:
                EXPECT_THROW(future.get(), std::out_of_range);
                break;
            case 4:
                EXPECT_EQ(thrown_by<WorkerCrashed>([&] { future.get(); }).signal(), SIGABRT);
                break;
            default:
                EXPECT_EQ(future.get(), i);
        }
    }
    ::testing::internal::GetCapturedStderr();
}

}    // namespace
