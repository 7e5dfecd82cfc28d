// The limit of inner threads with a true OpenMP, whose calls nested_test.cpp only stands in for.
#include "support/start_methods.hpp"

#include <multihull/pool.hpp>

#include <gtest/gtest.h>

#include <algorithm>
#include <omp.h>

namespace {

int threads_of_a_region() {
    int threads = 0;
#pragma omp parallel
#pragma omp single
    threads = omp_get_num_threads();
    return threads;
}

class OpenMp : public test::StartMethodTest {};
INSTANTIATE_TEST_SUITE_P(By, OpenMp, test::each_start_method(), test::start_method_name);

TEST_P(OpenMp, workers_share_the_processors) {
    const std::size_t workers = 2;
    multihull::Pool pool(workers);
    const auto share = static_cast<int>(std::max<std::size_t>(1, multihull::cpu_count() / workers));
    EXPECT_EQ(pool.apply(threads_of_a_region), share);
}

TEST_P(OpenMp, workers_have_as_many_threads_as_was_asked_for) {
    multihull::Pool pool({.processes = 1, .inner_max_num_threads = 3});
    EXPECT_EQ(pool.apply(threads_of_a_region), 3);
}

}    // namespace
