// Tasks of pools and executors in an event loop: each kind of token, cancellation, crashes, contexts that end early.
#include "asio/loop.hpp"

#include <multihull/futures.hpp>
#include <multihull/pool.hpp>

#include <atomic>
#include <csignal>
#include <functional>
#include <memory>
#include <numeric>
#include <ranges>
#include <stdexcept>
#include <sys/wait.h>
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

int square(int x) { return x * x; }
int add(int a, int b) { return a + b; }
std::string join(const std::string& a, const std::string& b) { return a + b; }
int fail(int x) { throw std::out_of_range("no " + std::to_string(x)); }
int crash(int) { return ::raise(SIGSEGV); }
void nothing() {}
// One type for most handlers: Asio compiles all of an operation anew for each.
using Callback = std::function<void(std::exception_ptr, int)>;
struct Hold {
    int operator()(const std::string& path) const { return test::hold(path, 1); }
};

TEST(Submit, a_coroutine_awaits_a_task) {
    net::io_context io;
    mh::Pool pool(io, 2);
    run(io, [&]() -> net::awaitable<void> {
        EXPECT_EQ(co_await pool.async_submit(square, 7, net::use_awaitable), 49);
        EXPECT_EQ(co_await pool.async_submit(join, "a", "b", net::use_awaitable), "ab");
        co_await pool.async_submit(nothing, net::use_awaitable);
        const std::vector<std::string> words{"x",
                                             "y"};    // not in the expression: g++ 12 can't have a list of values there
        EXPECT_EQ(co_await pool.async_submit([](std::vector<std::string> v) { return v.size(); }, words,
                                             net::use_awaitable),
                  2U);
    });
}

TEST(Submit, a_future_of_the_standard_library) {
    net::io_context io;
    mh::Pool pool(io, 1);
    std::future<int> future = pool.async_submit(square, 5, net::use_future);
    std::future<void> none = pool.async_submit(nothing, net::use_future);
    std::future<int> failed = pool.async_submit(fail, 5, net::use_future);
    EXPECT_EQ(future.get(), 25);
    none.get();
    EXPECT_THROW(failed.get(), std::out_of_range);
}

TEST(Submit, a_callback_is_called_once_in_the_loop) {
    net::io_context io;
    mh::Pool pool(io, 1);
    Kept<int> kept;
    pool.async_submit(square, 6, kept.callback());
    pool.apply(nothing);
    EXPECT_EQ(kept.calls, 0) << "never before the loop runs";
    io.run();
    EXPECT_EQ(kept.calls, 1);
    EXPECT_EQ(kept.value, 36);
    EXPECT_FALSE(kept.error);
    EXPECT_EQ(kept.thread, std::this_thread::get_id());
}

TEST(Submit, tokens_that_answer_nothing_and_later) {
    net::io_context io;
    mh::Pool pool(io, 1);
    pool.async_submit(square, 6, net::detached);
    io.run();
    // A deferred operation begins when it is called, with copies of its arguments.
    auto later = [&] {
        std::string left = "left";
        return pool.async_submit(join, left, std::string("right"), net::use_awaitable);
    }();
    run(io, [&]() -> net::awaitable<void> { EXPECT_EQ(co_await std::move(later), "leftright"); });
}

// An allocator that counts what of its memory is in use.
template <class T>
struct Counting {
    using value_type = T;
    std::shared_ptr<std::atomic<int>> live;

    explicit Counting(std::shared_ptr<std::atomic<int>> count) : live(std::move(count)) {}
    template <class U>
    Counting(const Counting<U>& other) : live(other.live) {}
    T* allocate(std::size_t n) {
        ++*live;
        return std::allocator<T>().allocate(n);
    }
    void deallocate(T* p, std::size_t n) {
        --*live;
        std::allocator<T>().deallocate(p, n);
    }
    bool operator==(const Counting&) const { return true; }
};

