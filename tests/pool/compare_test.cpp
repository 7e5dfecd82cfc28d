// compare() and break_even(): what is measured, how often, and what it finds wrong.
#include "support/board.hpp"

#include <multihull/compare.hpp>
#include <multihull/error.hpp>
#include <multihull/process.hpp>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <csignal>
#include <stdexcept>
#include <string>
#include <unistd.h>
#include <vector>

namespace multihull {
namespace {

using namespace std::chrono_literals;
using ::testing::HasSubstr;
using ::testing::SizeIs;

int square(int x) { return x * x; }

struct Way {
    Prefer way;
    std::size_t jobs;
    bool operator==(const Way&) const = default;
};

std::vector<Way> ways_of(const Comparison& comparison) {
    std::vector<Way> ways;
    for (const ComparedWay& way : comparison.ways) ways.push_back({way.way, way.jobs});
    return ways;
}

TEST(Compare, MeasuresEachWayAsOftenAsAsked) {
    std::vector<std::size_t> told;
    const auto progress = [&](const Progress& now) {
        told.push_back(now.done);
        EXPECT_EQ(now.total, 10U);
    };
    const Comparison found = compare(square, {1, 2, 3}, {.jobs = {1, 3}, .repeat = 2, .progress = progress});
    EXPECT_EQ(ways_of(found), (std::vector<Way>{{Prefer::serial, 1},
                                                {Prefer::threads, 1},
                                                {Prefer::threads, 3},
                                                {Prefer::processes, 1},
                                                {Prefer::processes, 3}}));
    for (const ComparedWay& way : found.ways) {
        EXPECT_THAT(way.times, SizeIs(2));
        EXPECT_GT(way.fastest(), 0ns);
        EXPECT_LE(way.fastest(), way.median());
        EXPECT_LE(way.median(), way.slowest());
        EXPECT_EQ(way.median_start() > 0ns, way.way == Prefer::processes);
    }
    EXPECT_EQ(told, (std::vector<std::size_t>{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10}));
    EXPECT_TRUE(found.complete);
    EXPECT_EQ(found.same_results, true);
    EXPECT_EQ(found.items, 3U);
}

TEST(Compare, TriesThePowersOfTwoUpToTheProcessors) {
    const Comparison found = compare(square, {1}, {.repeat = 1, .ways = {Prefer::threads}});
    EXPECT_EQ(found.ways.front().jobs, 1U);
    EXPECT_EQ(found.ways.back().jobs, cpu_count());
    EXPECT_EQ(found.speed_up(found.ways.front()), std::nullopt);
}

TEST(Compare, KnowsResultsThatDiffer) {
    const auto parent = getpid();
    const auto here = [](pid_t expected) { return getpid() == expected; };
    EXPECT_EQ(compare(here, {parent, parent}, {.jobs = {2}, .repeat = 1}).same_results, false);
    const auto nothing = [](int) {};
    EXPECT_EQ(compare(nothing, {1}, {.jobs = {1}, .repeat = 1}).same_results, std::nullopt);
    const auto text = [](const std::string& word) { return word + "!"; };
    EXPECT_EQ(compare(text, std::vector<std::string>{"a", "b"}, {.jobs = {2}, .repeat = 2}).same_results, true);
}

TEST(Compare, ThrowsWhatACallThrows) {
    const auto fail = [](int x) -> int { throw std::out_of_range("no " + std::to_string(x)); };
    for (const Prefer way : {Prefer::serial, Prefer::threads, Prefer::processes}) {
        const auto error = test::thrown_by<std::out_of_range>([&] { compare(fail, {7}, {.ways = {way}}); });
        EXPECT_STREQ(error.what(), "no 7");
    }
    const auto crash = [](int signal) { raise(signal); };
    EXPECT_THROW(compare(crash, {SIGSEGV}, {.jobs = {1}, .ways = {Prefer::processes}}), WorkerCrashed);
}

TEST(Compare, RefusesWhatMeasuresNothing) {
    EXPECT_THROW(compare(square, std::vector<int>{}), std::invalid_argument);
    EXPECT_THROW(compare(square, {1}, {.jobs = {1, 0}}), std::invalid_argument);
    EXPECT_THROW(compare(square, {1}, {.repeat = 0}), std::invalid_argument);
    EXPECT_THROW(compare(square, {1}, {.ways = {}}), std::invalid_argument);
    EXPECT_THROW(break_even(Prefer::serial), std::invalid_argument);
}

TEST(Compare, StoppedEarlyItKeepsWhatItHas) {
    std::atomic<bool> stop{false};
    CompareOptions options{.jobs = {2}, .repeat = 3};
    options.progress = [&](const Progress& now) { stop = now.done == 4; };
    options.stop = [&] { return stop.load(); };
    const Comparison found = compare(square, {1, 2, 3}, options);
    EXPECT_FALSE(found.complete);
    std::size_t measured = 0;
    for (const ComparedWay& way : found.ways) measured += way.times.size();
    EXPECT_EQ(measured, 4U);
}

TEST(Compare, StopsProcessesAtWork) {
    const test::Board board;
    CompareOptions options{.jobs = {1}, .ways = {Prefer::processes}};
    const std::vector<std::string> paths{board.path()};
    options.stop = [&] { return test::Board(board.path())[test::kHeld] > 0; };
    const auto held = [](const std::string& path) { return test::hold(path, 1); };
    const Comparison found = compare(held, paths, options);
    EXPECT_FALSE(found.complete);
    EXPECT_THAT(found.to_string(), HasSubstr("not measured"));
    EXPECT_THROW(found.ways.front().median(), Error);
}

TEST(Compare, TableHasALineAWay) {
    Comparison comparison{.items = 2, .repeat = 3};
    comparison.ways = {{.way = Prefer::serial, .times = {30ms, 10ms, 20ms}, .starts = {0ns, 0ns, 0ns}},
                       {.way = Prefer::processes, .jobs = 4, .times = {4ms, 6ms}, .starts = {900us, 1100us}}};
    EXPECT_EQ(comparison.to_string(),
              "way        jobs     median  fastest to slowest    speed-up      start\n"
              "serial        1    20.0 ms  10.0 ms to 30.0 ms      1.00 x          -\n"
              "processes     4    5.00 ms  4.00 ms to 6.00 ms      4.00 x    1.00 ms");
}

TEST(Compare, TimesHaveThreeDigits) {
    EXPECT_EQ(to_string(0ns), "0 ns");
    EXPECT_EQ(to_string(999ns), "999 ns");
    EXPECT_EQ(to_string(1234ns), "1.23 us");
    EXPECT_EQ(to_string(99'960ns), "100 us");
    EXPECT_EQ(to_string(999'900ns), "1.00 ms");
    EXPECT_EQ(to_string(83'400'000ns), "83.4 ms");
    EXPECT_EQ(to_string(75s), "75.0 s");
}

TEST(BreakEven, IsWhereTheCurveStaysAboveOne) {
    BreakEven found{.jobs = 2};
    found.points = {{100ns, 0.1, 1.5}, {1us, 1.2, 1.4}, {10us, 0.5, 1.8}, {100us, 2, 1.9}};
    EXPECT_EQ(found.map(), 100ns);
    ASSERT_TRUE(found.futures().has_value());
    EXPECT_NEAR(static_cast<double>(found.futures()->count()), 31'623, 10);    // half-way, as the logarithms have it
    found.points.back().futures = 0.9;
    EXPECT_EQ(found.futures(), std::nullopt);
    EXPECT_EQ(BreakEven{}.map(), std::nullopt);
}

TEST(BreakEven, MeasuresTasksOfGrowingSize) {
    for (const Prefer way : {Prefer::threads, Prefer::processes}) {
        const BreakEven found = break_even(way, 2);
        ASSERT_THAT(found.points, SizeIs(9));
        EXPECT_EQ(found.jobs, 2U);
        EXPECT_GT(found.points.back().task, 100 * found.points.front().task);
        for (const BreakEven::Point& point : found.points) {
            EXPECT_GT(point.futures, 0);
            EXPECT_GT(point.map, 0);
        }
        // A future for each task of 100 ns costs more than the task, on any machine.
        EXPECT_LT(found.points.front().futures, 1);
    }
    int asked = 0;
    std::vector<std::size_t> told;
    const auto progress = [&](const Progress& now) {
        told.push_back(now.done);
        EXPECT_EQ(now.total, 9U);
    };
    EXPECT_THAT(break_even(
                    Prefer::processes, 1, [&] { return ++asked > 2; }, progress)
                    .points,
                SizeIs(2));
    EXPECT_EQ(told, (std::vector<std::size_t>{0, 1, 2}));
}

}    // namespace
}    // namespace multihull
