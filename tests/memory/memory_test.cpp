// A Memory in one process: what is found, what is computed, what is removed, and what is refused.
#include "memory/folders.hpp"

#include <multihull/memory.hpp>

#include <gtest/gtest.h>

#include <array>
#include <atomic>
#include <chrono>
#include <fcntl.h>
#include <filesystem>
#include <latch>
#include <numeric>
#include <sstream>
#include <stdexcept>
#include <string>
#include <string_view>
#include <sys/stat.h>
#include <thread>
#include <vector>

namespace {

namespace fs = std::filesystem;
namespace mh = multihull;
using namespace std::chrono_literals;

std::atomic<int> calls{0};

double square(double x) {
    ++calls;
    return x * x;
}
int length(const std::string& text) {
    ++calls;
    return static_cast<int>(text.size());
}
int view_length(std::string_view text) {
    ++calls;
    return static_cast<int>(text.size());
}
long total(std::span<const long> numbers) {
    ++calls;
    return std::accumulate(numbers.begin(), numbers.end(), 0L);
}
int failing(int x) {
    ++calls;
    if (x < 0) throw std::invalid_argument("negative");
    return x;
}
int with_workers(int x, int) {
    ++calls;
    return x;
}
int with_logger(int x, std::ostream& out) {
    ++calls;
    out << x;
    return x;
}
std::vector<double> table(std::size_t size) {
    ++calls;
    std::vector<double> values(size);
    std::iota(values.begin(), values.end(), 0.0);
    return values;
}
mh::MappedArray<double> mapped_table(std::size_t size) { return table(size); }

struct Named {
    std::string name;
    mh::MappedArray<int> values;
    bool operator==(const Named&) const = default;
};
Named named(std::string name, int size) {
    ++calls;
    std::vector<int> values(static_cast<std::size_t>(size));
    std::iota(values.begin(), values.end(), 1);
    return {std::move(name), std::move(values)};
}

struct Scale {
    int factor = 1;
    int operator()(int x) const {
        ++calls;
        return factor * x;
    }
};

class MemoryTest : public ::testing::Test {
protected:
    void SetUp() override { calls = 0; }

    /// Expects the number of calls since the last look.
    void expect_calls(int expected) { EXPECT_EQ(calls.exchange(0), expected); }
    std::vector<fs::path> entries() const { return test::entries_in(folder.path()); }

