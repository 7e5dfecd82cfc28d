// What every Parallel does, wherever its calls run.
#include "parallel/kinds.hpp"

#include <algorithm>
#include <array>
#include <atomic>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <numeric>
#include <ranges>
#include <set>
#include <sstream>
#include <stdexcept>
#include <string>
#include <vector>

namespace {

using multihull::delayed;
using multihull::Parallel;
using multihull::ParallelOptions;

// Of unsigned numbers: the larger ones overflow.
int cube(int x) {
    const auto u = static_cast<unsigned>(x);
    return static_cast<int>(u * u * u);
}
int square(int x) { return x * x; }
std::string join(const std::string& a, std::string_view b, std::size_t times) {
    std::string joined = a;
    for (std::size_t i = 0; i < times; ++i) joined += b;
    return joined;
}
int fail_at_five(int x) {
    if (x == 5) throw std::domain_error("five");
    return x;
}

std::vector<int> cubes(int count) {
    std::vector<int> values;
    for (int i = 0; i < count; ++i) values.push_back(cube(i));
    return values;
}

template <class Range>
auto to_vector(Range&& range) {
    std::vector<std::ranges::range_value_t<Range>> values;
    for (auto&& value : range) values.push_back(std::forward<decltype(value)>(value));
    return values;
}

class ParallelLoop : public test::ParallelTest {};
INSTANTIATE_TEST_SUITE_P(EachWay, ParallelLoop, ::testing::ValuesIn(test::parallel_kinds()), test::parallel_kind_name);

TEST_P(ParallelLoop, results_come_in_order) {
    for (const int count : {0, 1, 2, 10, 3000}) {
        const auto calls = std::views::iota(0, count) | std::views::transform(delayed(cube));
        EXPECT_EQ(parallel()(calls), cubes(count)) << count;
        EXPECT_EQ(to_vector(parallel().generator(calls)), cubes(count)) << count;
        auto unordered = to_vector(parallel().generator_unordered(calls));
        auto expected = cubes(count);
        std::ranges::sort(unordered);
        std::ranges::sort(expected);
        EXPECT_EQ(unordered, expected) << count;
    }
}

TEST_P(ParallelLoop, a_closure_sees_what_it_refers_to) {
    std::vector<double> table(100);
    std::iota(table.begin(), table.end(), 0.5);
    const auto lookup = delayed([&table](std::size_t i) { return table.at(i) * 2; });
    const auto calls = std::views::iota(std::size_t{0}, table.size()) | std::views::transform(lookup);
    std::vector<double> expected;
    for (const double x : table) expected.push_back(x * 2);
    EXPECT_EQ(parallel()(calls), expected);
    EXPECT_EQ(to_vector(parallel().generator(calls)), expected);
    table.assign(100, 1);    // a loop sees what is there when it begins
    EXPECT_EQ(parallel()(calls), std::vector<double>(100, 2));
    EXPECT_EQ(parallel()(calls | std::views::take(3)), std::vector<double>(3, 2));
}

TEST_P(ParallelLoop, a_closure_may_hold_anything) {
    const std::vector<std::string> words{"zero", "one", "two"};
    const std::function<std::string(int)> any = [words, copy = std::make_shared<int>(1)](int i) {
        return words.at(static_cast<std::size_t>(i)) + std::to_string(*copy);
    };
    const auto calls = std::views::iota(0, 3) | std::views::transform(delayed(any));
    EXPECT_EQ(parallel()(calls), (std::vector<std::string>{"zero1", "one1", "two1"}));
    const auto by_value = delayed([words](int i) { return words.at(static_cast<std::size_t>(i)).size(); });
    EXPECT_EQ(to_vector(parallel().generator(std::views::iota(0, 3) | std::views::transform(by_value))),
              (std::vector<std::size_t>{4, 3, 3}));
}

TEST_P(ParallelLoop, each_call_may_have_a_function_of_its_own) {
    const std::string base = "a long text that is kept outside of the string itself";
    const auto make = [&base](int i) { return delayed([i, &base] { return base + std::to_string(i); })(); };
    const auto calls = std::views::iota(0, 20) | std::views::transform(make);
    std::vector<std::string> expected;
    for (int i = 0; i < 20; ++i) expected.push_back(base + std::to_string(i));
    EXPECT_EQ(parallel()(calls), expected);
    EXPECT_EQ(to_vector(parallel().generator(calls)), expected);
    const auto with_copy = [&base](int i) { return delayed([text = base + std::to_string(i)] { return text; })(); };
    EXPECT_EQ(parallel()(std::views::iota(0, 20) | std::views::transform(with_copy)), expected);
    EXPECT_EQ(to_vector(parallel().generator(std::views::iota(0, 20) | std::views::transform(with_copy))), expected);
    const std::array<int (*)(int), 2> functions{cube, square};
    const auto alternate = [&](int i) { return delayed(functions[static_cast<std::size_t>(i % 2)])(i); };
    EXPECT_EQ(parallel()(std::views::iota(0, 5) | std::views::transform(alternate)), (std::vector{0, 1, 8, 9, 64}));
    EXPECT_EQ(to_vector(parallel().generator(std::views::iota(0, 5) | std::views::transform(alternate))),
              (std::vector{0, 1, 8, 9, 64}));
}

TEST_P(ParallelLoop, a_function_object_travels_with_its_fields) {
    struct Plus {
        int amount;
        std::string name;
        std::string operator()(int x) const { return name + std::to_string(x + amount); }
    };
    const auto calls = std::views::iota(0, 4) | std::views::transform([](int i) { return delayed(Plus{i, "n"})(i); });
    EXPECT_EQ(parallel()(calls), (std::vector<std::string>{"n0", "n2", "n4", "n6"}));
    const auto shared = std::views::iota(0, 3) | std::views::transform(delayed(Plus{10, "m"}));
    EXPECT_EQ(parallel()(shared), (std::vector<std::string>{"m10", "m11", "m12"}));
}

TEST_P(ParallelLoop, a_list_of_calls_made_by_hand) {
    std::vector<multihull::DelayedCall<std::string (*)(const std::string&, std::string_view, std::size_t), std::string,
                                       const char*, std::size_t>>
        calls;
    for (std::size_t i = 0; i < 5; ++i) calls.push_back(delayed(join)(std::string("x"), "ab", i));
    const std::vector<std::string> expected{"x", "xab", "xabab", "xababab", "xabababab"};
    EXPECT_EQ(parallel()(calls), expected);
    EXPECT_EQ(parallel()(calls), expected);    // a list that somebody has is not used up
    EXPECT_EQ(to_vector(parallel().generator(calls)), expected);
}

TEST_P(ParallelLoop, arguments_that_cannot_travel_are_in_the_snapshot) {
    const std::vector<int> numbers{1, 2, 3, 4};
    const auto sum = [](const int* begin, std::size_t count) { return std::accumulate(begin, begin + count, 0); };
    const auto make = [&](std::size_t count) { return delayed(sum)(numbers.data(), count); };
    const auto calls = std::views::iota(std::size_t{0}, std::size_t{5}) | std::views::transform(make);
    EXPECT_EQ(parallel()(calls), (std::vector{0, 1, 3, 6, 10}));
    EXPECT_EQ(to_vector(parallel().generator(calls)), (std::vector{0, 1, 3, 6, 10}));
}

TEST_P(ParallelLoop, calls_without_a_result) {
    const auto count = [](const std::string& path) { ++test::Board(path)[9]; };
    const auto calls = std::vector<std::string>(50, board_.path()) | std::views::transform(delayed(count));
    static_assert(std::is_void_v<decltype(parallel()(calls))>);
    parallel()(calls);
    EXPECT_EQ(board_[9], 50);
    std::size_t read = 0;
    for ([[maybe_unused]] auto& nothing : parallel().generator(calls)) ++read;
    EXPECT_EQ(read, 50U);
    EXPECT_EQ(board_[9], 100);
    const std::string path = board_.path();
    parallel()(std::views::iota(0, 10) | std::views::transform(delayed([&path](int) { ++test::Board(path)[9]; })));
    EXPECT_EQ(board_[9], 110);
}

TEST_P(ParallelLoop, big_results_and_arguments) {
    const auto grow = [](std::vector<int> v, int x) {
        v.push_back(x);
        return v;
    };
    const std::vector<int> big(20'000, 7);
    const auto calls = std::views::iota(0, 8) | std::views::transform([&](int i) { return delayed(grow)(big, i); });
    const auto results = parallel()(calls);
    ASSERT_EQ(results.size(), 8U);
    for (int i = 0; i < 8; ++i) {
        EXPECT_EQ(results[static_cast<std::size_t>(i)].size(), 20'001U);
        EXPECT_EQ(results[static_cast<std::size_t>(i)].back(), i);
    }
}

TEST_P(ParallelLoop, a_failure_is_thrown_and_ends_the_loop) {
    const auto calls = std::views::iota(0, 1000) | std::views::transform(delayed(fail_at_five));
    EXPECT_THROW(parallel()(calls), std::domain_error);
    int five = 5;
    const auto closure = delayed([&five](int x) {
        if (x >= five) throw std::domain_error("many");
        return std::to_string(x);
    });
    EXPECT_THROW(parallel()(std::views::iota(0, 1000) | std::views::transform(closure)), std::domain_error);
    EXPECT_THROW(parallel()(std::views::iota(5, 6) | std::views::transform(closure)), std::domain_error);
    EXPECT_EQ(parallel()(std::views::iota(0, 5) | std::views::transform(delayed(cube))), cubes(5));
}

TEST_P(ParallelLoop, a_generator_throws_in_the_failed_ones_place_and_goes_on) {
    auto results = parallel().generator(std::views::iota(0, 9) | std::views::transform(delayed(fail_at_five)));
    int i = 0;
    for (auto place = results.begin(); place != results.end(); ++place, ++i) {
        if (i == 5) {
            EXPECT_THROW(*place, std::domain_error);
        } else {
            EXPECT_EQ(*place, i);
        }
    }
    EXPECT_EQ(i, 9);
}

TEST_P(ParallelLoop, an_input_that_fails_is_the_loops_failure) {
    const auto bad = [](int i) {
        if (i == 4) throw std::length_error("no more");
        return delayed(cube)(i);
    };
    const auto calls = std::views::iota(0, 9) | std::views::transform(bad);
    EXPECT_THROW(parallel()(calls), std::length_error);
}

TEST_P(ParallelLoop, an_endless_range_can_be_read_as_far_as_one_likes) {
    const auto calls = std::views::iota(0) | std::views::transform(delayed(cube));
    auto results = parallel().generator(calls);
    auto place = results.begin();
    for (int i = 0; i < 200; ++i, ++place) EXPECT_EQ(*place, cube(i));
    int offset = 3;
    auto closures = parallel().generator(std::views::iota(0) |
                                         std::views::transform(delayed([&offset](int x) { return x + offset; })));
    auto next = closures.begin();
    for (int i = 0; i < 200; ++i, ++next) EXPECT_EQ(*next, i + 3);
    const std::string text = "held by value, and not by plain memory alone";
    auto held = parallel().generator_unordered(std::views::iota(std::size_t{0}) |
                                               std::views::transform(delayed([text](std::size_t n) {
                                                   return text.substr(0, n % text.size());
                                               })));
    auto some = held.begin();
    for (int i = 0; i < 100; ++i, ++some) EXPECT_LE((*some).size(), text.size());
}

TEST_P(ParallelLoop, a_generator_dropped_half_way_leaves_nothing) {
    for (int round = 0; round < 5; ++round) {
        auto results = parallel().generator(std::views::iota(0, 500) | std::views::transform(delayed(cube)));
        EXPECT_EQ(*results.next(), 0);
        EXPECT_EQ(*results.next(), 1);
    }
    int factor = 2;
    for (int round = 0; round < 3; ++round) {
        auto results =
            parallel().generator_unordered(std::views::iota(0, 500) |
                                           std::views::transform(delayed([&factor](int x) { return x * factor; })));
        EXPECT_EQ(*results.next() % 2, 0);
    }
}

TEST_P(ParallelLoop, results_may_be_taken_by_the_next_loop) {
    const auto first = parallel().generator(std::views::iota(0, 40) | std::views::transform(delayed(square)));
    const auto second = parallel()(std::views::iota(0, 40) | std::views::transform(delayed(cube)));
    EXPECT_EQ(second, cubes(40));
}

TEST_P(ParallelLoop, progress_is_told_to_the_end) {
    std::mutex mutex;
    std::vector<multihull::Progress> told;
    const auto keep = [&](ParallelOptions& options) {
        options.progress = [&](const multihull::Progress& progress) {
            const std::lock_guard guard(mutex);
            told.push_back(progress);
        };
    };
    parallel(keep)(std::views::iota(0, 100) | std::views::transform(delayed(cube)));
    ASSERT_FALSE(told.empty());
    EXPECT_EQ(told.back().done, 100U);
    EXPECT_EQ(told.back().total, 100U);
    told.clear();
    to_vector(parallel(keep).generator(std::views::iota(0, 100) | std::views::transform(delayed(cube))));
    ASSERT_FALSE(told.empty());
    EXPECT_EQ(told.back().done, 100U);
}

TEST_P(ParallelLoop, what_progress_throws_ends_the_loop) {
    const auto stop = [](ParallelOptions& options) {
        options.progress = [](const multihull::Progress&) { throw std::runtime_error("enough"); };
    };
    EXPECT_THROW(parallel(stop)(std::views::iota(0, 100) | std::views::transform(delayed(cube))), std::runtime_error);
}

TEST_P(ParallelLoop, a_loop_says_what_it_does) {
    ::testing::internal::CaptureStderr();
    parallel([](ParallelOptions& options) { options.verbose = 1; })(std::views::iota(0, 10) |
                                                                    std::views::transform(delayed(cube)));
    const std::string said = ::testing::internal::GetCapturedStderr();
    EXPECT_NE(said.find("10 of 10 done"), std::string::npos) << said;
}

TEST_P(ParallelLoop, results_that_can_only_be_moved) {
    const auto make = delayed([](int i) { return std::make_unique<int>(i); });
    const auto calls = std::views::iota(0, 30) | std::views::transform(make);
    const auto all = parallel()(calls);
    ASSERT_EQ(all.size(), 30U);
    EXPECT_EQ(*all[29], 29);
    int next = 0;
    for (const auto& one : parallel().generator(calls)) EXPECT_EQ(*one, next++);
    EXPECT_EQ(next, 30);
}

TEST_P(ParallelLoop, exceptions_and_results_of_own_types) {
    struct Point {
        double x;
        std::vector<int> more;
        bool operator==(const Point&) const = default;
    };
    const double scale = 2.0;
    const auto make = delayed([&scale](int i) {
        return Point{i * scale, std::vector<int>(static_cast<std::size_t>(i))};
    });
    const auto points = parallel()(std::views::iota(0, 4) | std::views::transform(make));
    ASSERT_EQ(points.size(), 4U);
    EXPECT_EQ(points[3], (Point{6.0, {0, 0, 0}}));
    const auto truth =
        parallel()(std::views::iota(0, 4) | std::views::transform(delayed([](int i) { return i % 2 == 0; })));
    EXPECT_EQ(truth, (std::vector<bool>{true, false, true, false}));
}

TEST(ParallelOptions, no_jobs_at_all_are_refused) {
    const auto calls = std::views::iota(0, 3) | std::views::transform(delayed(cube));
    EXPECT_THROW(Parallel({.n_jobs = 0})(calls), std::invalid_argument);
    EXPECT_THROW(Parallel({.n_jobs = 0}).generator(calls), std::invalid_argument);
    EXPECT_EQ(Parallel({.n_jobs = -1})(calls), cubes(3));
    EXPECT_EQ(Parallel({.n_jobs = -2})(calls), cubes(3));
    EXPECT_EQ(Parallel({.n_jobs = -1000})(calls), cubes(3));
    EXPECT_EQ(Parallel()(calls), cubes(3));
}

TEST(ParallelOptions, one_job_is_a_plain_loop) {
    int here = 0;
    const auto count = delayed([&here](int) { return ++here; });
    EXPECT_EQ(Parallel({.n_jobs = 1})(std::views::iota(0, 4) | std::views::transform(count)),
              (std::vector{1, 2, 3, 4}));
    EXPECT_EQ(here, 4);
}

TEST(ParallelOptions, a_result_that_cannot_travel_is_refused_with_a_sentence) {
    static const int fixed = 5;
    const auto calls = std::views::iota(0, 3) | std::views::transform(delayed([](int) { return &fixed; }));
    const auto error = test::thrown_by<multihull::Error>([&] { Parallel({.n_jobs = 2})(calls); });
    EXPECT_NE(std::string(error.what()).find("can't travel"), std::string::npos);
    EXPECT_THROW(Parallel({.n_jobs = 2}).generator(calls), multihull::Error);
    const std::vector<const int*> all(3, &fixed);
    EXPECT_EQ(Parallel({.n_jobs = 2, .prefer = multihull::Prefer::threads})(calls), all);
    EXPECT_EQ(Parallel({.n_jobs = 1})(calls), all);
}

TEST(ParallelOptions, a_function_made_after_the_snapshot_is_refused_with_a_sentence) {
    const auto calls =
        std::views::iota(0) | std::views::transform([](int i) {
            return delayed([text = std::string(static_cast<std::size_t>(i), 'x')](int) { return text.size(); })(i);
        });
    auto results = Parallel({.n_jobs = 2}).generator(calls);
    const auto read = [&] {
        while (results.next()) {}
    };
    const auto error = test::thrown_by<multihull::Error>(read);
    EXPECT_NE(std::string(error.what()).find("snapshot"), std::string::npos);
}

class Reversed final : public multihull::ParallelBackend {
public:
    void run(std::size_t count, std::size_t, std::size_t, const std::function<void(std::size_t)>& body) override {
        for (std::size_t i = count; i-- > 0;) body(i);
    }
};

TEST(ParallelBackend, anyone_may_register_another) {
    multihull::register_parallel_backend("reversed", [] { return std::make_unique<Reversed>(); });
    std::vector<int> order;
    const auto note = delayed([&order](int x) {
        order.push_back(x);
        return x;
    });
    const auto calls = std::views::iota(0, 4) | std::views::transform(note);
    EXPECT_EQ(Parallel({.n_jobs = 2, .backend = "reversed"})(calls), (std::vector{0, 1, 2, 3}));
    EXPECT_EQ(order, (std::vector{3, 2, 1, 0}));
    EXPECT_EQ(to_vector(Parallel({.n_jobs = 2, .backend = "reversed"}).generator(calls)), (std::vector{0, 1, 2, 3}));
    const auto failing = std::views::iota(0, 9) | std::views::transform(delayed(fail_at_five));
    EXPECT_THROW(Parallel({.n_jobs = 2, .backend = "reversed"})(failing), std::domain_error);
    EXPECT_THROW(Parallel({.n_jobs = 2, .backend = "nobody's"})(calls), std::invalid_argument);
    EXPECT_EQ(Parallel({.n_jobs = 2, .backend = "threads"})(calls | std::views::take(1)), std::vector{0});
    EXPECT_THROW(multihull::register_parallel_backend("threads", [] { return std::make_unique<Reversed>(); }),
                 std::invalid_argument);
}

}    // namespace