TEST(Submit, a_handlers_executor_and_allocator_are_its_own) {
    net::io_context io;
    mh::Pool pool(io, 1);
    net::thread_pool threads(1);
    std::promise<std::thread::id> told;
    auto strand = net::make_strand(threads);
    pool.async_submit(square, 2, net::bind_executor(strand, [&](std::exception_ptr, int) {
                          EXPECT_TRUE(strand.running_in_this_thread());
                          told.set_value(std::this_thread::get_id());
                      }));
    EXPECT_NE(told.get_future().get(), std::this_thread::get_id());
    threads.join();

    struct Handler {
        using allocator_type = Counting<char>;
        std::shared_ptr<std::atomic<int>> live;
        int* seen;
        allocator_type get_allocator() const noexcept { return allocator_type(live); }
        void operator()(std::exception_ptr, int) const { *seen = live->load(); }
    };
    auto live = std::make_shared<std::atomic<int>>(0);
    int seen = -1;
    pool.async_submit(square, 3, Handler{live, &seen});
    EXPECT_GT(live->load(), 0);
    io.restart();
    io.run();
    EXPECT_EQ(seen, 0) << "the operation's memory is given back before its handler is called";
    EXPECT_EQ(live->load(), 0);
}

TEST(Submit, failures_arrive_as_the_librarys_errors) {
    net::io_context io;
    mh::Pool pool(io, 1);
    run(io, [&]() -> net::awaitable<void> {
        EXPECT_THROW(co_await pool.async_submit(fail, 3, net::use_awaitable), std::out_of_range);
        try {
            co_await pool.async_submit(crash, 0, net::use_awaitable);
            ADD_FAILURE() << "no error";
        } catch (const multihull::WorkerCrashed& error) {
            EXPECT_EQ(error.signal(), SIGSEGV);
        }
        EXPECT_EQ(co_await pool.async_submit(square, 4, net::use_awaitable), 16);
        const multihull::TaskOptions short_time{.timeout = 10ms};
        const auto endless = [] {
            for (;;) std::this_thread::sleep_for(1ms);
        };
        EXPECT_THROW(co_await pool.async_submit(short_time, endless, net::use_awaitable), multihull::TaskTimeout);
    });
    pool.close();
    Kept<int> kept;
    pool.async_submit(square, 4, kept.callback());
    EXPECT_EQ(kept.calls, 0);
    io.restart();
    io.run();
    EXPECT_TRUE(is<multihull::PoolClosed>(kept.error));
}

TEST(Submit, every_executor) {
    net::io_context io;
    multihull::ProcessPoolExecutor processes(2);
    multihull::ThreadPoolExecutor threads(2);
    multihull::SerialExecutor serial;
    multihull::Pool pool(1);
    run(io, [&]() -> net::awaitable<void> {
        EXPECT_EQ(co_await mh::async_submit(processes, square, 3, net::use_awaitable), 9);
        EXPECT_EQ(co_await mh::async_submit(processes, {.timeout = 60s}, square, 3, net::use_awaitable), 9);
        EXPECT_EQ(co_await mh::async_submit(threads, square, 4, net::use_awaitable), 16);
        EXPECT_EQ(co_await mh::async_submit(serial, square, 5, net::use_awaitable), 25);
        EXPECT_EQ(co_await mh::async_submit(pool, square, 6, net::use_awaitable), 36);
        EXPECT_THROW(co_await mh::async_submit(threads, fail, 4, net::use_awaitable), std::out_of_range);
        EXPECT_THROW(co_await mh::async_submit(processes, crash, 4, net::use_awaitable), multihull::WorkerCrashed);
    });
    EXPECT_EQ(mh::async_submit(threads, square, 7, net::use_future).get(), 49);
    std::promise<int> told;
    mh::async_submit(pool, square, 8, Callback([&](std::exception_ptr, int value) { told.set_value(value); }));
    EXPECT_EQ(told.get_future().get(), 64) << "without any loop: in Asio's system executor";
}

