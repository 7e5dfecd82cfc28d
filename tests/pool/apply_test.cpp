// apply and apply_async: what can be called, what comes back, from where, and how much.
#include "shm/region.hpp"
#include "support/board.hpp"
#include "support/start_methods.hpp"

#include <multihull/pool.hpp>

#include <gtest/gtest.h>

#include <array>
#include <csignal>
#include <filesystem>
#include <map>
#include <memory>
#include <numeric>
#include <optional>
#include <set>
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>
#include <system_error>
#include <thread>
#include <unistd.h>
#include <utility>
#include <variant>
#include <vector>

namespace {

using multihull::Pool;
using test::Board;
using test::thrown_by;

int add(int a, int b) { return a + b; }
void nothing() {}
bool negate(bool value) { return !value; }
int length(std::string_view text) { return static_cast<int>(text.size()); }

struct Scale {
    double factor = 1;
    std::vector<double> offsets;
    double operator()(double x) const { return x * factor + std::accumulate(offsets.begin(), offsets.end(), 0.0); }
};

struct Tree {
    int value = 0;
    std::vector<Tree> children;
    bool operator==(const Tree&) const = default;
};

// An exception of a type that nobody registered.
class Unheard : public std::exception {
public:
    explicit Unheard(std::string text) : text_(std::move(text)) {}
    const char* what() const noexcept override { return text_.c_str(); }

private:
    std::string text_;
};

__attribute__((noinline)) int throw_unheard(int code) { throw Unheard("code " + std::to_string(code)); }

class ApplyTest : public test::StartMethodTest {};
INSTANTIATE_TEST_SUITE_P(EachStartMethod, ApplyTest, test::each_start_method(), test::start_method_name);

TEST_P(ApplyTest, calls_functions_lambdas_and_function_objects) {
    Pool pool(2);
    EXPECT_EQ(pool.apply(add, 2, 3), 5);
    EXPECT_EQ(pool.apply(&add, 2, 3), 5);
    EXPECT_EQ(pool.apply([](int x) { return x * 2; }, 21), 42);
    EXPECT_EQ(pool.apply(std::plus<>{}, 1, 2), 3);
    EXPECT_DOUBLE_EQ(pool.apply(Scale{2.0, {0.5, 0.25}}, 10.0), 20.75);
    EXPECT_EQ(pool.apply_async([](auto x, auto y) { return x + y; }, std::string("a"), std::string("b")).get(), "ab");
    EXPECT_EQ(pool.apply([] { return 7; }), 7);
}

TEST_P(ApplyTest, runs_in_another_process) {
    Pool pool(1);
    const pid_t worker = pool.apply([] { return ::getpid(); });
    EXPECT_NE(worker, ::getpid());
    EXPECT_EQ(pool.apply([] { return ::getpid(); }), worker);
    const auto info = pool.apply([] {
        const auto parent = multihull::parent_process();
        return std::tuple(multihull::current_process().pid(), multihull::current_process().daemon(),
                          parent ? parent->pid() : pid_t{0});
    });
    EXPECT_EQ(info, std::tuple(worker, true, ::getpid()));
}

TEST_P(ApplyTest, returns_void_bool_and_strings) {
    Pool pool(1);
    pool.apply(nothing);
    pool.apply_async(nothing).get();
    EXPECT_TRUE(pool.apply(negate, false));
    EXPECT_FALSE(pool.apply(negate, true));
    EXPECT_EQ(pool.apply([] { return std::string(); }), "");
    EXPECT_EQ(pool.apply([](const std::string& text) { return text + "!"; }, "hello"), "hello!");
    EXPECT_EQ(pool.apply(length, "seven c"), 7);
    EXPECT_EQ(pool.apply([] { return std::string("a\0b", 3); }), std::string("a\0b", 3));
}

TEST_P(ApplyTest, returns_what_is_not_plain) {
    Pool pool(1);
    const Tree tree{1, {{2, {{3, {}}}}, {4, {}}}};
    EXPECT_EQ(pool.apply([](Tree t) { return t; }, tree), tree);
    EXPECT_EQ(pool.apply([] {
        return std::map<std::string, std::set<int>>{{"a", {1, 2}}, {"b", {}}};
    }),
              (std::map<std::string, std::set<int>>{{"a", {1, 2}}, {"b", {}}}));
    EXPECT_EQ(pool.apply([] { return std::optional<std::string>(); }), std::nullopt);
    EXPECT_EQ(pool.apply([] { return std::variant<int, std::string>("text"); }),
              (std::variant<int, std::string>("text")));
    EXPECT_EQ(*pool.apply([] { return std::make_unique<int>(5); }), 5);
    EXPECT_EQ(pool.apply([](std::unique_ptr<std::string> text) { return *text + "?"; },
                         std::make_unique<std::string>("moved")),
              "moved?");
    EXPECT_EQ(pool.apply([] { return std::filesystem::path("/a/b"); }), std::filesystem::path("/a/b"));
    EXPECT_EQ(pool.apply([] { return std::vector<bool>{true, false, true}; }), (std::vector<bool>{true, false, true}));
}

/// Whether the elements lie in some process's part of the family's shared memory.
template <class T>
bool in_shared_memory(std::span<const T> elements) {
    auto& region = multihull::shm::Region::instance();
    return region.owner_of(region.offset_of(elements.data())) != 0;
}

/// 0 where the elements are not read in place.
double sum_in_place(std::span<const double> values) {
    return in_shared_memory(values) ? std::accumulate(values.begin(), values.end(), 0.0) : 0;
}

TEST_P(ApplyTest, spans_look_at_what_arrived_without_a_copy) {
    Pool pool(1);
    std::vector<double> values(10'000, 0.5);
    EXPECT_EQ(pool.apply(sum_in_place, values), 5000);
    EXPECT_EQ(values.size(), 10'000U);
    EXPECT_EQ(pool.apply(sum_in_place, std::span<const double>(values).first(2000)), 1000);
    EXPECT_EQ(pool.apply(sum_in_place, std::span(values)), 5000);
    const auto several = [](char a, std::span<const double> first, const std::string& text,
                            const std::span<const short>& second, std::vector<double> third) {
        third.push_back(a);    // the function's own
        return std::tuple(in_shared_memory(first) && in_shared_memory(second),
                          in_shared_memory(std::span<const double>(third)), first.size() + second.size() + third.size(),
                          text + std::to_string(second.back()));
    };
    EXPECT_EQ(pool.apply(several, 'a', values, std::string(301, 't'), std::vector<short>(777, 7), values),
              std::tuple(true, false, std::size_t{20'778}, std::string(301, 't') + "7"));
    EXPECT_EQ(pool.apply(sum_in_place, std::move(values)), 5000);
    EXPECT_TRUE(values.empty());    // NOLINT(bugprone-use-after-move): it was given away
}

TEST_P(ApplyTest, spans_of_all_sizes_and_alignments_are_whole) {
    struct alignas(128) Wide {
        std::array<std::uint64_t, 16> parts{};
    };
    Pool pool(1);
    const auto check = [](const std::string&, std::span<const std::uint64_t> values) {
        return std::tuple(reinterpret_cast<std::uintptr_t>(values.data()) % alignof(std::uint64_t), values.size());
    };
    for (std::size_t size = 0; size < 40; ++size) {
        const std::string before(size, 'b');
        for (const std::size_t count : {std::size_t{0}, size, 1000 * size}) {
            EXPECT_EQ(pool.apply(check, before, std::vector<std::uint64_t>(count)),
                      std::tuple(std::uintptr_t{0}, count));
        }
        std::vector<Wide> wide(size);
        for (Wide& one : wide) one.parts.back() = size;
        const auto last = [](const std::string&, std::span<const Wide> values) {
            std::uint64_t sum = reinterpret_cast<std::uintptr_t>(values.data()) % alignof(Wide);
            for (const Wide& one : values) sum += one.parts.back();
            return sum;
        };
        EXPECT_EQ(pool.apply(last, before, wide), size * size);
    }
}

/// What is short lies in the task itself.
std::pair<bool, std::string> text_in_place(std::string_view text) {
    return {text.size() < 100 || in_shared_memory(std::span(text.data(), text.size())), std::string(text)};
}

TEST_P(ApplyTest, views_of_texts_look_at_what_arrived_without_a_copy) {
    Pool pool(1);
    const auto there = [](std::string text) { return std::pair(true, std::move(text)); };
    const std::string big(70'000, 'b');
    EXPECT_EQ(pool.apply(text_in_place, big), there(big));
    EXPECT_EQ(pool.apply(text_in_place, std::string_view(big).substr(60'000)), there(big.substr(60'000)));
    EXPECT_EQ(pool.apply(text_in_place, std::string(big)), there(big));
    EXPECT_EQ(pool.apply(text_in_place, "a literal"), there("a literal"));    // without the zero behind it
    EXPECT_EQ(pool.apply(text_in_place, std::string("a\0b", 3)), there(std::string("a\0b", 3)));
    const char* const pointer = "a pointer";
    EXPECT_EQ(pool.apply(text_in_place, pointer), there("a pointer"));
    EXPECT_EQ(pool.apply(text_in_place, ""), there(""));
    // Behind text of any length, also where the letters need a place of their own.
    const auto wide = [](std::string_view before, const std::wstring_view& text, std::u8string_view last) {
        return std::tuple(before.size(), std::wstring(text), last.size());
    };
    for (std::size_t size = 0; size < 20; ++size) {
        EXPECT_EQ(pool.apply(wide, std::string(size, 'x'), std::wstring(size, L'w'), u8"last"),
                  std::tuple(size, std::wstring(size, L'w'), std::size_t{4}));
    }
    const std::vector<std::string> words{"one", "", std::string(500, 'w')};
    EXPECT_EQ(pool.map([](std::string_view word) { return std::string(word); }, words), words);
}

TEST_P(ApplyTest, the_second_try_sees_the_span_of_the_first) {
    Pool pool(1);
    const auto crash_once = [](const std::string& path, std::span<const double> values) {
        if (Board(path)[0].fetch_add(1) == 0) ::raise(SIGKILL);
        return sum_in_place(values);
    };
    Board board;
    EXPECT_EQ(pool.apply({.retries = 1}, crash_once, board.path(), std::vector<double>(5000, 2.0)), 10'000);
}

TEST_P(ApplyTest, elements_of_maps_are_spans_without_a_copy) {
    Pool pool(2);
    std::vector<std::vector<double>> rows;
    std::vector<double> expected;
    for (int i = 1; i <= 50; ++i) {
        rows.emplace_back(static_cast<std::size_t>(i * 10), 0.5);
        expected.push_back(i * 5);
    }
    EXPECT_EQ(pool.map(sum_in_place, rows), expected);
    std::vector<std::tuple<double, std::vector<double>>> pairs;
    for (const auto& row : rows) pairs.emplace_back(2.0, row);
    const auto scaled = [](double factor, std::span<const double> row) { return factor * sum_in_place(row); };
    for (double& sum : expected) sum *= 2;
    EXPECT_EQ(pool.starmap(scaled, pairs), expected);
    // A result may refer to the element that it was made from.
    const std::vector<std::string> words{std::string(100, 'a'), std::string(200, 'b')};
    EXPECT_EQ(pool.map([](const std::string& word) -> const std::string& { return word; }, words), words);
}

TEST_P(ApplyTest, leaves_the_callers_arguments_alone) {
    Pool pool(1);
    const std::string text = "kept";
    const std::vector<int> values{1, 2, 3};
    EXPECT_EQ(pool.apply(
                  [](std::string a, std::vector<int> b) {
                      a.clear();
                      b.clear();
                      return a.size() + b.size();
                  },
                  text, values),
              0u);
    EXPECT_EQ(text, "kept");
    EXPECT_EQ(values.size(), 3u);
}

TEST_P(ApplyTest, carries_a_hundred_megabytes_there_and_back) {
    Pool pool(2);
    std::vector<std::uint32_t> values(25'000'000);
    std::iota(values.begin(), values.end(), 0u);
    for (int round = 0; round < 2; ++round) {
        const auto back = pool.apply([](std::vector<std::uint32_t> v) { return v; }, values);
        ASSERT_TRUE(back == values);
    }
    const std::string text(100'000'000, 'm');
    ASSERT_TRUE(pool.apply([](const std::string& s) { return s; }, text) == text);
    // Several at once.
    std::vector<multihull::Future<std::vector<std::uint32_t>>> futures;
    for (int i = 0; i < 3; ++i) {
        futures.push_back(pool.apply_async([](const std::vector<std::uint32_t>& v) { return v; }, values));
    }
    for (const auto& future : futures) ASSERT_TRUE(future.get() == values);
}

TEST_P(ApplyTest, standard_exceptions_come_back_as_themselves) {
    Pool pool(1);
    EXPECT_STREQ(thrown_by<std::invalid_argument>([&] {
                     pool.apply([] { throw std::invalid_argument("bad"); });
                 }).what(),
                 "bad");
    EXPECT_THROW(pool.apply([] { return std::vector<int>().at(1); }), std::out_of_range);
    EXPECT_THROW(pool.apply([]() -> int { throw std::bad_alloc(); }), std::bad_alloc);
    EXPECT_THROW(pool.apply([] { return std::any_cast<int>(std::any("no")); }), std::bad_any_cast);
    const auto error = thrown_by<std::system_error>([&] {
        pool.apply([] { throw std::system_error(ENOENT, std::generic_category(), "opening"); });
    });
    EXPECT_EQ(error.code(), std::errc::no_such_file_or_directory);
    EXPECT_THROW(pool.apply([] { return std::filesystem::file_size("/nowhere/at/all"); }),
                 std::filesystem::filesystem_error);
    EXPECT_EQ(pool.apply(add, 1, 1), 2);
}

TEST_P(ApplyTest, other_exceptions_come_back_as_remote_error_with_the_stack_that_threw) {
    Pool pool(1);
    const auto error = thrown_by<multihull::RemoteError>([&] { pool.apply(throw_unheard, 4); });
    EXPECT_NE(error.type_name().find("Unheard"), std::string::npos) << error.type_name();
    EXPECT_EQ(error.text(), "code 4");
    EXPECT_NE(std::string(error.what()).find("code 4"), std::string::npos) << error.what();
    EXPECT_NE(error.stack().to_string().find("throw_unheard"), std::string::npos) << error.stack().to_string();
    EXPECT_EQ(thrown_by<multihull::RemoteError>([&] { pool.apply([] { throw 42; }); }).type_name(), "int");
    struct Local {};
    const auto local = thrown_by<multihull::RemoteError>([&] { pool.apply([] { throw Local{}; }); });
    EXPECT_NE(local.type_name().find("Local"), std::string::npos);
    EXPECT_EQ(local.text(), "");
}

TEST_P(ApplyTest, the_librarys_own_errors_come_back) {
    Pool pool(1);
    EXPECT_THROW(pool.apply([] { throw multihull::Error("from inside"); }), multihull::Error);
    const auto nested = [] {
        try {
            throw std::runtime_error("cause");
        } catch (...) {
            std::throw_with_nested(std::runtime_error("effect"));
        }
    };
    EXPECT_THROW(pool.apply(nested), std::exception);
}

TEST_P(ApplyTest, takes_tasks_from_many_threads) {
    Pool pool(2);
    std::vector<std::thread> threads;
    std::atomic<int> wrong{0};
    for (int t = 0; t < 8; ++t) {
        threads.emplace_back([&, t] {
            std::vector<multihull::Future<int>> futures;
            for (int i = 0; i < 300; ++i) {
                futures.push_back(pool.apply_async(add, t * 1000, i));
                if (i % 50 == 0 && pool.map([](int x) { return -x; }, {1, 2, 3}) != std::vector{-1, -2, -3}) ++wrong;
                if (i % 100 == 0 && pool.apply([](int x) { return std::to_string(x); }, i) != std::to_string(i))
                    ++wrong;
            }
            for (int i = 0; i < 300; ++i) {
                if (futures[static_cast<std::size_t>(i)].get() != t * 1000 + i) ++wrong;
            }
        });
    }
    for (auto& thread : threads) thread.join();
    EXPECT_EQ(wrong, 0);
}

TEST_P(ApplyTest, a_long_task_holds_up_nobody_behind_it) {
    Board board;
    Pool pool(2);
    const auto held = pool.apply_async(test::hold, board.path(), 1);
    ASSERT_TRUE(board.wait_until_at_least(test::kHeld, 1));
    std::vector<multihull::Future<int>> futures;
    for (int i = 0; i < 200; ++i) futures.push_back(pool.apply_async(add, i, i));
    for (int i = 0; i < 200; ++i) EXPECT_EQ(futures[static_cast<std::size_t>(i)].get(), 2 * i);
    EXPECT_FALSE(held.ready());
    board[test::kLetGo] = 1;
    EXPECT_EQ(held.get(), 1);
}

TEST_P(ApplyTest, keeps_ten_thousand_results_until_they_are_asked_for) {
    Pool pool(2);
    std::vector<multihull::Future<std::string>> futures;
    for (int i = 0; i < 10'000; ++i) {
        futures.push_back(pool.apply_async([](int x) { return std::string(static_cast<std::size_t>(x % 300), 'r'); },
                                           i));
    }
    for (int i = 9'999; i >= 0; --i) {
        ASSERT_EQ(futures[static_cast<std::size_t>(i)].get().size(), static_cast<std::size_t>(i % 300));
    }
}

TEST_P(ApplyTest, pools_may_be_nested_inside_tasks) {
    Pool pool(2);
    const auto sum_of_squares = [](int n) {
        Pool inner(2);
        const auto squares = inner.map([](int x) { return x * x; }, std::views::iota(0, n));
        return std::accumulate(squares.begin(), squares.end(), 0);
    };
    EXPECT_EQ(pool.map(sum_of_squares, {3, 4, 5}), (std::vector{5, 14, 30}));
    const auto inner_crash = [] {
        Pool inner(1);
        try {
            inner.apply([] { ::raise(SIGKILL); });
        } catch (const multihull::WorkerCrashed& error) {
            return error.signal();
        }
        return 0;
    };
    EXPECT_EQ(pool.apply(inner_crash), SIGKILL);
    const auto depth_three = [] {
        Pool inner(1);
        return inner.apply([] { return Pool(1).apply([] { return 3; }); });
    };
    EXPECT_EQ(pool.apply(depth_three), 3);
}

TEST_P(ApplyTest, processes_may_be_started_inside_tasks) {
    Pool pool(1);
    const auto code = pool.apply([] {
        multihull::Process child([] { ::_exit(9); });
        child.start();
        child.join();
        return child.exitcode().value_or(-1);
    });
    EXPECT_EQ(code, 9);
}

}    // namespace