    test::Folder folder;
    std::string path = folder.path() + "/cache";
    test::Log log;
};

TEST_F(MemoryTest, ComputesOnce) {
    const mh::Memory memory(path);
    const auto cached = memory.cache("square", square);
    EXPECT_EQ(cached(3), 9);
    EXPECT_EQ(cached(3.0), 9);
    EXPECT_EQ(cached(4.0), 16);
    expect_calls(2);
    EXPECT_EQ(mh::Memory(path).cache("square", square)(4.0), 16);
    expect_calls(0);
    EXPECT_EQ(entries().size(), 2U);
    EXPECT_TRUE(log.lines().empty());
}

TEST_F(MemoryTest, HashesArgumentsAsTheParametersTakeThem) {
    const mh::Memory memory(path);
    const auto by_string = memory.cache("length", length);
    EXPECT_EQ(by_string("abc"), 3);
    EXPECT_EQ(by_string(std::string("abc")), 3);
    expect_calls(1);
    const auto by_view = memory.cache("view_length", view_length);
    EXPECT_EQ(by_view("abc"), 3);
    EXPECT_EQ(by_view(std::string("abc")), 3);
    EXPECT_EQ(by_view(std::string_view("abcd").substr(0, 3)), 3);
    expect_calls(1);
    const auto by_span = memory.cache("total", total);
    const std::vector<long> numbers{1, 2, 3};
    const std::array<long, 3> array{1, 2, 3};
    EXPECT_EQ(by_span(numbers), 6);
    EXPECT_EQ(by_span(array), 6);
    expect_calls(1);
}

TEST_F(MemoryTest, KeepsNamesVersionsAndTypesApart) {
    const mh::Memory memory(path);
    EXPECT_EQ(memory.cache("f", square)(2.0), 4);
    EXPECT_EQ(memory.cache("g", square)(2.0), 4);
    EXPECT_EQ(memory.cache("f", square, {.version = "2"})(2.0), 4);
    EXPECT_EQ(memory.cache("f", [](int x) { return x + 1; })(2), 3);
    EXPECT_EQ(memory.cache("f", [](int x) { return std::to_string(x); })(2), "2");
    expect_calls(3);
    EXPECT_EQ(memory.cache("f", square)(2.0), 4);
    EXPECT_EQ(memory.cache("f", square, {.version = "2"})(2.0), 4);
    expect_calls(0);
    EXPECT_THROW(memory.cache("", square), mh::Error);
    // Names that look the same in a folder are not.
    EXPECT_EQ(memory.cache("a/b", [](int x) { return x; })(2), 2);
    EXPECT_EQ(memory.cache("a.b", [](int x) { return x + 1; })(2), 3);
    EXPECT_EQ(memory.cache("../../x", [](int x) { return x + 2; })(2), 4);
    EXPECT_FALSE(fs::exists(folder.path() + "/x"));
    EXPECT_EQ(memory.cache(std::string(1000, 'n'), [](int x) { return x; })(2), 2);
}

TEST_F(MemoryTest, TakesFunctionObjectsByTheirFields) {
    const mh::Memory memory(path);
    EXPECT_EQ(memory.cache("scale", Scale{2})(3), 6);
    EXPECT_EQ(memory.cache("scale", Scale{3})(3), 9);
    EXPECT_EQ(memory.cache("scale", Scale{2})(3), 6);
    expect_calls(2);
}

TEST_F(MemoryTest, IgnoresArguments) {
    const mh::Memory memory(path);
    const auto cached = memory.cache("with_workers", with_workers, {.ignore = {1}});
    EXPECT_EQ(cached(1, 2), 1);
    EXPECT_EQ(cached(1, 3), 1);
    EXPECT_EQ(cached(2, 3), 2);
    expect_calls(2);
    EXPECT_THROW(memory.cache("with_workers", with_workers, {.ignore = {2}})(1, 2), mh::Error);

    const auto logging = memory.cache("with_logger", with_logger, mh::ignoring<1>);
    std::ostringstream out;
    std::ostringstream other;
    EXPECT_EQ(logging(1, out), 1);
    EXPECT_EQ(logging(1, other), 1);
    EXPECT_EQ(out.str() + other.str(), "1");
    EXPECT_TRUE(logging.check_call_in_cache(1, out));
}

TEST_F(MemoryTest, DoesNotKeepFailures) {
    const mh::Memory memory(path);
    const auto cached = memory.cache("failing", failing);
    EXPECT_THROW(cached(-1), std::invalid_argument);
    EXPECT_THROW(cached(-1), std::invalid_argument);
    expect_calls(2);
    EXPECT_TRUE(entries().empty());
    EXPECT_FALSE(cached.check_call_in_cache(-1));
}

TEST_F(MemoryTest, ChecksForcesAndClears) {
    const mh::Memory memory(path);
    const auto cached = memory.cache("square", square);
    const auto other = memory.cache("length", length);
    EXPECT_FALSE(cached.check_call_in_cache(3.0));
    cached(3.0);
    other("abc");
    EXPECT_TRUE(cached.check_call_in_cache(3.0));
    EXPECT_FALSE(cached.check_call_in_cache(4.0));
    expect_calls(2);
    EXPECT_EQ(cached.call(3.0), 9);
    expect_calls(1);
    EXPECT_EQ(entries().size(), 2U);
    cached.clear();
    EXPECT_FALSE(cached.check_call_in_cache(3.0));
    EXPECT_TRUE(other.check_call_in_cache("abc"));
    cached(3.0);
    memory.clear();
    EXPECT_TRUE(entries().empty());
    EXPECT_EQ(cached(3.0), 9);
    EXPECT_EQ(cached(3.0), 9);
    expect_calls(2);
}

TEST_F(MemoryTest, Shelves) {
    const mh::Memory memory(path);
    const auto cached = memory.cache("table", table);
    auto shelved = cached.call_and_shelve(1000);
    EXPECT_EQ(shelved.get(), table(1000));
    expect_calls(2);
    EXPECT_EQ(cached.call_and_shelve(1000).get().size(), 1000U);
    expect_calls(0);
    const auto copy = shelved;
    shelved.clear();
    shelved.clear();
    EXPECT_FALSE(cached.check_call_in_cache(1000));
    const auto error = test::error_of([&] { copy.get(); });
    EXPECT_NE(error.find("\"table\" is gone"), error.npos) << error;
}

TEST_F(MemoryTest, ShelvesWhatCanOnlyBeMoved) {
    for (const std::string& where : {path, std::string("/proc/multihull-cache")}) {
        const auto cached = mh::Memory(where).cache("unique", [](int x) { return std::make_unique<int>(x); });
        EXPECT_EQ(*cached.call_and_shelve(3).get(), 3);
        EXPECT_EQ(*cached(3), 3);
    }
}

TEST_F(MemoryTest, TakesMappedArrays) {
    const mh::Memory memory(path);
    const auto cached = memory.cache("sum", [](const mh::MappedArray<int>& numbers) {
        ++calls;
        return std::accumulate(numbers.begin(), numbers.end(), 0);
    });
    EXPECT_EQ(cached(mh::MappedArray<int>{1, 2, 3}), 6);
    EXPECT_EQ(cached(mh::MappedArray<int>{1, 2, 3}), 6);
    EXPECT_EQ(cached(mh::MappedArray<int>{1, 2, 4}), 7);
    expect_calls(2);
}

TEST_F(MemoryTest, ExpiresAndValidates) {
    const mh::Memory memory(path);
    memory.cache("square", square)(3.0);
    EXPECT_EQ(memory.cache("square", square, {.expires_after = 24h})(3.0), 9);
    expect_calls(1);
    const auto strict = memory.cache("square", square, {.expires_after = 0ns});
    EXPECT_FALSE(strict.check_call_in_cache(3.0));
    EXPECT_EQ(strict(3.0), 9);
    EXPECT_EQ(strict(3.0), 9);
    expect_calls(2);

    static std::vector<std::string> seen;
    const auto careful =
        memory.cache("careful", square, {.version = "7", .validate = [](const mh::EntryInfo& entry) {
                                             EXPECT_GE(entry.age, 0ns);
                                             EXPECT_LT(entry.age, 1h);
                                             EXPECT_GE(entry.duration, 0ns);
                                             EXPECT_GT(entry.bytes, sizeof(double));
                                             EXPECT_LE(entry.created, std::chrono::system_clock::now());
                                             seen.push_back(std::string(entry.function) + " " +
                                                            std::string(entry.version) + " " +
                                                            std::string(entry.arguments));
                                             return entry.arguments != "2.5";
                                         }});
    EXPECT_EQ(careful(1.5), 2.25);
    EXPECT_EQ(careful(1.5), 2.25);
    expect_calls(1);
    EXPECT_EQ(careful(2.5), 6.25);
    EXPECT_EQ(careful(2.5), 6.25);
    expect_calls(2);
    EXPECT_EQ(seen.front(), "careful 7 1.5");
    EXPECT_EQ(seen.back(), "careful 7 2.5");
}

struct Point {
    int x = 1;
    std::vector<std::string> names;
};
enum class Color { red = 3 };

TEST_F(MemoryTest, TellsArgumentsAsText) {
    const mh::Memory memory(path);
    static std::string arguments;
    const auto cached =
        memory.cache("f",
                     [](int, const std::string&, Point, std::vector<int>, std::optional<bool>, Color) { return 1; },
                     {.validate = [](const mh::EntryInfo& entry) {
                         arguments = entry.arguments;
                         return true;
                     }});
    const auto call = [&](const std::vector<int>& numbers) {
        cached(-1, "a", Point{2, {"b"}}, numbers, std::optional<bool>(), Color::red);
        cached(-1, "a", Point{2, {"b"}}, numbers, std::optional<bool>(), Color::red);
        return arguments;
    };
    EXPECT_EQ(call({1, 2}), "-1, \"a\", {2, [\"b\"]}, [1, 2], none, 3");
    const std::string cut = call(std::vector<int>(100'000, 7));
    EXPECT_LT(cut.size(), 300U);
    EXPECT_NE(cut.find("..."), cut.npos);
}

TEST_F(MemoryTest, MapsBigArrays) {
    for (const std::size_t from : {std::size_t{1}, std::size_t{1} << 30}) {
        for (const auto compress : {mh::Compression{}, mh::zstd(1)}) {
            const mh::Memory memory(path, {.compress = compress, .map_from = from});
            const auto cached = memory.cache("mapped_table", mapped_table);
            memory.clear();
            const auto first = cached(100'000);
            const auto again = cached(100'000);
            expect_calls(1);
            EXPECT_EQ(first, again);
            EXPECT_EQ(again.size(), 100'000U);
            EXPECT_EQ(reinterpret_cast<std::uintptr_t>(again.data()) % alignof(double), 0U);
            EXPECT_EQ(test::is_mapped(again.data()), from == 1 && compress == mh::Compression{});

            const auto part = memory.cache("named", named);
            EXPECT_EQ(part("x", 5000), part("x", 5000));
            EXPECT_EQ(test::is_mapped(part("x", 5000).values.data()), from == 1 && compress == mh::Compression{});
            expect_calls(1);
            // What is mapped stays, whatever becomes of its file.
            memory.clear();
            EXPECT_EQ(again[99'999], 99'999);
        }
    }
}

TEST_F(MemoryTest, Compresses) {
    const mh::Memory memory(path, {.compress = mh::zstd(5)});
    const auto cached = memory.cache("table", [](std::size_t n) { return std::string(n, 'x'); });
    EXPECT_EQ(cached(100'000), std::string(100'000, 'x'));
    EXPECT_EQ(cached(100'000), std::string(100'000, 'x'));
    ASSERT_EQ(entries().size(), 1U);
    EXPECT_LT(fs::file_size(entries()[0]), 1000U);
    EXPECT_EQ(cached(1), "x");    // which becomes no smaller
    EXPECT_EQ(cached(1), "x");
    // Whoever reads needs not know how it was written.
    EXPECT_TRUE(
        mh::Memory(path).cache("table", [](std::size_t n) { return std::string(n, 'y'); })(100'000).starts_with("xxx"));
}

TEST_F(MemoryTest, ReducesByLeastRecentUse) {
    const mh::Memory memory(path);
    const auto cached = memory.cache("square", square);
    for (int i = 0; i < 10; ++i) {
        cached(i);
        test::set_used(test::newest_entry(path), std::chrono::hours(100 - i));
    }
    EXPECT_EQ(cached(0), 0);    // used just now
    expect_calls(10);
    EXPECT_EQ(memory.reduce_size({}), 0U);
    EXPECT_EQ(memory.reduce_size({.items = 7}), 3U);
    for (const int i : {1, 2, 3}) EXPECT_FALSE(cached.check_call_in_cache(i)) << i;
    EXPECT_TRUE(cached.check_call_in_cache(0));
    EXPECT_EQ(memory.reduce_size({.age = 95h + 30min}), 1U);    // 4 was used 96 hours ago
    EXPECT_FALSE(cached.check_call_in_cache(4));
    const std::size_t each = fs::file_size(entries()[0]);
    EXPECT_EQ(memory.reduce_size({.bytes = 2 * each}), 4U);
    EXPECT_TRUE(cached.check_call_in_cache(0) && cached.check_call_in_cache(9));
    EXPECT_EQ(memory.reduce_size({.bytes = 0}), 2U);
    EXPECT_TRUE(entries().empty());
}

TEST_F(MemoryTest, RefusesFoldersOfOthers) {
    fs::create_directories(path + "/precious");
    const auto error = test::error_of([&] { mh::Memory memory(path); });
    EXPECT_NE(error.find("is not a cache of Multihull's"), error.npos) << error;
    EXPECT_TRUE(fs::exists(path + "/precious"));
    fs::remove(path + "/precious");
    test::write_file(path + "/CACHEDIR.TAG", "Signature: 8a477f597d28d172789f06886806bc55\n# Somebody else's.\n");
    EXPECT_THROW(mh::Memory memory(path), mh::Error);
    fs::remove(path + "/CACHEDIR.TAG");

    const mh::Memory memory(path);
    memory.cache("square", square)(1.0);
    // What else comes to lie there stays.
    test::write_file(path + "/notes", "mine");
    test::write_file(test::newest_entry(path).parent_path() / "notes", "mine");
    fs::create_directory_symlink(folder.path(), path + "/link");
    test::write_file(folder.path() + "/00000000000000000000000000000000.entry", "mine");
    memory.clear();
    EXPECT_TRUE(fs::exists(path + "/notes"));
    EXPECT_TRUE(fs::exists(folder.path() + "/00000000000000000000000000000000.entry"));
    // The folder was made another's behind our back.
    fs::remove(path + "/CACHEDIR.TAG");
    EXPECT_THROW(memory.clear(), mh::Error);
    EXPECT_THROW(memory.reduce_size({.items = 0}), mh::Error);

    test::write_file(folder.path() + "/file", "");
    EXPECT_THROW(mh::Memory(folder.path() + "/file"), mh::Error);
    EXPECT_THROW(mh::Memory(""), mh::Error);
}

TEST_F(MemoryTest, LivesOnWhenItsFolderIsRemoved) {
    const mh::Memory memory(path);
    const auto cached = memory.cache("square", square);
    cached(1.0);
    fs::remove_all(path);
    EXPECT_EQ(cached(1.0), 1);
    EXPECT_EQ(cached(1.0), 1);
    expect_calls(2);
    fs::remove_all(path);
    memory.clear();
    EXPECT_EQ(memory.reduce_size({.items = 0}), 0U);
    EXPECT_TRUE(log.lines().empty()) << log.lines()[0];
}

TEST_F(MemoryTest, WorksInFoldersBelowNew) {
    const mh::Memory memory(path + "/a/b/c/");
    EXPECT_EQ(memory.path(), path + "/a/b/c");
    memory.cache("square", square)(1.0);
    EXPECT_EQ(test::entries_in(path + "/a/b/c").size(), 1U);
}

std::string recursive_path;

int fibonacci(int n);
int cached_fibonacci(int n) { return mh::Memory(recursive_path).cache("fibonacci", fibonacci)(n); }
int fibonacci(int n) {
    ++calls;
    return n < 2 ? n : cached_fibonacci(n - 1) + cached_fibonacci(n - 2);
}
int countdown(int x, int depth) {
    ++calls;
    return depth == 0 ? x : mh::Memory(recursive_path).cache("countdown", countdown, {.ignore = {1}})(x, depth - 1);
}

TEST_F(MemoryTest, MayBeCalledFromWhatItCaches) {
    recursive_path = path;
    EXPECT_EQ(cached_fibonacci(30), 832040);
    expect_calls(31);
    // The same result again, from within: it must not wait for itself.
    EXPECT_EQ(mh::Memory(path).cache("countdown", countdown, {.ignore = {1}})(5, 3), 5);
    expect_calls(4);
}

TEST_F(MemoryTest, ThreadsComputeOnce) {
    const mh::Memory memory(path);
    const auto cached = memory.cache("square", square);
    constexpr int kThreads = 8;
    for (int round = 0; round < 20; ++round) {
        std::latch begin(kThreads);
        std::vector<std::jthread> threads;
        std::atomic<int> right{0};
        for (int i = 0; i < kThreads; ++i) {
            threads.emplace_back([&] {
                begin.arrive_and_wait();
                right += cached(round) == round * round ? 1 : 0;
            });
        }
        threads.clear();
        EXPECT_EQ(right, kThreads);
        expect_calls(1);
    }
}

TEST_F(MemoryTest, ThreadsClearWhileOthersCompute) {
    const mh::Memory memory(path);
    const auto cached = memory.cache("square", square);
    std::atomic<bool> over{false};
    std::jthread clearer([&] {
        while (!over) {
            memory.clear();
            memory.reduce_size({.items = 2});
        }
    });
    for (int i = 0; i < 2000; ++i) ASSERT_EQ(cached(i % 10), (i % 10) * (i % 10));
    over = true;
    clearer.join();
    EXPECT_TRUE(log.lines().empty()) << log.lines()[0];
    memory.clear();
    EXPECT_TRUE(test::leftovers_in(path).empty());
}

}    // namespace