TEST(Submit, maps) {
    net::io_context io;
    mh::Pool pool(io, 2);
    std::vector<int> squares(1000);
    for (int i = 0; i < 1000; ++i) squares[static_cast<std::size_t>(i)] = i * i;
    const std::vector<std::tuple<std::string, std::string>> pairs{{"a", "b"}, {"c", "d"}};
    const std::vector<std::string> joined{"ab", "cd"};
    const std::vector<int> two{1, 2};
    const std::vector<int> two_squares{1, 4};
    const multihull::TaskOptions one_by_one{.chunksize = 1};
    run(io, [&]() -> net::awaitable<void> {
        EXPECT_EQ(co_await pool.async_map(square, std::views::iota(0, 1000), net::use_awaitable), squares);
        EXPECT_EQ(co_await pool.async_starmap(join, pairs, net::use_awaitable), joined);
        EXPECT_EQ(co_await mh::async_map(pool, square, two, one_by_one, net::use_awaitable), two_squares);
        co_await pool.async_map([](int) {}, two, net::use_awaitable);
        EXPECT_THROW(co_await pool.async_map(fail, two, net::use_awaitable), std::out_of_range);
        EXPECT_THROW(co_await pool.async_map(crash, two, net::use_awaitable), multihull::WorkerCrashed);
    });
    EXPECT_EQ(pool.async_map(square, std::vector{3, 4}, net::use_future).get(), (std::vector{9, 16}));
    Kept<std::vector<int>> kept;
    pool.async_map(square, std::vector{5}, kept.callback());
    io.restart();
    io.run();
    EXPECT_EQ(kept.value, std::vector{25});
}

TEST(Submit, maps_of_executors) {
    net::io_context io;
    multihull::ProcessPoolExecutor processes(2);
    multihull::ThreadPoolExecutor threads(2);
    const std::vector<int> none;
    const std::vector<int> some{1, 2, 3};
    const std::vector<int> squares{1, 4, 9};
    const std::vector<std::pair<int, int>> pairs{{1, 2}, {3, 4}};
    const std::vector<int> sums{3, 7};
    run(io, [&]() -> net::awaitable<void> {
        EXPECT_EQ(co_await mh::async_map(processes, square, some, net::use_awaitable), squares);
        EXPECT_EQ(co_await mh::async_map(processes, square, none, net::use_awaitable), none);
        EXPECT_THROW(co_await mh::async_map(processes, crash, some, net::use_awaitable), multihull::WorkerCrashed);
        EXPECT_EQ(co_await mh::async_map(threads, square, some, net::use_awaitable), squares);
        EXPECT_EQ(co_await mh::async_starmap(threads, add, pairs, net::use_awaitable), sums);
    });
    test::Board board;
    Kept<std::vector<int>> kept;
    net::cancellation_signal stop;
    mh::async_map(processes, Hold{}, std::vector(5, board.path()),
                  net::bind_cancellation_slot(stop.slot(), net::bind_executor(io, kept.callback())));
    ASSERT_TRUE(board.wait_until_at_least(test::kHeld, 2));
    stop.emit(net::cancellation_type::terminal);
    io.restart();
    io.run();
    EXPECT_TRUE(is<multihull::Cancelled>(kept.error));
    EXPECT_EQ(board[test::kHeld].load(), 2) << "those that waited have not begun";
    processes.shutdown();
    mh::async_map(processes, square, some,
                  net::bind_cancellation_slot(stop.slot(), net::bind_executor(io, kept.callback())));
    io.restart();
    io.run();
    EXPECT_TRUE(is<multihull::PoolClosed>(kept.error));
}

