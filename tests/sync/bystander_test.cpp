// A program that uses no shared objects itself recovers those of its dead children.
#include <multihull/lock.hpp>
#include <multihull/pool.hpp>

#include "shm/objects.hpp"
#include "support/board.hpp"
#include "support/start_methods.hpp"

#include <gtest/gtest.h>

#include <csignal>
#include <unistd.h>

namespace {

class BystanderTest : public test::StartMethodTest {};
INSTANTIATE_TEST_SUITE_P(EachStartMethod, BystanderTest, test::each_start_method(), test::start_method_name);

void die_with_a_lock() {
    multihull::Lock lock;
    lock.lock();
    ::kill(::getpid(), SIGKILL);
}
std::size_t count() { return multihull::shm::count_objects(); }

TEST_P(BystanderTest, whoever_dies_leaves_no_object) {
    multihull::Pool pool({.processes = 1});
    for (int i = 0; i < 3; ++i) EXPECT_THROW(pool.apply(die_with_a_lock), multihull::WorkerCrashed);
    EXPECT_TRUE(test::eventually([&] { return pool.apply(count) == 0; }));
    pool.close();
    pool.join();
}

}    // namespace
