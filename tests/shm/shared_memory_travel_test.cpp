// SharedMemory and ShareableList on their way to other processes: arguments, results, messages, under every start method.
#include <multihull/pipe.hpp>
#include <multihull/pool.hpp>
#include <multihull/process.hpp>
#include <multihull/queue.hpp>
#include <multihull/shareable_list.hpp>
#include <multihull/shared_memory.hpp>

#include "support/start_methods.hpp"

#include <gtest/gtest.h>

#include <filesystem>
#include <numeric>
#include <string>

namespace {

using multihull::ShareableList;
using multihull::SharedMemory;
namespace mh = multihull;

class SharedMemoryTravels : public test::StartMethodTest {};
INSTANTIATE_TEST_SUITE_P(EachStartMethod, SharedMemoryTravels, test::each_start_method(), test::start_method_name);

void count_up(SharedMemory memory) {
    const auto numbers = memory.as<int>();
    std::iota(numbers.begin(), numbers.end(), 0);
}

SharedMemory counted(std::size_t size) {
    SharedMemory memory(size * sizeof(int));
    count_up(memory);
    return memory;
}

long sum_of(SharedMemory memory) {
    const auto numbers = memory.as<int>();
    return std::accumulate(numbers.begin(), numbers.end(), 0L);
}

void fill_what_comes(mh::Queue<SharedMemory> queue) {
    for (int i = 0; i < 3; ++i) count_up(queue.get());
}

void send_some(mh::Connection connection) { connection.send(counted(1'000)); }

TEST_P(SharedMemoryTravels, into_a_process_and_both_see_it) {
    const SharedMemory anonymous(4'000);
    const SharedMemory named = SharedMemory::create_named(4'000);
    for (const SharedMemory& memory : {anonymous, named}) {
        mh::Process process(count_up, memory);
        process.start().join();
        ASSERT_EQ(process.exitcode(), 0);
        EXPECT_EQ(memory.as<int>()[999], 999);
    }
    EXPECT_TRUE(std::filesystem::exists("/dev/shm/" + named.name()));
}

TEST_P(SharedMemoryTravels, into_tasks_and_back) {
    mh::Pool pool(2);
    const SharedMemory anonymous(4'000);
    pool.apply(count_up, anonymous);
    EXPECT_EQ(pool.apply(sum_of, anonymous), 499'500);
    const SharedMemory named = SharedMemory::create_named(4'000);
    pool.apply(count_up, named);
    EXPECT_EQ(pool.apply(sum_of, named), 499'500);
    EXPECT_EQ(sum_of(pool.apply(counted, 1'000)), 499'500);
}

TEST_P(SharedMemoryTravels, in_messages) {
    mh::Queue<SharedMemory> queue;
    mh::Process filler(fill_what_comes, queue);
    filler.start();
    std::vector<SharedMemory> sent;
    for (int i = 0; i < 3; ++i) {
        sent.push_back(i == 1 ? SharedMemory::create_named(4'000) : SharedMemory(4'000));
        queue.put(sent.back());
    }
    filler.join();
    ASSERT_EQ(filler.exitcode(), 0);
    for (const SharedMemory& memory : sent) EXPECT_EQ(sum_of(memory), 499'500);

    auto [ours, theirs] = mh::Pipe();
    mh::Process sender(send_some, std::move(theirs));
    sender.start();
    EXPECT_EQ(sum_of(ours.recv<SharedMemory>()), 499'500);
}

void shout(ShareableList list) { list.set(0, list.get<std::string>(0) + "!"); }

TEST_P(SharedMemoryTravels, lists_travel_as_their_memory) {
    const ShareableList anonymous({"hello ", 1});
    const ShareableList named = ShareableList::create_named({"hello ", 1});
    mh::Pool pool(1);
    for (const ShareableList& list : {anonymous, named}) {
        pool.apply(shout, list);
        EXPECT_EQ(list.get<std::string>(0), "hello !");
    }
}

}    // namespace