TEST(Submit, a_future_is_waited_for_by_many_and_its_task_left_alone) {
    net::io_context io;
    test::Board board;
    mh::Pool pool(io, 1);
    const multihull::Future<int> future = pool.apply_async(test::hold, board.path(), 5);
    Kept<int> first;
    Kept<int> second;
    net::cancellation_signal stop;
    mh::async_wait(future, net::bind_executor(io, first.callback()));
    mh::async_wait(future, net::bind_cancellation_slot(stop.slot(), net::bind_executor(io, second.callback())));
    ASSERT_TRUE(board.wait_until_at_least(test::kHeld, 1));
    stop.emit(net::cancellation_type::terminal);
    while (second.calls == 0) io.run_one();
    EXPECT_TRUE(is<multihull::Cancelled>(second.error));
    EXPECT_EQ(first.calls, 0);
    EXPECT_FALSE(future.ready());
    ++board[test::kLetGo];
    io.run();
    EXPECT_EQ(first.value, 5);
    EXPECT_EQ(second.calls, 1);
    EXPECT_EQ(mh::async_wait(future, net::use_future).get(), 5);
    run(io, [&]() -> net::awaitable<void> { EXPECT_EQ(co_await mh::async_wait(future, net::use_awaitable), 5); });
}

TEST(Cancel, a_waiting_task_never_starts_and_a_running_one_costs_itself) {
    net::io_context io;
    test::Board board;
    mh::Pool pool(io, 1);
    Kept<int> running;
    Kept<int> waiting;
    Kept<int> other;
    net::cancellation_signal stop_running;
    net::cancellation_signal stop_waiting;
    pool.async_submit(test::hold, board.path(), 1,
                      net::bind_cancellation_slot(stop_running.slot(), running.callback()));
    ASSERT_TRUE(board.wait_until_at_least(test::kHeld, 1));
    pool.async_submit(test::hold, board.path(), 2,
                      net::bind_cancellation_slot(stop_waiting.slot(), waiting.callback()));
    pool.async_submit(square, 9, other.callback());

    stop_waiting.emit(net::cancellation_type::total);
    while (waiting.calls == 0) io.run_one();
    EXPECT_TRUE(is<multihull::Cancelled>(waiting.error));
    EXPECT_EQ(running.calls, 0);

    stop_running.emit(net::cancellation_type::total);    // it has begun: that can't be undone
    stop_running.emit(net::cancellation_type::terminal);
    io.run();
    EXPECT_TRUE(is<multihull::Cancelled>(running.error));
    EXPECT_EQ(other.value, 81);
    EXPECT_EQ(board[test::kHeld].load(), 1);
    stop_running.emit(net::cancellation_type::terminal);    // of nothing
}

TEST(Cancel, whichever_is_first) {
    net::io_context io;
    test::Board board;
    mh::Pool pool(io, 2);
    run(io, [&]() -> net::awaitable<void> {
        net::steady_timer timer(io, 1h);
        const auto first =
            co_await (pool.async_submit(square, 3, net::use_awaitable) || timer.async_wait(net::use_awaitable));
        EXPECT_EQ(std::get<0>(first), 9);
        timer.expires_after(1ms);
        const auto second = co_await (pool.async_submit(test::hold, board.path(), 1, net::use_awaitable) ||
                                      timer.async_wait(net::use_awaitable));
        EXPECT_EQ(second.index(), 1U);
        EXPECT_EQ(co_await pool.async_submit(square, 4, net::use_awaitable), 16);
        const auto [a, b] = co_await (pool.async_submit(square, 5, net::use_awaitable) &&
                                      pool.async_submit(square, 6, net::use_awaitable));
        EXPECT_EQ(a + b, 61);
    });
}

