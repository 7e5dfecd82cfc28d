// One suite over every way in which a Parallel can run its calls.
#pragma once

#include "support/board.hpp"
#include "support/start_methods.hpp"

#include <multihull/parallel.hpp>

#include <gtest/gtest.h>

#include <string>
#include <vector>

namespace test {

struct ParallelKind {
    const char* name;
    multihull::ParallelOptions options;
    multihull::StartMethod method = multihull::StartMethod::fork;

    bool processes() const { return options.prefer == multihull::Prefer::processes && options.n_jobs != 1; }
    bool serial() const { return options.n_jobs == 1 || options.prefer == multihull::Prefer::serial; }
};

class ParallelTest : public ::testing::TestWithParam<ParallelKind> {
protected:
    void SetUp() override { multihull::set_start_method(GetParam().method); }
    void TearDown() override {
        multihull::set_start_method(before_);
        multihull::end_reusable_workers();
    }

    /// A Parallel of the kind, with its settings changed by `change`.
    template <class Change>
    static multihull::Parallel parallel(Change change) {
        multihull::ParallelOptions options = GetParam().options;
        change(options);
        return multihull::Parallel(options);
    }
    static multihull::Parallel parallel() { return multihull::Parallel(GetParam().options); }

    Board board_;

private:
    multihull::StartMethod before_ = multihull::default_start_method();
};

inline auto parallel_process_kinds() {
    using multihull::StartMethod;
    return std::vector<ParallelKind>{
        {"fork", {.n_jobs = 3}, StartMethod::fork},
        {"forkserver", {.n_jobs = 3}, StartMethod::forkserver},
        {"spawn", {.n_jobs = 3}, StartMethod::spawn},
        {"snapshot", {.n_jobs = 3, .snapshot = true}, StartMethod::fork},
        {"batches_of_seven", {.n_jobs = 2, .batch_size = 7}, StartMethod::fork},
        {"dispatched_ahead", {.n_jobs = 3, .pre_dispatch = 5}, StartMethod::fork},
    };
}
inline auto parallel_kinds() {
    auto kinds = parallel_process_kinds();
    kinds.push_back({"threads", {.n_jobs = 3, .prefer = multihull::Prefer::threads}});
    kinds.push_back({"threads_ahead", {.n_jobs = 3, .prefer = multihull::Prefer::threads, .pre_dispatch = 4}});
    kinds.push_back({"serial", {.n_jobs = 3, .prefer = multihull::Prefer::serial}});
    kinds.push_back({"one_job", {.n_jobs = 1}});
    return kinds;
}
inline std::string parallel_kind_name(const ::testing::TestParamInfo<ParallelKind>& info) { return info.param.name; }

}    // namespace test
