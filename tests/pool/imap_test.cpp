// imap and imap_unordered: inputs taken as the workers can eat them, results one by one, failures where they belong.
#include "support/board.hpp"
#include "support/start_methods.hpp"

#include <multihull/pool.hpp>

#include <gtest/gtest.h>

#include <algorithm>
#include <list>
#include <memory>
#include <ranges>
#include <set>
#include <sstream>
#include <stdexcept>
#include <string>
#include <unistd.h>
#include <vector>

namespace {

using multihull::Pool;
using test::Board;

int square(int x) { return x * x; }
int odd_only(int x) {
    if (x % 2 == 0) throw std::invalid_argument("even: " + std::to_string(x));
    return x;
}
int crash_on_three(int x) {
    if (x == 3) ::raise(SIGKILL);
    return x;
}

// A range that can be read once, counts what was taken of it, and may fail at some element.
struct Counted {
    std::shared_ptr<int> taken = std::make_shared<int>(0);
    int end_at = -1;
    int throw_at = -1;

    struct Iterator {
        using value_type = int;
        using difference_type = std::ptrdiff_t;
        const Counted* range = nullptr;
        int at = 0;
        int operator*() const {
            if (at == range->throw_at) throw std::domain_error("no element " + std::to_string(at));
            return at;
        }
        Iterator& operator++() {
            ++at;
            ++*range->taken;
            return *this;
        }
        void operator++(int) { ++*this; }
        bool operator==(std::default_sentinel_t) const { return at == range->end_at; }
    };
    Iterator begin() const { return {this, 0}; }
    std::default_sentinel_t end() const { return {}; }
};

class ImapTest : public test::StartMethodTest {};
INSTANTIATE_TEST_SUITE_P(EachStartMethod, ImapTest, test::each_start_method(), test::start_method_name);

TEST_P(ImapTest, gives_results_in_order) {
    Pool pool(3);
    int expected = 0;
    for (const int result : pool.imap(square, std::views::iota(0, 1000))) {
        ASSERT_EQ(result, expected * expected);
        ++expected;
    }
    EXPECT_EQ(expected, 1000);
}

TEST_P(ImapTest, unordered_gives_each_result_once) {
    Pool pool(3);
    std::multiset<int> results;
    for (const int result : pool.imap_unordered(square, std::views::iota(0, 1000))) results.insert(result);
    std::multiset<int> expected;
    for (int i = 0; i < 1000; ++i) expected.insert(i * i);
    EXPECT_EQ(results, expected);
}

TEST_P(ImapTest, unordered_gives_first_what_is_ready_first) {
    Board board;
    Pool pool(2);
    const auto run = [](const std::tuple<std::string, int>& input) {
        const auto& [path, value] = input;
        return value == 0 ? test::hold(path, 0) : value;
    };
    std::vector<std::tuple<std::string, int>> inputs;
    for (int i = 0; i < 5; ++i) inputs.emplace_back(board.path(), i);
    std::vector<int> order;
    for (const int result : pool.imap_unordered(run, inputs)) {
        order.push_back(result);
        if (order.size() == 4) board[test::kLetGo] = 1;
    }
    EXPECT_EQ(order, (std::vector{1, 2, 3, 4, 0}));
}

TEST_P(ImapTest, of_nothing_is_nothing) {
    Pool pool(2);
    for ([[maybe_unused]] const int result : pool.imap(square, std::vector<int>{})) FAIL();
    for ([[maybe_unused]] const int result : pool.imap_unordered(square, std::vector<int>{})) FAIL();
    auto range = pool.imap(square, std::vector<int>{});
    EXPECT_EQ(range.next(), std::nullopt);
    EXPECT_EQ(range.next(), std::nullopt);
    for ([[maybe_unused]] const int result : pool.imap(square, std::vector<int>{}, {.chunksize = 5})) FAIL();
}

TEST_P(ImapTest, takes_only_what_the_workers_can_eat) {
    Pool pool(2);
    for (const std::size_t chunksize : {1u, 10u}) {
        const Counted endless;
        int read = 0;
        for (const int result : pool.imap(square, endless, {.chunksize = chunksize})) {
            ASSERT_EQ(result, read * read);
            if (++read == 100) break;
            // A window of a few tasks a worker lies ahead of the reader, however endless the input.
            ASSERT_LE(*endless.taken, read + static_cast<int>(pool.processes() * 8 * chunksize));
        }
        EXPECT_EQ(read, 100);
    }
    int read = 0;
    for ([[maybe_unused]] const int result : pool.imap_unordered(square, std::views::iota(0))) {
        if (++read == 1000) break;
    }
    EXPECT_EQ(pool.apply(square, 4), 16);
}

TEST_P(ImapTest, takes_nothing_before_it_is_read) {
    Pool pool(2);
    const Counted inputs{.end_at = 10};
    auto range = pool.imap(square, inputs);
    EXPECT_EQ(*inputs.taken, 0);
    EXPECT_EQ(range.next(), 0);
}

TEST_P(ImapTest, reads_ranges_that_can_be_read_once) {
    Pool pool(2);
    std::istringstream numbers("1 2 3 4 5");
    std::vector<int> results;
    for (const int result : pool.imap(square, std::ranges::istream_view<int>(numbers))) results.push_back(result);
    EXPECT_EQ(results, (std::vector{1, 4, 9, 16, 25}));
    std::istringstream words("a bc def");
    std::vector<std::size_t> lengths;
    for (const auto length : pool.imap([](const std::string& word) { return word.size(); },
                                       std::ranges::istream_view<std::string>(words), {.chunksize = 2})) {
        lengths.push_back(length);
    }
    EXPECT_EQ(lengths, (std::vector<std::size_t>{1, 2, 3}));
}

TEST_P(ImapTest, keeps_a_range_that_was_moved_into_it) {
    Pool pool(2);
    auto results = pool.imap([](const std::string& text) { return text + "!"; }, std::list<std::string>{"a", "b"});
    EXPECT_EQ(results.next(), "a!");
    EXPECT_EQ(results.next(), "b!");
    EXPECT_EQ(results.next(), std::nullopt);
}

TEST_P(ImapTest, gives_the_same_with_any_chunksize) {
    Pool pool(3);
    for (const std::size_t chunksize : {1u, 2u, 7u, 100u, 1000u}) {
        int expected = 0;
        for (const auto& text :
             pool.imap([](int x) { return std::to_string(x); }, std::views::iota(0, 100), {.chunksize = chunksize})) {
            ASSERT_EQ(text, std::to_string(expected++));
        }
        ASSERT_EQ(expected, 100);
        std::set<int> seen;
        for (const int result : pool.imap_unordered(square, std::views::iota(0, 100), {.chunksize = chunksize})) {
            seen.insert(result);
        }
        ASSERT_EQ(seen.size(), 100u);
    }
}

TEST_P(ImapTest, goes_on_behind_an_element_that_threw) {
    Pool pool(2);
    for (const std::size_t chunksize : {1u, 3u, 50u}) {
        auto range = pool.imap(odd_only, std::views::iota(0, 20), {.chunksize = chunksize});
        for (int i = 0; i < 20; ++i) {
            if (i % 2 == 0) {
                EXPECT_EQ(test::thrown_by<std::invalid_argument>([&] { range.next(); }).what(),
                          "even: " + std::to_string(i));
            } else {
                EXPECT_EQ(range.next(), i);
            }
        }
        EXPECT_EQ(range.next(), std::nullopt);

        int good = 0;
        int bad = 0;
        auto again = pool.imap(odd_only, std::views::iota(0, 20), {.chunksize = chunksize});
        for (auto it = again.begin(); it != again.end(); ++it) {
            try {
                good += *it;
            } catch (const std::invalid_argument&) {
                ++bad;
            }
        }
        EXPECT_EQ(bad, 10);
        EXPECT_EQ(good, 100);
    }
}

TEST_P(ImapTest, unordered_goes_on_behind_an_element_that_threw) {
    Pool pool(2);
    for (const std::size_t chunksize : {1u, 6u}) {
        auto range = pool.imap_unordered(odd_only, std::views::iota(0, 20), {.chunksize = chunksize});
        std::set<int> good;
        int bad = 0;
        for (auto it = range.begin(); it != range.end(); ++it) {
            try {
                good.insert(*it);
            } catch (const std::invalid_argument&) {
                ++bad;
            }
        }
        EXPECT_EQ(bad, 10);
        EXPECT_EQ(good, (std::set{1, 3, 5, 7, 9, 11, 13, 15, 17, 19}));
    }
}

TEST_P(ImapTest, goes_on_behind_an_element_that_crashed) {
    Pool pool(2);
    for (const std::size_t chunksize : {1u, 4u}) {
        auto range = pool.imap(crash_on_three, std::views::iota(0, 10), {.chunksize = chunksize});
        for (int i = 0; i < 10; ++i) {
            if (i == 3) {
                const auto error = test::thrown_by<multihull::WorkerCrashed>([&] { range.next(); });
                EXPECT_EQ(error.signal(), SIGKILL);
            } else {
                ASSERT_EQ(range.next(), i) << "chunksize " << chunksize;
            }
        }
        EXPECT_EQ(range.next(), std::nullopt);
    }
}

TEST_P(ImapTest, gives_what_came_before_its_input_failed_then_the_failure_then_ends) {
    Pool pool(2);
    for (const std::size_t chunksize : {1u, 4u}) {
        auto range = pool.imap(square, Counted{.throw_at = 6}, {.chunksize = chunksize});
        for (int i = 0; i < 6; ++i) ASSERT_EQ(range.next(), i * i);
        EXPECT_THROW(range.next(), std::domain_error);
        EXPECT_EQ(range.next(), std::nullopt);

        std::set<int> results;
        auto unordered = pool.imap_unordered(square, Counted{.throw_at = 6}, {.chunksize = chunksize});
        for (int i = 0; i < 6; ++i) results.insert(unordered.next().value());
        EXPECT_EQ(results, (std::set{0, 1, 4, 9, 16, 25}));
        EXPECT_THROW(unordered.next(), std::domain_error);
        EXPECT_EQ(unordered.next(), std::nullopt);
    }
    auto at_once = pool.imap(square, Counted{.throw_at = 0});
    EXPECT_THROW(at_once.next(), std::domain_error);
    EXPECT_EQ(at_once.next(), std::nullopt);
    EXPECT_EQ(pool.apply(square, 3), 9);
}

TEST_P(ImapTest, without_results_gives_an_element_for_each_input) {
    Board board;
    Pool pool(2);
    for (const std::size_t chunksize : {1u, 3u}) {
        board[0] = 0;
        std::size_t count = 0;
        auto range = pool.imap([](const std::string& path) { ++Board(path)[0]; },
                               std::vector<std::string>(10, board.path()), {.chunksize = chunksize});
        while (range.next()) ++count;
        EXPECT_EQ(count, 10u);
        EXPECT_EQ(board[0], 10);
    }
}

TEST_P(ImapTest, that_is_dropped_cancels_what_waits) {
    Board board;
    Pool pool(1);
    {
        const auto held = pool.apply_async(test::hold, board.path(), 0);
        ASSERT_TRUE(board.wait_until_at_least(test::kHeld, 1));
        auto range = pool.imap(
            [](const std::tuple<std::string, int>& input) {
                ++Board(std::get<0>(input))[5];
                return std::get<1>(input);
            },
            std::views::iota(0) | std::views::transform([&](int i) { return std::tuple(board.path(), i); }));
        board[test::kLetGo] = 1;
        EXPECT_EQ(range.next(), 0);
        EXPECT_EQ(held.get(), 0);
    }
    EXPECT_EQ(pool.apply(square, 5), 25);
    EXPECT_LE(board[5], 6);
}

TEST_P(ImapTest, that_is_dropped_lets_what_runs_finish) {
    Board board;
    Pool pool(1);
    const auto count = [](const std::tuple<std::string, int>& input) {
        const auto& [path, value] = input;
        if (value == 1) test::hold(path, 0);
        ++Board(path)[5];
        return value;
    };
    {
        auto range = pool.imap(count, std::views::iota(0) |
                                          std::views::transform([&](int i) { return std::tuple(board.path(), i); }));
        EXPECT_EQ(range.next(), 0);
        ASSERT_TRUE(board.wait_until_at_least(test::kHeld, 1));
    }
    board[test::kLetGo] = 1;
    EXPECT_EQ(pool.apply(square, 5), 25);
    EXPECT_EQ(board[5], 2);
}

TEST_P(ImapTest, may_be_several_at_once) {
    Pool pool(2);
    auto first = pool.imap(square, std::views::iota(0, 100));
    auto second = pool.imap([](int x) { return -x; }, std::views::iota(0, 100), {.chunksize = 3});
    for (int i = 0; i < 100; ++i) {
        ASSERT_EQ(first.next(), i * i);
        ASSERT_EQ(second.next(), -i);
    }
    EXPECT_EQ(first.next(), std::nullopt);
    EXPECT_EQ(second.next(), std::nullopt);
}

TEST_P(ImapTest, ends_with_the_reason_when_its_pool_is_closed_under_it) {
    Pool pool(2);
    auto range = pool.imap(square, std::views::iota(0));
    EXPECT_EQ(range.next(), 0);
    pool.close();
    // What was submitted comes still; then the pool says why there is no more.
    int next = 1;
    try {
        while (const auto result = range.next()) {
            ASSERT_EQ(*result, next * next);
            ++next;
            ASSERT_LT(next, 1000);
        }
        FAIL() << "an endless input ended";
    } catch (const multihull::PoolClosed&) {
        EXPECT_GT(next, 1);
    }
    EXPECT_EQ(range.next(), std::nullopt);
}

}    // namespace
