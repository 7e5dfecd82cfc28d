// Queues and processes in an event loop.
#include "asio/loop.hpp"

#include "os/fault.hpp"
#include "os/process.hpp"
#include "shm/region.hpp"
#include "support/start_methods.hpp"

#include <multihull/pool.hpp>
#include <multihull/process.hpp>
#include <multihull/queue.hpp>

#include <algorithm>
#include <atomic>
#include <csignal>
#include <filesystem>
#include <fstream>
#include <functional>
#include <memory>
#include <pthread.h>
#include <string>
#include <system_error>
#include <unistd.h>
#include <vector>

namespace {

namespace mh = multihull::asio;
namespace net = multihull::asio::net;
using namespace std::chrono_literals;
using namespace net::experimental::awaitable_operators;
using test::is;
using test::Kept;
using test::run;

// One type for most handlers: Asio compiles all of an operation anew for each.
using Got = std::function<void(std::exception_ptr, int)>;

TEST(Queues, each_kind_of_token) {
    net::io_context io;
    multihull::Queue<std::string> queue;
    run(io, [&]() -> net::awaitable<void> {
        co_await mh::async_put(queue, "a", net::use_awaitable);
        co_await mh::async_put(queue, "b", net::use_awaitable);
        EXPECT_EQ(co_await mh::async_get(queue, net::use_awaitable), "a");
        EXPECT_EQ(co_await mh::async_get(queue, net::use_awaitable), "b");
    });
    std::future<std::string> future = mh::async_get(queue, net::use_future);
    EXPECT_EQ(future.wait_for(0s), std::future_status::timeout);
    mh::async_put(queue, "c", net::use_future).get();
    EXPECT_EQ(future.get(), "c");
    Kept<std::string> kept;
    mh::async_get(queue, net::bind_executor(io, kept.callback()));
    io.restart();
    io.poll();
    EXPECT_EQ(kept.calls, 0);
    queue.put("d");
    io.run();
    EXPECT_EQ(kept.value, "d");
    EXPECT_EQ(kept.calls, 1);
}

void put_numbers(multihull::Queue<int> queue, int count) {
    for (int i = 0; i < count; ++i) queue.put(i);
}

TEST(Queues, another_process_puts_and_a_full_one_makes_wait) {
    net::io_context io;
    multihull::Queue<int> queue(4);
    multihull::Process putter(put_numbers, queue, 2'000);
    putter.start();
    run(io, [&]() -> net::awaitable<void> {
        for (int i = 0; i < 2'000; ++i) {
            const int got = co_await mh::async_get(queue, net::use_awaitable);
            if (got != i) ADD_FAILURE() << got << " in place of " << i;
        }
    });
    putter.join();

    for (int i = 0; i < 4; ++i) queue.put(i);
    int put = 0;
    for (int i = 4; i < 8; ++i) {
        mh::async_put(queue, i, net::bind_executor(io, [&](std::exception_ptr error) {
                          EXPECT_FALSE(error);
                          ++put;
                      }));
    }
    io.restart();
    io.poll();
    EXPECT_EQ(put, 0);
    std::vector<int> all;
    std::jthread getter([&] {
        for (int i = 0; i < 8; ++i) all.push_back(queue.get());
    });
    io.run();
    getter.join();
    EXPECT_EQ(put, 4);
    std::ranges::sort(all);
    EXPECT_EQ(all, (std::vector{0, 1, 2, 3, 4, 5, 6, 7}));
}

TEST(Queues, a_closed_one_tells_everybody) {
    net::io_context io;
    multihull::Queue<int> queue(1);
    std::vector<Kept<int>> kept(20);
    for (auto& one : kept) mh::async_get(queue, net::bind_executor(io, one.callback()));
    io.poll();
    queue.close();
    io.restart();
    io.run();
    for (auto& one : kept) EXPECT_TRUE(is<multihull::QueueClosed>(one.error));
    EXPECT_THROW(mh::async_put(queue, 1, net::use_future).get(), multihull::QueueClosed);
    EXPECT_THROW(mh::async_get(queue, net::use_future).get(), multihull::QueueClosed);
}

TEST(Queues, a_cancelled_get_leaves_the_message) {
    net::io_context io;
    multihull::Queue<int> queue;
    Kept<int> kept;
    net::cancellation_signal stop;
    mh::async_get(queue, net::bind_cancellation_slot(stop.slot(), net::bind_executor(io, kept.callback())));
    io.poll();
    stop.emit(net::cancellation_type::total);
    io.restart();
    io.run();
    EXPECT_TRUE(is<multihull::Cancelled>(kept.error));
    queue.put(1);
    EXPECT_EQ(queue.get(), 1);
    run(io, [&]() -> net::awaitable<void> {
        net::steady_timer timer(io, 1ms);
        const auto first = co_await (mh::async_get(queue, net::use_awaitable) || timer.async_wait(net::use_awaitable));
        EXPECT_EQ(first.index(), 1U);
        queue.put(2);
        timer.expires_after(1h);
        const auto second = co_await (mh::async_get(queue, net::use_awaitable) || timer.async_wait(net::use_awaitable));
        EXPECT_EQ(std::get<0>(second), 2);
    });
}

TEST(Queues, a_loop_that_was_told_and_never_looks_keeps_nothing_from_others) {
    auto io = std::make_unique<net::io_context>();
    net::io_context other;
    multihull::Queue<int> queue;
    // The first is told of the message, and its loop does not run.
    mh::async_get(queue, net::bind_executor(*io, Got([](std::exception_ptr, int) { ADD_FAILURE(); })));
    Kept<int> kept;
    mh::async_get(queue, net::bind_executor(other, kept.callback()));
    std::jthread sleeper([&, q = queue]() mutable { EXPECT_EQ(q.get(), 7); });
    queue.put(7);
    sleeper.join();
    queue.put(8);
    io.reset();    // what it was told is the other's
    other.run();
    EXPECT_EQ(kept.value, 8);
}

TEST(Queues, many_at_once_in_few_threads) {
    constexpr int kQueues = 150;    // more than the kernel waits for at once
    constexpr int kEach = 40;
    net::io_context io;
    std::vector<multihull::Queue<int>> queues;
    for (int i = 0; i < kQueues; ++i) queues.emplace_back();
    std::int64_t sum = 0;
    int got = 0;
    for (auto& queue : queues) {
        for (int i = 0; i < kEach; ++i) {
            mh::async_get(queue, net::bind_executor(io, Got([&](std::exception_ptr error, int value) {
                                                        EXPECT_FALSE(error);
                                                        sum += value;
                                                        ++got;
                                                    })));
        }
    }
    io.poll();
    std::size_t threads = 0;
    for (const auto& entry : std::filesystem::directory_iterator("/proc/self/task")) {
        std::string name;
        std::getline(std::ifstream(entry.path() / "comm"), name);
        threads += name == "mh-queues" ? 1U : 0U;
    }
    EXPECT_EQ(threads, 1U);
    std::jthread putter([&] {
        for (int i = 0; i < kEach; ++i) {
            for (auto& queue : queues) queue.put(i);
        }
    });
    io.restart();
    io.run();
    EXPECT_EQ(got, kQueues * kEach);
    EXPECT_EQ(sum, std::int64_t{kQueues} * kEach * (kEach - 1) / 2);
}

// Of a program that can have no thread; answers what went wrong, 0 for nothing.
int wait_without_a_watcher() {
    multihull::Queue<int> queue;
    sigset_t before;
    sigset_t after;
    ::pthread_sigmask(SIG_SETMASK, nullptr, &before);
    pthread_attr_t usual;
    pthread_attr_t too_much;    // no stack is so large
    ::pthread_getattr_default_np(&usual);
    ::pthread_getattr_default_np(&too_much);
    ::pthread_attr_setstacksize(&too_much, std::size_t{1} << 50);
    if (::pthread_setattr_default_np(&too_much) != 0) return 1;
    net::io_context io;
    Kept<int> kept;
    mh::async_get(queue, net::bind_executor(io, Got(kept.callback())));
    io.run();
    if (!is<std::system_error>(kept.error)) return 2;
    ::pthread_sigmask(SIG_SETMASK, nullptr, &after);
    if (::sigismember(&before, SIGTERM) != ::sigismember(&after, SIGTERM)) return 3;
    ::pthread_setattr_default_np(&usual);
    io.restart();
    mh::async_get(queue, net::bind_executor(io, Got(kept.callback())));
    queue.put(7);
    io.run();
    return kept.value == 7 && queue.empty() ? 0 : 4;
}

TEST(Queues, a_watcher_that_cannot_be_started_is_started_later) {
    // In a child, where there is no watcher yet.
    const pid_t pid = multihull::os::fork_process();
    if (pid == 0) ::_exit(wait_without_a_watcher());
    const auto status = multihull::os::reap(multihull::os::open_pidfd(pid), true);
    ASSERT_TRUE(status.has_value());
    EXPECT_EQ(status->code, 0);
}

TEST(Queues, several_loops_and_processes_share_one) {
    constexpr int kMessages = 3'000;
    multihull::Queue<int> queue(16);
    std::atomic<int> taken{0};
    std::vector<std::jthread> loops;
    for (int i = 0; i < 3; ++i) {
        loops.emplace_back([&] {
            net::io_context io;
            for (int k = 0; k < 4; ++k) {
                net::co_spawn(
                    io,
                    [&]() -> net::awaitable<void> {
                        for (;;) {
                            co_await mh::async_get(queue, net::use_awaitable);
                            ++taken;
                        }
                    },
                    [](std::exception_ptr error) { EXPECT_TRUE(is<multihull::QueueClosed>(error)); });
            }
            io.run();
        });
    }
    multihull::Process first(put_numbers, queue, kMessages);
    multihull::Process second(put_numbers, queue, kMessages);
    first.start();
    second.start();
    first.join();
    second.join();
    queue.close();
    loops.clear();
    EXPECT_EQ(taken.load(), 2 * kMessages);
}

TEST(Queues, a_context_that_ends_early_leaves_the_messages) {
    multihull::Queue<int> queue;
    {
        net::io_context io;
        for (int i = 0; i < 50; ++i) {
            mh::async_get(queue, net::bind_executor(io, Got([](std::exception_ptr, int) { ADD_FAILURE(); })));
        }
        for (int i = 0; i < 10; ++i) queue.put(i);
    }
    for (int i = 0; i < 10; ++i) EXPECT_EQ(queue.get(), i);
}

void take_numbers(multihull::Queue<int> queue) {
    for (;;) queue.get();
}

// The next process that comes by there is killed, as the nth to do so.
void arm(multihull::os::KillPoint point, std::uint32_t nth) {
    auto& points = multihull::shm::Region::instance().header().kill_points;
    points.countdown[static_cast<std::uint32_t>(point)].store(nth);
}

TEST(Queues, who_is_killed_in_the_middle_of_a_message_costs_no_more_than_that) {
    if (!multihull::os::kFailpoints) GTEST_SKIP() << "this build has no kill points";
    using multihull::os::KillPoint;
    net::io_context io;
    for (const bool published : {false, true}) {
        const int whole = published ? 3 : 2;
        multihull::Queue<int> queue;
        multihull::Process putter(put_numbers, queue, 1'000);
        arm(published ? KillPoint::put_published : KillPoint::put_slot_written, 3);
        putter.start();
        run(io, [&]() -> net::awaitable<void> {
            EXPECT_EQ(co_await mh::async_wait(putter, net::use_awaitable), -SIGKILL);
            co_await mh::async_put(queue, -1, net::use_awaitable);
            for (int i = 0; i < whole; ++i) EXPECT_EQ(co_await mh::async_get(queue, net::use_awaitable), i);
            EXPECT_EQ(co_await mh::async_get(queue, net::use_awaitable), -1);
        });
    }
    for (const bool counted : {false, true}) {
        const int taken = counted ? 3 : 2;
        multihull::Queue<int> queue(1);
        multihull::Process taker(take_numbers, queue);
        arm(counted ? KillPoint::get_taken : KillPoint::get_copied, 3);
        taker.start();
        run(io, [&]() -> net::awaitable<void> {
            // Those that the dead one has taken, and one that there is room for.
            for (int i = 0; i <= taken; ++i) co_await mh::async_put(queue, i, net::use_awaitable);
            EXPECT_EQ(co_await mh::async_wait(taker, net::use_awaitable), -SIGKILL);
            EXPECT_EQ(co_await mh::async_get(queue, net::use_awaitable), taken);
            co_await mh::async_put(queue, -1, net::use_awaitable);
            EXPECT_EQ(co_await mh::async_get(queue, net::use_awaitable), -1);
        });
    }
}

// Without the exit handlers: a copy of a program with threads, those of Asio too, can't run them.
void leave_with(int status) { ::_exit(status); }
void wait_for_ever(const std::string& path) {
    test::Board board(path);
    ++board[test::kHeld];
    for (;;) std::this_thread::sleep_for(1h);
}

class Processes : public testing::TestWithParam<multihull::StartMethod> {};

TEST_P(Processes, an_exit_is_awaited) {
    net::io_context io;
    test::Board board;
    const multihull::ProcessOptions options{.start_method = GetParam()};
    multihull::Process leaving(options, leave_with, 7);
    multihull::Process killed(options, wait_for_ever, board.path());
    multihull::Process staying(options, wait_for_ever, board.path());
    EXPECT_THROW(mh::async_wait(leaving, net::use_future), multihull::Error) << "it was not started";
    leaving.start();
    killed.start();
    staying.start();
    ASSERT_TRUE(board.wait_until_at_least(test::kHeld, 2));
    Kept<int> kept;
    mh::async_wait(killed, net::bind_executor(io, kept.callback()));
    run(io, [&]() -> net::awaitable<void> {
        EXPECT_EQ(co_await mh::async_wait(leaving, net::use_awaitable), 7);
        EXPECT_EQ(kept.calls, 0);
        killed.kill();
        EXPECT_EQ(co_await mh::async_wait(killed, net::use_awaitable), -SIGKILL);
        net::steady_timer timer(io, 1ms);
        const auto first =
            co_await (mh::async_wait(staying, net::use_awaitable) || timer.async_wait(net::use_awaitable));
        EXPECT_EQ(first.index(), 1U) << "the wait ends, the process goes on";
        EXPECT_TRUE(staying.is_alive());
    });
    EXPECT_EQ(kept.value, -SIGKILL);
    EXPECT_EQ(leaving.exitcode(), 7);
    EXPECT_EQ(mh::async_wait(leaving, net::use_future).get(), 7) << "of one that has ended";
    auto last = mh::async_wait(staying, net::use_future);
    multihull::Process moved = std::move(staying);
    moved.terminate();
    EXPECT_EQ(last.get(), -SIGTERM);
}

TEST_P(Processes, many_at_once) {
    net::io_context io;
    std::vector<multihull::Process> processes;
    int ended = 0;
    for (int i = 0; i < 40; ++i) {
        processes.emplace_back(multihull::ProcessOptions{.start_method = GetParam()}, leave_with, i);
        processes.back().start();
        mh::async_wait(processes.back(), net::bind_executor(io, [&ended, i](std::exception_ptr error, int code) {
                           EXPECT_FALSE(error);
                           EXPECT_EQ(code, i);
                           ++ended;
                       }));
    }
    io.run();
    EXPECT_EQ(ended, 40);
}

INSTANTIATE_TEST_SUITE_P(StartMethods, Processes, test::each_start_method(), test::start_method_name);

}    // namespace
