// ConstArray: the same elements in every process, one copy of them, and nobody who can change them.
#include "shm/objects.hpp"
#include "support/board.hpp"
#include "support/sanitizer.hpp"
#include "support/start_methods.hpp"

#include <multihull/const_array.hpp>
#include <multihull/pool.hpp>

#include <gtest/gtest.h>

#include <csignal>
#include <numeric>
#include <span>
#include <vector>

namespace {

using multihull::ConstArray;
using multihull::Pool;

constexpr std::size_t kMany = 1'000'000;    // elements: far more than fits beside the object's head

std::vector<double> numbers(std::size_t count) {
    std::vector<double> values(count);
    std::iota(values.begin(), values.end(), 0.5);
    return values;
}

double sum_between(const ConstArray<double>& array, std::size_t begin, std::size_t end) {
    const std::span<const double> all = array;
    return std::accumulate(all.begin() + static_cast<std::ptrdiff_t>(begin),
                           all.begin() + static_cast<std::ptrdiff_t>(end), 0.0);
}

std::uintptr_t address_of(const ConstArray<double>& array) { return reinterpret_cast<std::uintptr_t>(array.data()); }

void scribble(const ConstArray<double>& array) { const_cast<double&>(array[7]) = -1; }

ConstArray<double> give_back(ConstArray<double> array) { return array; }

class ConstArrayTest : public test::StartMethodTest {
protected:
    void SetUp() override {
        test::StartMethodTest::SetUp();
        before_ = multihull::shm::count_objects();
    }
    void TearDown() override {
        EXPECT_TRUE(test::eventually([&] { return multihull::shm::count_objects() == before_; }));
        test::StartMethodTest::TearDown();
    }
    std::size_t before_ = 0;
};
INSTANTIATE_TEST_SUITE_P(EachStartMethod, ConstArrayTest, test::each_start_method(), test::start_method_name);

TEST_P(ConstArrayTest, is_read_by_many_tasks) {
    Pool pool(2);
    for (const std::size_t count : {std::size_t{3}, kMany}) {
        const auto values = numbers(count);
        const ConstArray array(values);
        std::vector<multihull::Future<double>> sums;
        for (std::size_t i = 0; i < 50; ++i) {
            sums.push_back(pool.apply_async(sum_between, array, i * count / 50, (i + 1) * count / 50));
        }
        double sum = 0;
        for (auto& part : sums) sum += part.get();
        EXPECT_EQ(sum, std::accumulate(values.begin(), values.end(), 0.0));
    }
}

TEST_P(ConstArrayTest, is_not_copied_for_each_task) {
    Pool pool(1);
    const ConstArray array(numbers(kMany));
    // Held by the worker's function object from one element to the next: one view for all.
    const auto addresses = pool.map(address_of, std::vector<ConstArray<double>>(20, array), {.chunksize = 1});
    EXPECT_EQ(multihull::shm::count_objects(), before_ + 1);
    for (const auto address : addresses) EXPECT_NE(address, address_of(array));
}

TEST_P(ConstArrayTest, cant_be_changed_by_a_worker) {
    Pool pool(2);
    const ConstArray array(numbers(kMany));
    if (test::kAsan || test::kTsan) {
        EXPECT_THROW(pool.apply(scribble, array), multihull::WorkerCrashed);
    } else {
        try {
            pool.apply(scribble, array);
            ADD_FAILURE() << "a worker has written to it";
        } catch (const multihull::WorkerCrashed& error) {
            EXPECT_EQ(error.signal(), SIGSEGV);
        }
    }
    EXPECT_EQ(array[7], 7.5);
    EXPECT_EQ(pool.apply(sum_between, array, std::size_t{7}, std::size_t{8}), 7.5);
}

TEST_P(ConstArrayTest, comes_back_as_itself) {
    Pool pool(1);
    for (const std::size_t count : {std::size_t{3}, kMany}) {
        const ConstArray array(numbers(count));
        const ConstArray<double> back = pool.apply(give_back, array);
        ASSERT_EQ(back.size(), count);
        EXPECT_EQ(back.at(count - 1), array.at(count - 1));
        EXPECT_THROW(back.at(count), std::out_of_range);
    }
}

using Twice = std::pair<ConstArray<double>, ConstArray<double>>;
Twice give_back_twice(const ConstArray<double>& array) { return {array, array}; }

// Each naming in a result waits for its reader, who gives it up once, however often it is read.
TEST_P(ConstArrayTest, may_be_named_by_many_results_and_several_times_by_one) {
    Pool pool(2);
    const ConstArray array(numbers(3));
    for (const auto& back : pool.map(give_back, std::vector<ConstArray<double>>(20, array))) EXPECT_EQ(back.size(), 3U);
    const auto future = pool.apply_async(give_back_twice, array);
    for (int i = 0; i < 3; ++i) EXPECT_EQ(future.get().second.size(), 3U);
    const auto results = pool.map_async(give_back_twice, std::vector<ConstArray<double>>(3, array));
    for (int i = 0; i < 3; ++i) EXPECT_EQ(results.get().back().first.size(), 3U);
}

}    // namespace
