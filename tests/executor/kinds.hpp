// One suite over every executor, processes in each way in which they can be started.
#pragma once

#include "support/board.hpp"

#include <multihull/futures.hpp>
#ifdef MULTIHULL_TEST_MPI
#include <multihull/mpi.hpp>
#endif

#include <gtest/gtest.h>

#include <string>
#include <type_traits>

namespace test {

template <multihull::StartMethod kMethod>
struct Processes {
    using Executor = multihull::ProcessPoolExecutor;
    static constexpr multihull::StartMethod kStartMethod = kMethod;
};
struct Threads {
    using Executor = multihull::ThreadPoolExecutor;
    static constexpr multihull::StartMethod kStartMethod = multihull::StartMethod::fork;
};
struct Serial {
    using Executor = multihull::SerialExecutor;
    static constexpr multihull::StartMethod kStartMethod = multihull::StartMethod::fork;
};
using Fork = Processes<multihull::StartMethod::fork>;
using Forkserver = Processes<multihull::StartMethod::forkserver>;
using Spawn = Processes<multihull::StartMethod::spawn>;

#ifdef MULTIHULL_TEST_MPI
struct Mpi {
    using Executor = multihull::mpi::PoolExecutor;
    static constexpr multihull::StartMethod kStartMethod = multihull::StartMethod::forkserver;
};
#endif

struct KindName {
    template <class Kind>
    static std::string GetName(int) {
        if (std::is_same_v<Kind, Threads>) return "threads";
        if (std::is_same_v<Kind, Serial>) return "serial";
#ifdef MULTIHULL_TEST_MPI
        if (std::is_same_v<Kind, Mpi>) return "mpi";
#endif
        if (Kind::kStartMethod == multihull::StartMethod::fork) return "fork";
        return Kind::kStartMethod == multihull::StartMethod::spawn ? "spawn" : "forkserver";
    }
};

#ifdef MULTIHULL_TEST_MPI
// The same suites once more, under mpiexec: see tests/mpi.
using ParallelKinds = ::testing::Types<Mpi>;
using ProcessKinds = ::testing::Types<Mpi>;
using AllKinds = ::testing::Types<Mpi>;
#else
/// Of executors whose tasks run beside the caller.
using ParallelKinds = ::testing::Types<Fork, Forkserver, Spawn, Threads>;
using ProcessKinds = ::testing::Types<Fork, Forkserver, Spawn>;
using AllKinds = ::testing::Types<Fork, Forkserver, Spawn, Threads, Serial>;
#endif

template <class Kind>
class ExecutorTest : public ::testing::Test {
protected:
    using Executor = typename Kind::Executor;
    static constexpr bool kThreads = std::is_same_v<Executor, multihull::ThreadPoolExecutor>;
    static constexpr bool kProcesses = !kThreads && !std::is_same_v<Executor, multihull::SerialExecutor>;

    void SetUp() override { multihull::set_start_method(Kind::kStartMethod); }
    void TearDown() override { multihull::set_start_method(before_); }

    Board board_;

private:
    multihull::StartMethod before_ = multihull::default_start_method();
};

/// As hold(), and fails.
inline int hold_and_throw(const std::string& path) {
    hold(path, 0);
    throw std::out_of_range("beyond");
}

inline int square(int x) { return x * x; }
inline int divide(int a, int b) {
    if (b == 0) throw std::domain_error("divided by zero");
    return a / b;
}

}    // namespace test
