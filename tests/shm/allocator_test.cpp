// SharedHeap: the standard's containers in it, from several processes; blocks of their own for everybody; deaths in the middle.
#include <multihull/error.hpp>
#include <multihull/lock.hpp>
#include <multihull/pool.hpp>
#include <multihull/process.hpp>
#include <multihull/shm_allocator.hpp>

#include "support/board.hpp"
#include "support/start_methods.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <csignal>
#include <list>
#include <mutex>
#include <random>
#include <set>
#include <string>
#include <sys/wait.h>
#include <thread>
#include <unistd.h>
#include <vector>

namespace {

using multihull::SharedHeap;
using multihull::SharedMemory;
using multihull::shm_allocator;
using multihull::shm_string;
namespace mh = multihull;

using Words = mh::shm_map<shm_string, mh::shm_vector<int>>;

TEST(SharedHeapTest, containers_live_in_it_and_are_found_by_name) {
    SharedHeap heap(1 << 20);
    auto& words = heap.make<Words>("words");
    const shm_string a_long_key("a key that is too long to lie in the string itself", heap.allocator<char>());
    words[a_long_key].push_back(1);
    words[a_long_key].push_back(2);
    EXPECT_EQ(&heap.get<Words>("words"), &words);
    EXPECT_EQ(heap.get<Words>("words").find(std::string_view(a_long_key))->second.at(1), 2);
    EXPECT_EQ(&heap.find_or_make<Words>("words"), &words);
    EXPECT_EQ(heap.find<int>("nothing"), nullptr);
    EXPECT_EQ(heap.make<int>("number", 7), 7);
    heap.find_or_make<int>("number") = 8;
    EXPECT_EQ(heap.get<int>("number"), 8);
    EXPECT_GT(heap.used(), 0U);
    EXPECT_LT(heap.used(), heap.size());
    // Everything of the map lies in the heap, the text of its key and the numbers too.
    const auto* const begin = reinterpret_cast<const std::byte*>(&words) - heap.size();
    for (const auto* const place : {reinterpret_cast<const std::byte*>(words.begin()->first.data()),
                                    reinterpret_cast<const std::byte*>(words.begin()->second.data())}) {
        EXPECT_TRUE(place > begin && place < begin + 2 * heap.size());
    }
}

TEST(SharedHeapTest, what_is_asked_wrongly_is_refused_with_a_sentence) {
    SharedHeap heap(1 << 16);
    heap.make<int>("number", 1);
    for (const std::string& text :
         {std::string(test::thrown_by<mh::Error>([&] { heap.make<int>("number", 1); }).what()),
          std::string(test::thrown_by<mh::Error>([&] { heap.get<int>("nothing"); }).what()),
          std::string(test::thrown_by<mh::Error>([&] { heap.get<long>("number"); }).what()),
          std::string(test::thrown_by<mh::Error>([&] { heap.find_or_make<double>("number"); }).what()),
          std::string(test::thrown_by<mh::Error>([&] { SharedHeap(1000); }).what()),
          std::string(test::thrown_by<mh::Error>([&] { SharedHeap::attach(SharedMemory(1 << 16)); }).what()),
          std::string(test::thrown_by<mh::Error>([&] { SharedHeap().size(); }).what())}) {
        EXPECT_GT(text.size(), 40U) << text;
    }
}

TEST(SharedHeapTest, memory_that_was_given_back_is_used_again) {
    SharedHeap heap(1 << 20);
    auto memory = heap.allocator<std::byte>();
    const std::size_t before = heap.used();
    std::mt19937 random(3);
    for (int round = 0; round < 20'000; ++round) {
        const std::size_t size = 1 + random() % 100'000;
        std::byte* const block = memory.allocate(size);
        block[0] = block[size - 1] = std::byte{1};
        memory.deallocate(block, size);
    }
    EXPECT_EQ(heap.used(), before);
    // All of it in small pieces, then in big ones, which the small ones are not joined to; then in small ones again.
    for (int round = 0; round < 3; ++round) {
        std::vector<std::byte*> blocks;
        try {
            for (;;) blocks.push_back(memory.allocate(64));
        } catch (const std::bad_alloc&) {}
        EXPECT_GT(blocks.size(), 5'000U);
        EXPECT_EQ(std::set<std::byte*>(blocks.begin(), blocks.end()).size(), blocks.size());
        for (std::byte* const block : blocks) memory.deallocate(block, 64);
    }
    EXPECT_THROW(static_cast<void>(memory.allocate(2 << 20)), std::bad_alloc);
    EXPECT_THROW(static_cast<void>(memory.allocate(~std::size_t{0} / 2)), std::bad_alloc);
}

TEST(SharedHeapTest, a_container_that_finds_no_room_is_as_it_was) {
    SharedHeap heap(1 << 16);
    auto& numbers = heap.make<mh::shm_vector<int>>("numbers");
    EXPECT_THROW(for (int i = 0;; ++i) numbers.push_back(i), std::bad_alloc);
    for (std::size_t i = 0; i < numbers.size(); ++i) ASSERT_EQ(numbers[i], static_cast<int>(i));
    numbers.clear();
    numbers.shrink_to_fit();
    EXPECT_GT(numbers.emplace_back(1), 0);
}

TEST(SharedHeapTest, a_heap_is_mapped_once_and_goes_with_its_last_handle) {
    const SharedMemory memory(1 << 16);
    SharedHeap first = SharedHeap::make_in(memory);
    int& number = first.make<int>("number", 1);
    for (int round = 0; round < 3; ++round) {
        const SharedHeap second = SharedHeap::attach(memory);
        EXPECT_EQ(&second.get<int>("number"), &number);
    }
    first = {};
    const SharedHeap third = SharedHeap::attach(memory);
    EXPECT_EQ(&third.get<int>("number"), &number);
    // Handles that come and go in many threads.
    std::vector<std::jthread> threads;
    for (int i = 0; i < 4; ++i) {
        threads.emplace_back([] {
            const SharedMemory own(1 << 16);
            SharedHeap heap = SharedHeap::make_in(own);
            std::vector<std::jthread> inner;
            for (int j = 0; j < 2; ++j) {
                inner.emplace_back([&own] {
                    for (int round = 0; round < 200; ++round) SharedHeap::attach(own);
                });
            }
            heap = {};
        });
    }
}

class SharedHeapTravels : public test::StartMethodTest {};
INSTANTIATE_TEST_SUITE_P(EachStartMethod, SharedHeapTravels, test::each_start_method(), test::start_method_name);

void count_words(SharedHeap heap, mh::Lock lock, int first) {
    auto& words = heap.get<Words>("words");
    for (int i = first; i < first + 300; ++i) {
        const std::string text = "number " + std::to_string(i % 100) + " of many numbers, none short";
        const std::lock_guard guard(lock);
        words[shm_string(text, heap.allocator<char>())].push_back(i);
    }
}

TEST_P(SharedHeapTravels, processes_fill_one_map) {
    SharedHeap heap(8 << 20);
    mh::Lock lock;
    auto& words = heap.make<Words>("words");
    {
        std::vector<mh::Process> processes;
        for (int i = 0; i < 3; ++i) processes.emplace_back(count_words, heap, lock, i * 300).start();
    }
    mh::Pool pool(1);
    pool.apply(count_words, heap, lock, 900);
    ASSERT_EQ(words.size(), 100U);
    std::set<int> seen;
    for (const auto& [word, numbers] : words) {
        EXPECT_EQ(numbers.size(), 12U);
        seen.insert(numbers.begin(), numbers.end());
    }
    EXPECT_EQ(seen.size(), 1200U);
}

// Each takes and gives back blocks without end, and keeps what it writes into them for itself.
[[noreturn]] void churn(const SharedHeap& heap, unsigned seed, test::Board& board) {
    auto memory = heap.allocator<unsigned>();
    std::mt19937 random(seed);
    std::vector<std::pair<unsigned*, std::size_t>> held;
    for (;;) {
        if (held.size() < 30 && random() % 2 == 0) {
            const std::size_t count = 1 + random() % 200;
            try {
                unsigned* const block = memory.allocate(count);
                std::fill_n(block, count, seed);
                held.emplace_back(block, count);
            } catch (const std::bad_alloc&) {
                ++board[2];
            }
        } else if (!held.empty()) {
            std::swap(held[random() % held.size()], held.back());
            const auto [block, count] = held.back();
            held.pop_back();
            if (std::count(block, block + count, seed) != static_cast<std::ptrdiff_t>(count)) ++board[1];
            memory.deallocate(block, count);
        }
        ++board[0];
    }
}

TEST(SharedHeapTest, the_heap_survives_deaths_at_any_instruction) {
    const SharedHeap heap(64 << 20);
    test::Board board;
    std::mt19937 random(11);
    std::vector<pid_t> children;
    unsigned seed = 0;
    const auto start = [&] {
        const pid_t child = ::fork();
        if (child == 0) churn(heap, seed, board);
        ++seed;
        return child;
    };
    for (int i = 0; i < 3; ++i) children.push_back(start());
    for (int round = 0; round < 300; ++round) {
        const std::int64_t since = board[0].load();
        ASSERT_TRUE(board.wait_until_at_least(0, since + static_cast<int>(random() % 3000)));
        pid_t& victim = children[random() % children.size()];
        ::kill(victim, SIGKILL);
        ::waitpid(victim, nullptr, 0);
        victim = start();
    }
    for (const pid_t child : children) {
        ::kill(child, SIGKILL);
        ::waitpid(child, nullptr, 0);
    }
    EXPECT_EQ(board[1].load(), 0) << "a block was written to by two";
    EXPECT_EQ(board[2].load(), 0) << "the dead took more than what they held";
    // What is left still gives out each block once.
    auto memory = heap.allocator<std::byte>();
    std::set<std::byte*> blocks;
    try {
        for (;;) ASSERT_TRUE(blocks.insert(memory.allocate(256)).second);
    } catch (const std::bad_alloc&) {}
    EXPECT_GT(blocks.size(), 100'000U);
}

}    // namespace
