// map, map_async, starmap: every input run once, results in the order of the inputs, failures as a loop would meet them.
#include "support/board.hpp"
#include "support/start_methods.hpp"

#include <multihull/const_array.hpp>
#include <multihull/pool.hpp>
#include <multihull/shared.hpp>

#include <gtest/gtest.h>

#include <array>
#include <csignal>
#include <deque>
#include <forward_list>
#include <list>
#include <map>
#include <numeric>
#include <optional>
#include <ranges>
#include <set>
#include <sstream>
#include <stdexcept>
#include <string>
#include <tuple>
#include <unistd.h>
#include <vector>

namespace {

using multihull::Pool;
using test::Board;

struct Particle {
    std::string name;
    std::vector<double> position;
    int charge = 0;
    bool operator==(const Particle&) const = default;
};

int square(int x) { return x * x; }
std::string twice(const std::string& text) { return text + text; }
int square_of_low_bits(int x) { return (x & 0x7fff) * (x & 0x7fff); }
int crash_on_three(int x) {
    if (x == 3) std::raise(SIGKILL);
    return x;
}
bool is_even(int x) { return x % 2 == 0; }
double weigh(int count, double each) { return count * each; }
int throw_on_multiples_of_seven(int x) {
    if (x % 7 == 0) throw std::out_of_range("no " + std::to_string(x));
    return x;
}
Particle named(int x) { return {"particle " + std::to_string(x), {x * 0.5, x * 0.25}, x}; }
int count_position(const Particle& particle) { return static_cast<int>(particle.position.size()) + particle.charge; }

struct CountRun {
    std::string board;
    int operator()(int element) const {
        Board cells(board);
        ++cells[static_cast<std::size_t>(element)];
        return element;
    }
};

std::vector<int> squares(int count) {
    std::vector<int> expected;
    for (int i = 0; i < count; ++i) expected.push_back(i * i);
    return expected;
}

// An input range that fails after some elements.
struct ThrowsAt {
    int limit;
    struct Iterator {
        using value_type = int;
        using difference_type = std::ptrdiff_t;
        int at = 0;
        int limit = 0;
        int operator*() const { return at; }
        Iterator& operator++() {
            if (++at == limit) throw std::domain_error("the input ended in a failure");
            return *this;
        }
        void operator++(int) { ++*this; }
        bool operator==(std::default_sentinel_t) const { return false; }
    };
    Iterator begin() const { return {0, limit}; }
    std::default_sentinel_t end() const { return {}; }
};

class MapTest : public test::StartMethodTest {};
INSTANTIATE_TEST_SUITE_P(EachStartMethod, MapTest, test::each_start_method(), test::start_method_name);

TEST_P(MapTest, gives_results_in_the_order_of_the_inputs) {
    Pool pool(3);
    std::vector<int> inputs(10'000);
    std::iota(inputs.begin(), inputs.end(), 0);
    EXPECT_EQ(pool.map(square, inputs), squares(10'000));
}

TEST_P(MapTest, takes_any_input_range) {
    Pool pool(2);
    const std::vector<int> expected{1, 4, 9};
    EXPECT_EQ(pool.map(square, {1, 2, 3}), expected);
    EXPECT_EQ(pool.map(square, std::array{1, 2, 3}), expected);
    EXPECT_EQ(pool.map(square, std::list{1, 2, 3}), expected);
    EXPECT_EQ(pool.map(square, std::deque{1, 2, 3}), expected);
    EXPECT_EQ(pool.map(square, std::set{3, 1, 2}), expected);
    EXPECT_EQ(pool.map(square, std::forward_list{1, 2, 3}), expected);
    EXPECT_EQ(pool.map(square, std::views::iota(1, 4)), expected);
    EXPECT_EQ(pool.map(square, std::views::iota(1) | std::views::take(3)), expected);
    EXPECT_EQ(pool.map(square, std::vector{0, 1, 2, 3} | std::views::drop(1)), expected);
    EXPECT_EQ(pool.map(square, std::views::iota(1, 10) | std::views::filter([](int x) { return x < 4; })), expected);
    std::istringstream numbers("1 2 3");
    EXPECT_EQ(pool.map(square, std::ranges::istream_view<int>(numbers)), expected);
    const int plain[] = {1, 2, 3};
    EXPECT_EQ(pool.map(square, plain), expected);
    EXPECT_EQ(pool.map(square, std::vector<long>{1, 2, 3}), expected);
}

TEST_P(MapTest, of_nothing_is_nothing) {
    Pool pool(2);
    EXPECT_EQ(pool.map(square, std::vector<int>{}), std::vector<int>{});
    EXPECT_EQ(pool.map(square, std::views::iota(5, 5)), std::vector<int>{});
    EXPECT_EQ(pool.map(twice, std::list<std::string>{}), std::vector<std::string>{});
    EXPECT_EQ(pool.starmap(weigh, std::vector<std::pair<int, double>>{}), std::vector<double>{});
    auto future = pool.map_async(square, std::vector<int>{});
    EXPECT_TRUE(future.ready());
    EXPECT_EQ(future.get(), std::vector<int>{});
    bool called = false;
    future.add_done_callback([&](const auto&) { called = true; });
    EXPECT_TRUE(called);
    EXPECT_FALSE(future.cancel());
}

TEST_P(MapTest, carries_types_that_are_not_plain) {
    Pool pool(2);
    EXPECT_EQ(pool.map(twice, std::vector<std::string>{"ab", "", std::string(100'000, 'x')}),
              (std::vector<std::string>{"abab", "", std::string(200'000, 'x')}));
    EXPECT_EQ(pool.map(is_even, std::views::iota(0, 5)), (std::vector<bool>{true, false, true, false, true}));
    const auto particles = pool.map(named, std::views::iota(0, 300));
    ASSERT_EQ(particles.size(), 300u);
    for (int i = 0; i < 300; ++i) EXPECT_EQ(particles[static_cast<std::size_t>(i)], named(i));
    const auto counts = pool.map(count_position, particles);
    for (int i = 0; i < 300; ++i) EXPECT_EQ(counts[static_cast<std::size_t>(i)], i + 2);
    EXPECT_EQ(pool.map([](const std::string& text) { return text.size(); }, std::vector<std::string>{"a", "abc"}),
              (std::vector<std::size_t>{1, 3}));
    EXPECT_EQ(pool.map(
                  [](int x) {
                      return std::map<int, std::string>{{x, std::to_string(x)}};
                  },
                  {1, 2}),
              (std::vector<std::map<int, std::string>>{{{1, "1"}}, {{2, "2"}}}));
}

TEST_P(MapTest, without_results_runs_each_input_once) {
    Board board;
    Pool pool(2);
    pool.map([](const std::string& path) { ++Board(path)[0]; }, std::vector<std::string>(100, board.path()));
    EXPECT_EQ(board[0], 100);
}

TEST_P(MapTest, runs_each_input_exactly_once) {
    Board board;
    Pool pool(3);
    pool.map(CountRun{board.path()}, std::views::iota(0, 4000));
    for (std::size_t i = 0; i < 4000; ++i) ASSERT_EQ(board[i], 1) << i;
}

TEST_P(MapTest, splits_tuples_into_arguments) {
    Pool pool(2);
    const std::vector<double> expected{1.0, 4.5};
    EXPECT_EQ(pool.starmap(weigh, std::vector<std::tuple<int, double>>{{2, 0.5}, {3, 1.5}}), expected);
    EXPECT_EQ(pool.starmap(weigh, std::map<int, double>{{2, 0.5}, {3, 1.5}}), expected);
    EXPECT_EQ(pool.starmap(weigh, {std::tuple(2, 0.5), std::tuple(3, 1.5)}), expected);
    EXPECT_EQ(pool.starmap_async(weigh, std::vector<std::pair<int, double>>{{2, 0.5}, {3, 1.5}}).get(), expected);
    EXPECT_EQ(pool.starmap([](const std::string& text, int n,
                              bool upper) { return text + std::to_string(n) + (upper ? "U" : "l"); },
                           std::vector<std::tuple<std::string, int, bool>>{{"a", 1, true}, {"b", 2, false}}),
              (std::vector<std::string>{"a1U", "b2l"}));
}

TEST_P(MapTest, throws_the_failure_of_the_first_input_after_running_all) {
    Board board;
    Pool pool(3);
    const auto failing = [](const std::tuple<std::string, int>& input) {
        const auto& [path, x] = input;
        ++Board(path)[0];
        return throw_on_multiples_of_seven(x);
    };
    std::vector<std::tuple<std::string, int>> inputs;
    for (int x = 1; x <= 500; ++x) inputs.emplace_back(board.path(), x);
    for (const std::size_t chunksize : {0u, 1u, 50u}) {
        board[0] = 0;
        const auto error =
            test::thrown_by<std::out_of_range>([&] { pool.map(failing, inputs, {.chunksize = chunksize}); });
        EXPECT_STREQ(error.what(), "no 7");
        EXPECT_EQ(board[0], 500);
    }
    EXPECT_EQ(pool.map(square, {3}), std::vector{9});
}

TEST_P(MapTest, with_results_that_are_not_plain_throws_the_first_failure_too) {
    Pool pool(2);
    const auto failing = [](int x) { return std::to_string(throw_on_multiples_of_seven(x)); };
    const auto error = test::thrown_by<std::out_of_range>([&] { pool.map(failing, std::views::iota(1, 100)); });
    EXPECT_STREQ(error.what(), "no 7");
    const auto nothing = [](int x) { throw_on_multiples_of_seven(x); };
    EXPECT_THROW(pool.map(nothing, std::views::iota(1, 100)), std::out_of_range);
}

TEST_P(MapTest, takes_any_chunksize) {
    Pool pool(3);
    for (const std::size_t chunksize : {1u, 2u, 7u, 99u, 100u, 101u, 1'000'000u}) {
        EXPECT_EQ(pool.map(square, std::views::iota(0, 100), {.chunksize = chunksize}), squares(100)) << chunksize;
    }
}

TEST_P(MapTest, spreads_over_the_workers) {
    Board board;
    Pool pool(2);
    // Each of two elements waits for the other to run: they must be in different workers, in spite of a chunk size to match.
    const auto meet = [](const std::string& path) {
        Board cells(path);
        ++cells[0];
        cells.wait_until_at_least(0, 2);
        return static_cast<int>(::getpid());
    };
    const auto pids = pool.map(meet, std::vector<std::string>(2, board.path()));
    EXPECT_NE(pids[0], pids[1]);
}

TEST_P(MapTest, leaves_the_failure_of_an_input_range_to_the_caller) {
    Pool pool(2);
    EXPECT_THROW(pool.map(square, ThrowsAt{10}), std::domain_error);
    EXPECT_THROW(pool.map_async(square, ThrowsAt{1}), std::domain_error);
    const auto throwing_element = std::vector{1, 2, 3} | std::views::transform([](int x) {
                                      if (x == 2) throw std::domain_error("two");
                                      return x;
                                  });
    EXPECT_THROW(pool.map(square, throwing_element), std::domain_error);
    EXPECT_EQ(pool.map(square, {1, 2, 3}), (std::vector{1, 4, 9}));
}

TEST_P(MapTest, runs_beside_other_maps_and_tasks) {
    Pool pool(2);
    std::vector<multihull::Future<std::vector<int>>> maps;
    std::vector<multihull::Future<int>> tasks;
    for (int i = 0; i < 50; ++i) {
        maps.push_back(pool.map_async(square, std::views::iota(0, 200)));
        tasks.push_back(pool.apply_async(square, i));
    }
    for (int i = 49; i >= 0; --i) {
        EXPECT_EQ(maps[static_cast<std::size_t>(i)].get(), squares(200));
        EXPECT_EQ(tasks[static_cast<std::size_t>(i)].get(), i * i);
    }
}

TEST_P(MapTest, carries_a_million_plain_values) {
    Pool pool(2);
    const auto results = pool.map([](int x) { return x + 1; }, std::views::iota(0, 1'000'000));
    ASSERT_EQ(results.size(), 1'000'000u);
    for (int i = 0; i < 1'000'000; ++i) ASSERT_EQ(results[static_cast<std::size_t>(i)], i + 1);
}

TEST_P(MapTest, carries_elements_of_megabytes) {
    Pool pool(2);
    std::vector<std::vector<int>> inputs;
    for (int i = 0; i < 12; ++i) inputs.emplace_back(std::size_t{1} << 20, i);
    const auto outputs = pool.map(
        [](std::vector<int> values) {
            for (int& value : values) ++value;
            return values;
        },
        inputs);
    ASSERT_EQ(outputs.size(), 12u);
    for (int i = 0; i < 12; ++i)
        ASSERT_EQ(outputs[static_cast<std::size_t>(i)], std::vector<int>(std::size_t{1} << 20, i + 1));
}

TEST_P(MapTest, reads_shared_arrays_where_they_lie) {
    Pool pool(2);
    const multihull::Array<int> array(std::views::iota(0, 100'000));
    EXPECT_EQ(pool.map(square_of_low_bits, array).back(), square_of_low_bits(99'999));
    const multihull::ConstArray<int> few{1, 2, 3};
    EXPECT_EQ(pool.map(square, few), (std::vector{1, 4, 9}));
    // What is not plain, or becomes another type on its way, is copied as from any range.
    EXPECT_EQ(pool.map([](long x) { return x + 1; }, few), (std::vector<long>{2, 3, 4}));
}

TEST_P(MapTest, writes_results_into_a_shared_array) {
    Pool pool(2);
    const multihull::Array<int> inputs(std::views::iota(0, 100'000));
    const multihull::Array<int> results(inputs.size() + 1, -1);
    pool.map_into(square_of_low_bits, inputs, results);
    for (std::size_t i = 0; i < inputs.size(); ++i) ASSERT_EQ(results[i], square_of_low_bits(static_cast<int>(i)));
    EXPECT_EQ(results[inputs.size()], -1);

    pool.map_into(square, std::vector{5, 6}, results);
    EXPECT_EQ(results[0] + results[1], 61);
    pool.map_into_async(square, std::views::iota(0, 3), results).get();
    EXPECT_EQ(results[2], 4);
    pool.map_into(square, std::views::iota(0, 0), results);
    EXPECT_EQ(results[2], 4);

    const multihull::Array<int> in_place{1, 2, 3};
    pool.map_into(square, in_place, in_place);
    EXPECT_EQ(std::vector<int>(in_place.begin(), in_place.end()), (std::vector{1, 4, 9}));
}

TEST_P(MapTest, keeps_a_shared_array_until_its_results_are_in_it) {
    Pool pool(2);
    std::optional<multihull::Array<int>> results(std::in_place, 1000U);
    const multihull::Array<int> kept = *results;
    auto future = pool.map_into_async(square, multihull::Array<int>(std::views::iota(0, 1000)), *results);
    results.reset();
    future.get();
    EXPECT_EQ(kept[999], 999 * 999);
}

TEST_P(MapTest, leaves_the_results_that_there_are_in_a_shared_array) {
    Pool pool(2);
    const multihull::Array<int> results(10, -1);
    EXPECT_THROW(pool.map_into(throw_on_multiples_of_seven, std::views::iota(1, 11), results), std::out_of_range);
    const std::vector<int> expected{1, 2, 3, 4, 5, 6, -1, 8, 9, 10};
    EXPECT_EQ(std::vector<int>(results.begin(), results.end()), expected);

    EXPECT_THROW(pool.map_into(crash_on_three, std::views::iota(0, 10), results), multihull::WorkerCrashed);
    EXPECT_EQ(results[9], 9);

    EXPECT_THROW(pool.map_into(square, std::views::iota(0, 11), results), std::invalid_argument);
    EXPECT_EQ(results[9], 9);
}

// Ends when the program has been told of progress.
int wait_for_report(const std::string& board, int x) {
    Board(board).wait_until_at_least(0, 1);
    return x;
}

TEST_P(MapTest, tells_how_far_it_is) {
    Pool pool(2);
    Board board;
    std::vector<multihull::Progress> reports;
    const auto progress = [&](const multihull::Progress& report) {
        reports.push_back(report);
        board[0] = 1;
    };
    std::vector<std::tuple<std::string, int>> inputs;
    for (int i = 0; i < 10; ++i) inputs.emplace_back(board.path(), i);
    EXPECT_EQ(pool.starmap(wait_for_report, inputs, {.progress = progress}).size(), 10U);
    ASSERT_GE(reports.size(), 2U);
    for (std::size_t i = 1; i < reports.size(); ++i) {
        EXPECT_GE(reports[i].done, reports[i - 1].done);
        EXPECT_GE(reports[i].elapsed, reports[i - 1].elapsed);
        EXPECT_EQ(reports[i].total, 10U);
    }
    EXPECT_EQ(reports.back().done, 10U);

    reports.clear();
    EXPECT_EQ(pool.map(square, std::views::iota(0, 5), {.progress = progress}), squares(5));
    EXPECT_EQ(reports.back().done, 5U);
    EXPECT_THROW(pool.map(throw_on_multiples_of_seven, std::views::iota(0, 5), {.progress = progress}),
                 std::out_of_range);
}

TEST_P(MapTest, is_cancelled_by_what_its_progress_throws) {
    Pool pool(2);
    Board board;
    const auto stop = [](const multihull::Progress&) { throw std::runtime_error("enough"); };
    std::vector<std::tuple<std::string, int>> inputs(4, {board.path(), 1});
    EXPECT_THROW(pool.starmap(wait_for_report, inputs, {.progress = stop}), std::runtime_error);
    EXPECT_EQ(pool.map(square, std::views::iota(0, 5)), squares(5));
}

}    // namespace