TEST(Cancel, a_map_and_a_thread) {
    net::io_context io;
    test::Board board;
    mh::Pool pool(io, 1);
    Kept<std::vector<int>> map;
    net::cancellation_signal stop;
    pool.async_map(Hold{}, std::vector{board.path(), board.path()},
                   net::bind_cancellation_slot(stop.slot(), map.callback()));
    ASSERT_TRUE(board.wait_until_at_least(test::kHeld, 1));
    stop.emit(net::cancellation_type::partial);
    io.run();
    EXPECT_TRUE(is<multihull::Cancelled>(map.error));

    multihull::ThreadPoolExecutor threads(1);
    Kept<int> running;
    Kept<int> waiting;
    net::cancellation_signal stop_waiting;
    mh::async_submit(threads, test::hold, board.path(), 3,
                     net::bind_cancellation_slot(stop.slot(), net::bind_executor(io, running.callback())));
    mh::async_submit(threads, square, 3,
                     net::bind_cancellation_slot(stop_waiting.slot(), net::bind_executor(io, waiting.callback())));
    ASSERT_TRUE(board.wait_until_at_least(test::kHeld, 2));
    stop.emit(net::cancellation_type::terminal);
    stop_waiting.emit(net::cancellation_type::terminal);
    io.restart();
    while (waiting.calls == 0) io.run_one();
    EXPECT_TRUE(is<multihull::Cancelled>(waiting.error));
    EXPECT_EQ(running.calls, 0) << "nobody can end a thread";
    ++board[test::kLetGo];
    io.run();
    EXPECT_EQ(running.value, 3);
}

// Counts those of a kind that live.
struct Alive {
    explicit Alive(int& count) : count_(&count) { ++*count_; }
    Alive(const Alive& other) : count_(other.count_) { ++*count_; }
    Alive& operator=(const Alive&) = delete;
    ~Alive() { --*count_; }
    int* count_;
};

TEST(Context, one_that_ends_early_takes_its_handlers_with_it_and_leaves_the_tasks) {
    test::Board board;
    multihull::Pool pool(1);
    int alive = 0;
    int called = 0;
    {
        net::io_context io;
        for (int i = 0; i < 100; ++i) {
            mh::async_submit(pool, test::hold, board.path(), i,
                             net::bind_executor(io, Callback([&, life = Alive(alive)](std::exception_ptr, int) {
                                                    ++called;
                                                })));
        }
        net::co_spawn(
            io,
            [&]() -> net::awaitable<void> {
                const Alive life(alive);
                co_await mh::async_submit(pool, test::hold, board.path(), 1, net::use_awaitable);
                ++called;
            },
            net::detached);
        ASSERT_TRUE(board.wait_until_at_least(test::kHeld, 1));
        io.poll();
        EXPECT_EQ(alive, 101);
    }
    EXPECT_EQ(alive, 0);
    ++board[test::kLetGo];
    pool.close();
    pool.join();
    EXPECT_EQ(called, 0);
    EXPECT_EQ(board[test::kHeld].load(), 101);
}

TEST(Context, ends_while_results_come) {
    multihull::Pool pool(2);
    for (int round = 0; round < 50; ++round) {
        int alive = 0;
        {
            net::io_context io;
            for (int i = 0; i < 100; ++i) {
                mh::async_submit(pool, square, i,
                                 net::bind_executor(io, Callback([life = Alive(alive)](std::exception_ptr, int) {})));
            }
            io.run_one();
        }
        ASSERT_EQ(alive, 0);
    }
}

TEST(Context, what_a_handler_owned_may_begin_another_operation_as_it_goes) {
    test::Board board;
    multihull::Pool pool(1);
    struct Again {
        multihull::Pool* pool;
        net::io_context* io;
        ~Again() {
            if (pool != nullptr)
                mh::async_submit(*pool, square, 1, net::bind_executor(*io, Callback([](std::exception_ptr, int) {})));
        }
    };
    {
        net::io_context io;
        auto again = std::make_shared<Again>(&pool, &io);
        mh::async_submit(pool, test::hold, board.path(), 1,
                         net::bind_executor(io, Callback([again](std::exception_ptr, int) {})));
    }
    ++board[test::kLetGo];
}

