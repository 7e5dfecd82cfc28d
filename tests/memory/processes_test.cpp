// A Memory in many processes: cached functions as tasks, handles that travel, and one of many computing what all of them want.
#include "memory/folders.hpp"
#include "support/board.hpp"
#include "support/start_methods.hpp"

#include <multihull/memory.hpp>
#include <multihull/pool.hpp>

#include <gtest/gtest.h>

#include <numeric>
#include <string>
#include <unistd.h>
#include <vector>

namespace {

namespace mh = multihull;

constexpr std::size_t kCalls = 0;
constexpr std::size_t kWaiting = 1;
constexpr std::size_t kGo = 2;

// The board's path is no part of the key.
int counted_square(int x, const std::string& board) {
    ++test::Board(board)[kCalls];
    return x * x;
}
std::vector<double> counted_table(std::size_t size, const std::string& board) {
    ++test::Board(board)[kCalls];
    std::vector<double> values(size);
    std::iota(values.begin(), values.end(), 0.0);
    return values;
}
int plain_square(int x) { return x * x; }

struct Times {
    int factor = 1;
    int operator()(int x) const { return factor * x; }
};

bool accept_all(const mh::EntryInfo&) { return true; }
bool refuse_all(const mh::EntryInfo&) { return false; }

mh::Shelved<std::vector<double>> shelve(const std::string& path, const std::string& board) {
    mh::set_log_level(mh::LogLevel::error);    // a folder that can't be written is said once in each process
    return mh::Memory(path).cache("table", counted_table, {.ignore = {1}}).call_and_shelve(10'000, board);
}
double last_of(const mh::Shelved<std::vector<double>>& shelved) {
    mh::set_log_level(mh::LogLevel::error);
    return shelved.get().back();
}

// Says that it is about to ask, and asks when all may.
int ask(const mh::Memory& memory, int x, const std::string& path) {
    test::Board board(path);
    ++board[kWaiting];
    board.wait_until_at_least(kGo, x);
    return memory.cache("square", counted_square, {.ignore = {1}})(x, path);
}

class MemoryProcessesTest : public test::StartMethodTest {
protected:
    std::int64_t computed() { return board[kCalls].exchange(0); }

    test::Board board;
    test::Folder folder;
    std::string path = folder.path() + "/cache";
};

TEST_P(MemoryProcessesTest, CachedFunctionsAreTasks) {
    const mh::Memory memory(path, {.compress = mh::zstd(1), .map_from = 100});
    const auto cached = memory.cache("square", counted_square, {.ignore = {1}, .validate = accept_all});
    mh::Pool pool(2);
    for (int round = 0; round < 2; ++round) {
        std::vector<mh::Future<int>> futures;
        for (int i = 0; i < 20; ++i) futures.push_back(pool.apply_async(cached, i, board.path()));
        for (int i = 0; i < 20; ++i) EXPECT_EQ(futures[static_cast<std::size_t>(i)].get(), i * i);
        EXPECT_EQ(computed(), round == 0 ? 20 : 0);
    }
    // What the workers computed is found here, and the other way round.
    EXPECT_EQ(cached(7, board.path()), 49);
    EXPECT_EQ(computed(), 0);
    EXPECT_EQ(cached(100, board.path()), 10'000);
    EXPECT_EQ(pool.apply(cached, 100, board.path()), 10'000);
    EXPECT_EQ(computed(), 1);
    const auto refused = memory.cache("square", counted_square, {.ignore = {1}, .validate = refuse_all});
    EXPECT_EQ(pool.apply(refused, 7, board.path()), 49);
    EXPECT_EQ(computed(), 1);
}

TEST_P(MemoryProcessesTest, CachedFunctionsAreMapped) {
    const mh::Memory memory(path);
    mh::Pool pool(2);
    std::vector<int> inputs(100);
    std::iota(inputs.begin(), inputs.end(), 0);
    const auto squares = pool.map(memory.cache("f", plain_square), inputs);
    ASSERT_EQ(squares.size(), 100U);
    EXPECT_EQ(squares[99], 99 * 99);
    EXPECT_EQ(test::entries_in(path).size(), 100U);
    EXPECT_EQ(pool.map(memory.cache("f", plain_square), inputs), squares);
    EXPECT_EQ(pool.map(memory.cache("lambda", [](int x) { return x + 1; }), {1, 2}), (std::vector<int>{2, 3}));
    EXPECT_EQ(pool.map(memory.cache("times", Times{5}), {1, 2}), (std::vector<int>{5, 10}));
    std::vector<int> lazily;
    for (const int y : pool.imap(memory.cache("f", plain_square), std::vector<int>{3, 4})) lazily.push_back(y);
    EXPECT_EQ(lazily, (std::vector<int>{9, 16}));
}

TEST_P(MemoryProcessesTest, HandlesTravel) {
    mh::Pool pool(2);
    const auto shelved = pool.apply(shelve, path, board.path());
    EXPECT_EQ(shelved.get().size(), 10'000U);
    EXPECT_EQ(pool.apply(last_of, shelved), 9'999.0);
    EXPECT_EQ(computed(), 1);
    const test::Log log;
    // Where nothing can be kept the handle holds what it stands for.
    const auto held = pool.apply(shelve, "/proc/multihull-cache", board.path());
    EXPECT_EQ(pool.apply(last_of, held), 9'999.0);
}

TEST_P(MemoryProcessesTest, OneOfManyComputes) {
    constexpr int kWorkers = 4;
    const mh::Memory memory(path);
    mh::Pool pool(kWorkers);
    for (int x = 1; x <= 25; ++x) {
        board[kWaiting] = 0;
        std::vector<mh::Future<int>> futures;
        for (int i = 0; i < kWorkers; ++i) futures.push_back(pool.apply_async(ask, memory, x, board.path()));
        ASSERT_TRUE(board.wait_until_at_least(kWaiting, kWorkers));
        board[kGo] = x;
        for (const auto& future : futures) EXPECT_EQ(future.get(), x * x);
        EXPECT_EQ(computed(), 1);
    }
    EXPECT_TRUE(test::leftovers_in(path).empty());
}

INSTANTIATE_TEST_SUITE_P(Each, MemoryProcessesTest, test::each_start_method(), test::start_method_name);

}    // namespace
