// stats(), insights(), trace(): what a pool says of its past agrees with what was done, whoever died meanwhile.
#include "os/clock.hpp"
#include "pool/trace_ring.hpp"
#include "support/board.hpp"
#include "support/start_methods.hpp"

#include <multihull/futures.hpp>
#include <multihull/parallel.hpp>
#include <multihull/pool.hpp>

#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <csignal>
#include <map>
#include <numeric>
#include <ranges>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

namespace {

using namespace std::chrono_literals;
using multihull::Pool;
using multihull::PoolStats;
using multihull::TaskOutcome;
using multihull::Trace;
using multihull::WorkerState;
using test::Board;

int square(int x) { return x * x; }
int fail(int) { throw std::out_of_range("beyond"); }
int crash(int) { return raise(SIGSEGV); }
int fail_or_crash(int x) {
    if (x == 3) throw std::out_of_range("three");
    if (x == 5) ::raise(SIGKILL);
    return x;
}
std::string repeat(std::string text) { return text + text; }
int hold(const std::string& path, int x) {
    Board board(path);
    ++board[0];
    board.wait_until_at_least(1, 1);
    return x;
}
void set_up(const std::string& path) { ++Board(path)[2]; }
struct Shift {
    int by = 0;
    int operator()(int x) const { return x + by; }
};

std::map<std::string, std::size_t> count_functions(const Trace& trace) {
    std::map<std::string, std::size_t> counts;
    for (const auto& event : trace.events)
        counts[trace.functions.at(event.function)] += std::max<std::size_t>(event.inputs, 1);
    return counts;
}

// What holds of every trace.
void expect_sound(const Trace& trace) {
    std::vector<std::chrono::nanoseconds> free_from(trace.workers, 0ns);
    for (const auto& event : trace.events) {
        ASSERT_LT(event.worker, trace.workers);
        ASSERT_LT(event.function, trace.functions.size());
        EXPECT_LE(event.submitted, event.started);
        EXPECT_LE(event.started, event.ended);
        EXPECT_GE(event.started, free_from[event.worker]) << "two tasks at once in one worker";
        free_from[event.worker] = event.ended;
        const bool lived = std::any_of(trace.processes.begin(), trace.processes.end(), [&](const auto& process) {
            return process.worker == event.worker && process.pid == event.pid && process.ready <= event.started &&
                   event.ended <= process.ended;
        });
        EXPECT_TRUE(lived) << "a task of process " << event.pid << " outside of its life";
    }
}

class Observe : public test::StartMethodTest {
protected:
    Board board_;
};

TEST_P(Observe, CountsCallsAndInputs) {
    Pool pool({.processes = 2});
    for (int i = 0; i < 10; ++i) EXPECT_EQ(pool.apply(square, i), i * i);
    EXPECT_THROW(pool.apply(fail, 1), std::out_of_range);
    EXPECT_EQ(pool.map(square, std::views::iota(0, 1000)).size(), 1000U);
    EXPECT_THROW(pool.map(fail_or_crash, {1, 2, 3, 4}), std::out_of_range);
    EXPECT_THROW(pool.map(fail_or_crash, {5}), multihull::WorkerCrashed);
    EXPECT_THROW(pool.apply(crash, 1), multihull::WorkerCrashed);
    EXPECT_EQ(pool.apply(repeat, std::string(100'000, 'x')).size(), 200'000U);
    const PoolStats stats = pool.stats();
    EXPECT_EQ(stats.done, 10U + 1000U + 3U + 1U);
    EXPECT_EQ(stats.failed, 2U);
    EXPECT_EQ(stats.crashed, 2U);
    EXPECT_EQ(stats.timed_out + stats.cancelled, 0U);
    EXPECT_EQ(stats.queued, 0U);
    EXPECT_EQ(stats.running, 0U);
    EXPECT_GE(stats.bytes_sent, 100'000U);
    EXPECT_GE(stats.bytes_received, 200'000U + 1000U * sizeof(int));
    EXPECT_EQ(stats.workers.size(), 2U);
    EXPECT_TRUE(test::eventually([&] { return pool.stats().restarts == 2; }));
}

TEST_P(Observe, SaysWhatRunsAndWhatWaits) {
    Pool pool({.processes = 2, .trace = true});
    std::vector<multihull::Future<int>> futures;
    for (int i = 0; i < 5; ++i) futures.push_back(pool.apply_async(hold, board_.path(), i));
    ASSERT_TRUE(board_.wait_until_at_least(0, 2));
    PoolStats stats = pool.stats();
    EXPECT_EQ(stats.running, 2U);
    EXPECT_EQ(stats.queued, 3U);
    for (const auto& worker : stats.workers) {
        EXPECT_EQ(worker.state, WorkerState::busy);
        EXPECT_NE(worker.task.find("hold("), std::string::npos) << worker.task;
        ASSERT_TRUE(worker.task_age);
        EXPECT_LE(*worker.task_age, stats.elapsed);
        EXPECT_GT(worker.pid, 0);
    }
    const auto running = pool.trace();
    EXPECT_EQ(std::ranges::count(running.events, TaskOutcome::running, &multihull::TraceEvent::outcome), 2);
    futures.back().cancel();
    EXPECT_EQ(pool.stats().cancelled, 1U);
    board_[1] = 1;
    for (int i = 0; i < 4; ++i) EXPECT_EQ(futures[static_cast<std::size_t>(i)].get(), i);
    stats = pool.stats();
    EXPECT_EQ(stats.done, 4U);
    const auto map = pool.map_async(square, std::views::iota(0, 100));
    map.wait();
    EXPECT_EQ(pool.stats().queued, 0U);
    pool.close();
    pool.join();
    for (const auto& worker : pool.stats().workers) EXPECT_EQ(worker.state, WorkerState::absent);
}

TEST_P(Observe, TracesEveryTaskOnce) {
    Pool pool({.processes = 2, .trace = true});
    for (int i = 0; i < 20; ++i) pool.apply(square, i);
    pool.map(Shift{2}, std::views::iota(0, 5000));
    pool.map([](int x) { return x + 1; }, {1, 2, 3});
    EXPECT_THROW(pool.apply(fail, 1), std::out_of_range);
    EXPECT_THROW(pool.apply(crash, 1), multihull::WorkerCrashed);
    EXPECT_THROW(pool.apply({.timeout = 30ms}, hold, board_.path(), 1), multihull::TaskTimeout);
    const Trace trace = pool.trace();
    expect_sound(trace);
    const auto counts = count_functions(trace);
    const auto of = [&](const std::string& part) {
        std::size_t count = 0;
        for (const auto& [name, n] : counts) count += name.find(part) != std::string::npos ? n : 0;
        return count;
    };
    EXPECT_EQ(of("square(int)"), 20U);
    EXPECT_EQ(of("Shift"), 5000U);
    EXPECT_EQ(of("lambda") + of("$_"), 3U);    // as g++ and as clang write it
    EXPECT_EQ(of("fail(int)"), 1U);
    EXPECT_EQ(of("crash(int)"), 1U);
    EXPECT_EQ(of("hold("), 1U);
    EXPECT_EQ(counts.size(), 6U);
    const auto with = [&](TaskOutcome outcome) {
        return std::ranges::count(trace.events, outcome, &multihull::TraceEvent::outcome);
    };
    EXPECT_EQ(with(TaskOutcome::exception), 1);
    EXPECT_EQ(with(TaskOutcome::crashed), 1);
    EXPECT_EQ(with(TaskOutcome::timed_out), 1);
    EXPECT_EQ(with(TaskOutcome::running), 0);
    ASSERT_EQ(trace.failures.size(), 2U);
    EXPECT_NE(trace.failures[0].what.find("SIGSEGV"), std::string::npos) << trace.failures[0].what;
    EXPECT_NE(trace.failures[0].function.find("crash"), std::string::npos);
    EXPECT_FALSE(trace.failures[0].stack.empty());
    EXPECT_NE(trace.failures[1].what.find("time-out"), std::string::npos) << trace.failures[1].what;
    EXPECT_EQ(trace.dropped, 0U);
}

TEST_P(Observe, InsightsAddUp) {
    Pool pool({.processes = 2, .initializer = {set_up, board_.path()}, .trace = true});
    for (int i = 0; i < 3; ++i) pool.apply(square, i);
    const auto slow = pool.apply_async(hold, board_.path(), 7);
    ASSERT_TRUE(board_.wait_until_at_least(0, 1));
    std::this_thread::sleep_for(20ms);    // so much is the least that it works
    board_[1] = 1;
    EXPECT_EQ(slow.get(), 7);
    pool.close();
    pool.join();
    const auto insights = pool.insights();
    EXPECT_TRUE(insights.traced);
    ASSERT_EQ(insights.workers.size(), 2U);
    std::chrono::nanoseconds work{0};
    for (const auto& worker : insights.workers) {
        EXPECT_LE(worker.start + worker.init + worker.wait + worker.work, insights.elapsed);
        EXPECT_GT(worker.start, 0ns);
        work += worker.work;
    }
    EXPECT_GE(work, 20ms);
    ASSERT_EQ(insights.slowest.size(), 4U);
    EXPECT_NE(insights.slowest[0].function.find("hold"), std::string::npos);
    EXPECT_GE(insights.slowest[0].work, 20ms);
    EXPECT_EQ(insights.restarts, 0U);
    EXPECT_TRUE(insights.failures.empty());
    EXPECT_NE(insights.to_string().find("hold"), std::string::npos);
}

INSTANTIATE_TEST_SUITE_P(By, Observe, test::each_start_method(), test::start_method_name);

TEST(Trace, IsRefusedWhereNoneIsKept) {
    Pool pool(1);
    EXPECT_EQ(pool.apply(square, 3), 9);
    try {
        static_cast<void>(pool.trace());
        FAIL();
    } catch (const multihull::Error& error) {
        EXPECT_NE(std::string(error.what()).find(".trace = true"), std::string::npos);
    }
    EXPECT_FALSE(pool.insights().traced);
    EXPECT_TRUE(pool.insights().slowest.empty());
    EXPECT_EQ(pool.insights().workers.front().done, 1U);
}

TEST(Trace, KeepsTheNewestWhereThereIsNoRoomForAll) {
    multihull::ProcessPoolExecutor executor({.processes = 1, .trace = true, .trace_capacity = 100});
    std::vector<multihull::Future<int>> futures;
    for (int i = 0; i < 1000; ++i) futures.push_back(executor.submit(square, i));
    for (int i = 0; i < 1000; ++i) EXPECT_EQ(futures[static_cast<std::size_t>(i)].get(), i * i);
    const Trace trace = executor.trace();
    EXPECT_EQ(trace.events.size(), 128U);
    EXPECT_EQ(trace.dropped, 872U);
    expect_sound(trace);
    EXPECT_EQ(executor.stats().done, 1000U);
}

// A reader that comes by at any moment sees whole events only, in order.
TEST(Trace, CanBeTakenWhileWorkersWrite) {
    Pool pool({.processes = 2, .trace = true, .trace_capacity = 64});
    std::vector<multihull::Future<int>> futures;
    std::jthread submitter([&] {
        for (int i = 0; i < 30'000; ++i) futures.push_back(pool.apply_async(square, i));
    });
    for (int i = 0; i < 200; ++i) {
        const Trace trace = pool.trace();
        expect_sound(trace);
        for (const auto& name : trace.functions) EXPECT_NE(name.find("square(int)"), std::string::npos);
    }
    submitter.join();
    for (auto& future : futures) future.wait();
    EXPECT_EQ(pool.stats().done, 30'000U);
}

// What a worker gone wild may have written: no index is taken from it, and no time that can't be.
TEST(Trace, ReadsARingThatHoldsAnything) {
    constexpr std::uint64_t kCapacity = 64;
    std::vector<std::uint64_t> memory(2 * multihull::detail::TraceRing::size(kCapacity) / sizeof(std::uint64_t));
    void* place = memory.data();
    std::size_t room = memory.size() * sizeof(std::uint64_t);
    auto& ring =
        *static_cast<multihull::detail::TraceRing*>(std::align(64, multihull::detail::TraceRing::size(kCapacity), place,
                                                               room));
    auto* const words = reinterpret_cast<std::uint64_t*>(&ring);
    const std::size_t count = multihull::detail::TraceRing::size(kCapacity) / sizeof(std::uint64_t);
    std::uint64_t state = 12345;
    for (int round = 0; round < 200; ++round) {
        for (std::size_t i = 0; i < count; ++i) words[i] = state = state * 6364136223846793005 + 1442695040888963407;
        // Stamps that fit, so that the rest is looked at.
        const std::uint64_t tail = round % 2 == 0 ? words[0] : static_cast<std::uint64_t>(round);
        ring.tail = tail;
        for (std::uint64_t number = tail - std::min(tail, kCapacity); number != tail; ++number)
            ring.events()[number % kCapacity].stamp = number + 1;
        const std::int64_t before = multihull::os::now_ns();
        const auto reading = multihull::detail::read_trace(ring, kCapacity, 1);
        EXPECT_LE(reading.entries.size(), kCapacity);
        for (const auto& entry : reading.entries) {
            EXPECT_GE(entry.submitted_ns, 1);
            EXPECT_LE(entry.submitted_ns, entry.started_ns);
            EXPECT_LE(entry.started_ns, entry.ended_ns);
            EXPECT_LE(entry.ended_ns, before + 60'000'000'000);
        }
    }
}

}    // namespace
