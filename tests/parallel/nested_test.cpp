// Loops in loops share the processors, and so do the threads of libraries.
#include "parallel/kinds.hpp"

#include <multihull/futures.hpp>
#include <multihull/pool.hpp>

#include <algorithm>
#include <cstdlib>
#include <ranges>
#include <string>
#include <unistd.h>
#include <vector>

// What the library finds where OpenMP is there.
extern "C" {
thread_local int test_omp_threads = 0;
__attribute__((visibility("default"))) void omp_set_num_threads(int threads) { test_omp_threads = threads; }
}

namespace {

using multihull::delayed;
using multihull::Parallel;
using multihull::Pool;

std::string variable(const std::string& name) {
    const char* const text = std::getenv(name.c_str());
    return text == nullptr ? "-" : text;
}

std::size_t fair_share(std::size_t workers) { return std::max<std::size_t>(multihull::cpu_count() / workers, 1); }

class Nested : public test::StartMethodTest {
protected:
    void TearDown() override {
        multihull::end_reusable_workers();
        test::StartMethodTest::TearDown();
    }
};
INSTANTIATE_TEST_SUITE_P(EachStartMethod, Nested, test::each_start_method(), test::start_method_name);

TEST_P(Nested, a_pool_in_a_worker_has_its_share_of_the_processors) {
    Pool pool(2);
    EXPECT_EQ(pool.apply([] { return Pool().processes(); }), fair_share(2));
    EXPECT_EQ(pool.apply([] { return multihull::ThreadPoolExecutor().max_workers(); }), fair_share(2));
    EXPECT_EQ(Pool(1).apply([] { return Pool().processes(); }), multihull::cpu_count());
    EXPECT_EQ(Pool(1).apply([] { return Pool(3).processes(); }), 3U);
}

TEST_P(Nested, a_loop_in_a_worker_of_its_own_share_is_a_plain_one) {
    const auto outer = [](int) {
        const int here = ::getpid();
        for (const int pid :
             Parallel()(std::views::iota(0, 4) | std::views::transform(delayed([](int) { return ::getpid(); })))) {
            if (pid != here) return false;
        }
        return true;
    };
    const int many = static_cast<int>(multihull::cpu_count()) + 1;
    for (const bool plain : Parallel({.n_jobs = many})(std::views::iota(0, 6) | std::views::transform(delayed(outer))))
        EXPECT_TRUE(plain);
}

TEST_P(Nested, loops_in_loops_work) {
    const auto inner = [](int x) { return x * x; };
    const auto outer = [inner](int x) {
        int sum = 0;
        for (const int y : Parallel({.n_jobs = 2})(std::views::iota(0, x) | std::views::transform(delayed(inner))))
            sum += y;
        return sum;
    };
    EXPECT_EQ(Parallel({.n_jobs = 2})(std::views::iota(0, 6) | std::views::transform(delayed(outer))),
              (std::vector{0, 0, 1, 5, 14, 30}));
    EXPECT_EQ(Parallel({.n_jobs = 2, .prefer = multihull::Prefer::threads})(std::views::iota(0, 6) |
                                                                            std::views::transform(delayed(outer))),
              (std::vector{0, 0, 1, 5, 14, 30}));
}

TEST_P(Nested, libraries_with_threads_are_told_their_share) {
    const std::string share = std::to_string(fair_share(2));
    Pool pool(2);
    EXPECT_EQ(pool.apply(variable, "OMP_NUM_THREADS"), share);
    EXPECT_EQ(pool.apply(variable, "OPENBLAS_NUM_THREADS"), share);
    EXPECT_EQ(pool.apply(variable, "MKL_NUM_THREADS"), share);
    EXPECT_EQ(pool.apply([] { return test_omp_threads; }), static_cast<int>(fair_share(2)));
    EXPECT_EQ(variable("OMP_NUM_THREADS"), "-");
    int captured = 0;
    for (const auto& said :
         Parallel({.n_jobs = 2})(std::views::iota(0, 4) | std::views::transform(delayed([&captured](int) {
                                     ++captured;
                                     return variable("OMP_NUM_THREADS");
                                 }))))
        EXPECT_EQ(said, share);
}

TEST_P(Nested, a_pool_may_say_how_many_or_leave_them_alone) {
    Pool three({.processes = 1, .inner_max_num_threads = 3});
    EXPECT_EQ(three.apply(variable, "OMP_NUM_THREADS"), "3");
    EXPECT_EQ(three.apply([] { return test_omp_threads; }), 3);
    Pool alone({.processes = 1, .inner_max_num_threads = 0});
    EXPECT_EQ(alone.apply(variable, "OMP_NUM_THREADS"), "-");
    EXPECT_EQ(alone.apply([] { return test_omp_threads; }), 0);
}

TEST_P(Nested, pools_in_pools_divide_again) {
    Pool outer({.processes = 1, .inner_max_num_threads = 8});
    EXPECT_EQ(outer.apply([] {
        Pool inner({.processes = 1, .start_method = multihull::StartMethod::fork, .inner_max_num_threads = 5});
        return inner.apply(variable, "OMP_NUM_THREADS");
    }),
              "5");
}

TEST(InnerLimits, what_the_user_has_set_stays) {
    ::setenv("OMP_NUM_THREADS", "7", 1);
    {
        Pool pool({.processes = 2, .start_method = multihull::StartMethod::fork});
        EXPECT_EQ(pool.apply(variable, "OMP_NUM_THREADS"), "7");
        EXPECT_EQ(pool.apply([] { return test_omp_threads; }), 0);
        EXPECT_EQ(pool.apply(variable, "MKL_NUM_THREADS"), std::to_string(fair_share(2)));
    }
    ::unsetenv("OMP_NUM_THREADS");
}

}    // namespace