TEST(Many, thousands_at_once) {
    constexpr int kTasks = 20'000;
    net::io_context io;
    mh::Pool pool(io, 2);
    std::int64_t sum = 0;
    int failed = 0;
    for (int i = 0; i < kTasks; ++i) {
        if (i % 2'000 == 7) {
            pool.async_submit(crash, i, Callback([&](std::exception_ptr error, int) {
                                  failed += is<multihull::WorkerCrashed>(error) ? 1 : 0;
                              }));
        } else {
            net::co_spawn(
                io,
                [&, i]() -> net::awaitable<void> {
                    sum += co_await pool.async_submit([](int x) { return x; }, i, net::use_awaitable);
                },
                [](std::exception_ptr error) { EXPECT_FALSE(error); });
        }
    }
    io.run();
    EXPECT_EQ(failed, 10);
    std::int64_t expected = 0;
    for (int i = 0; i < kTasks; ++i) {
        if (i % 2'000 != 7) expected += i;
    }
    EXPECT_EQ(sum, expected);
}

TEST(Many, several_threads_run_one_loop) {
    net::io_context io(4);
    mh::Pool pool(io, 2);
    std::atomic<int> ended{0};
    std::atomic<int> cancelled{0};
    for (int chain = 0; chain < 100; ++chain) {
        net::co_spawn(
            net::make_strand(io),
            [&]() -> net::awaitable<void> {
                net::steady_timer timer(co_await net::this_coro::executor);
                for (int i = 0; i < 20; ++i) {
                    if (i % 5 == 4) {
                        timer.expires_after(std::chrono::microseconds(i * 20));
                        const auto first = co_await (pool.async_submit(square, i, net::use_awaitable) ||
                                                     timer.async_wait(net::use_awaitable));
                        cancelled += first.index() == 1 ? 1 : 0;
                    } else if (co_await pool.async_submit(square, i, net::use_awaitable) != i * i) {
                        co_return;
                    }
                }
                ++ended;
            },
            net::detached);
    }
    std::vector<std::jthread> threads;
    for (int i = 0; i < 4; ++i) threads.emplace_back([&] { io.run(); });
    threads.clear();
    EXPECT_EQ(ended.load(), 100);
    EXPECT_EQ(pool.apply(square, 3), 9);
}

// A process that was forked by a test and has passed says 0.
int child_status(pid_t child) {
    int status = -1;
    return ::waitpid(child, &status, 0) == child && WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

TEST(Fork, a_child_has_none_of_the_operations_and_can_have_its_own) {
    test::Board board;
    auto io = std::make_unique<net::io_context>();
    mh::Pool pool(*io, 1);
    Kept<int> kept;
    pool.async_submit(test::hold, board.path(), 4, kept.callback());
    ASSERT_TRUE(board.wait_until_at_least(test::kHeld, 1));
    std::jthread noise([&](const std::stop_token& stop) {
        net::io_context other;
        for (int i = 0; !stop.stop_requested(); ++i) {
            if (i > 5'000)
                std::this_thread::yield();    // they wait behind the one that holds the worker
            else
                mh::async_submit(pool, square, 1, net::bind_executor(other, Callback([](std::exception_ptr, int) {})));
            other.restart();
            other.poll();
        }
    });
    for (int i = 0; i < 20; ++i) {
        const pid_t child = ::fork();
        if (child == 0) {
            // The parent's operations are neither called nor waited for; those of the child say where it is.
            io->notify_fork(net::execution_context::fork_child);
            Kept<int> here;
            pool.async_submit(square, 1, here.callback());
            while (here.calls == 0) io->run_one();
            io.reset();
            ::_exit(is<multihull::PoolClosed>(here.error) && kept.calls == 0 ? 0 : 1);
        }
        ASSERT_EQ(child_status(child), 0);
    }
    noise.request_stop();
    noise.join();
    pool.terminate();
    io->run();
    EXPECT_TRUE(is<multihull::Cancelled>(kept.error));
}

}    // namespace
