// The heap of shared memory: blocks that don't overlap, memory that comes back, nothing shared with a forked child.
#include "shm/heap.hpp"
#include "shm/growth.hpp"
#include "shm/region.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <map>
#include <random>
#include <string>
#include <sys/wait.h>
#include <thread>
#include <unistd.h>
#include <vector>

namespace {

using multihull::shm::Heap;
using multihull::shm::Offset;
using multihull::shm::Region;

std::byte* at(Offset block) { return Region::instance().at(block); }

TEST(HeapTest, gives_blocks_of_every_size_that_dont_overlap) {
    Heap& heap = Heap::instance();
    const std::size_t used = heap.used();
    std::map<Offset, std::size_t> blocks;
    for (std::size_t size = 1; size < (std::size_t{64} << 20); size = size * 3 / 2 + 1) {
        for (int i = 0; i < 3; ++i) {
            const Offset block = heap.allocate(size);
            ASSERT_NE(block, 0u);
            EXPECT_EQ(block % 64, 0u);
            EXPECT_TRUE(Region::instance().in_extents(block, size));
            blocks.emplace(block, size);
            // The first and the last byte are this block's own.
            at(block)[0] = static_cast<std::byte>(size);
            at(block)[size - 1] = static_cast<std::byte>(size);
        }
    }
    Offset end = 0;
    for (const auto& [block, size] : blocks) {
        EXPECT_GE(block, end);
        end = block + size;
        EXPECT_EQ(at(block)[size - 1], static_cast<std::byte>(size));
    }
    for (const auto& [block, size] : blocks) heap.free(block, size);
    EXPECT_EQ(heap.used(), used);
}

TEST(HeapTest, survives_a_random_life) {
    Heap& heap = Heap::instance();
    const std::size_t used = heap.used();
    std::mt19937 random(1);
    struct Block {
        Offset offset;
        std::size_t size;
        std::byte mark;
    };
    std::vector<Block> blocks;
    for (int step = 0; step < 20'000; ++step) {
        if (blocks.size() < 200 && random() % 2 == 0) {
            const std::size_t size = 1 + random() % (std::size_t{1} << (random() % 22));
            const Offset offset = heap.allocate(size);
            ASSERT_NE(offset, 0u);
            const auto mark = static_cast<std::byte>(random());
            at(offset)[0] = mark;
            at(offset)[size - 1] = mark;
            blocks.push_back({offset, size, mark});
        } else if (!blocks.empty()) {
            const std::size_t which = random() % blocks.size();
            const Block block = blocks[which];
            ASSERT_EQ(at(block.offset)[0], block.mark);
            ASSERT_EQ(at(block.offset)[block.size - 1], block.mark);
            heap.free(block.offset, block.size);
            blocks[which] = blocks.back();
            blocks.pop_back();
        }
    }
    for (const Block& block : blocks) heap.free(block.offset, block.size);
    EXPECT_EQ(heap.used(), used);
}

TEST(HeapTest, keeps_a_little_for_the_next_user_and_gives_the_rest_back) {
    Heap& heap = Heap::instance();
    constexpr std::size_t kBig = std::size_t{300} << 20;
    std::vector<Offset> blocks;
    for (int i = 0; i < 4; ++i) blocks.push_back(heap.allocate(kBig));
    EXPECT_GE(heap.held(), 4 * kBig);
    for (const Offset block : blocks) heap.free(block, kBig);
    EXPECT_LE(heap.held(), Heap::kKeep + 2 * kBig);
    // Bigger than what is kept idle: it comes and goes as often as one likes.
    for (int i = 0; i < 20; ++i) {
        const Offset block = heap.allocate(kBig + static_cast<std::size_t>(i) * 4096);
        ASSERT_NE(block, 0u);
        at(block)[kBig - 1] = std::byte{1};
        heap.free(block, kBig + static_cast<std::size_t>(i) * 4096);
    }
    EXPECT_LE(heap.held(), Heap::kKeep + 2 * kBig);
}

TEST(HeapTest, says_no_to_what_cannot_be) {
    Heap& heap = Heap::instance();
    EXPECT_EQ(heap.allocate(std::size_t{1} << 50), 0u);
    const Offset block = heap.allocate(100);
    EXPECT_NE(block, 0u);
    heap.free(block, 100);
    heap.free(0, 100);
}

TEST(HeapTest, serves_many_threads) {
    std::vector<std::thread> threads;
    std::atomic<int> wrong{0};
    for (int t = 0; t < 6; ++t) {
        threads.emplace_back([&wrong, t] {
            std::mt19937 random(static_cast<unsigned>(t));
            for (int i = 0; i < 3000; ++i) {
                const std::size_t size = 8 + random() % 5000;
                const Offset block = Heap::instance().allocate(size);
                std::memset(at(block), t, size);
                if (at(block)[size / 2] != static_cast<std::byte>(t)) ++wrong;
                Heap::instance().free(block, size);
            }
        });
    }
    for (auto& thread : threads) thread.join();
    EXPECT_EQ(wrong, 0);
}

TEST(HeapTest, of_a_forked_child_is_its_own) {
    const Offset block = Heap::instance().allocate(1000);
    std::memset(at(block), 5, 1000);
    const pid_t child = ::fork();
    if (child == 0) {
        if (Heap::instance().used() != 0) ::_exit(1);
        for (int i = 0; i < 1000; ++i) {
            const Offset own = Heap::instance().allocate(1000);
            if (own == 0 || own == block) ::_exit(2);
            std::memset(at(own), 9, 1000);
        }
        ::_exit(4);
    }
    int status = 0;
    ::waitpid(child, &status, 0);
    EXPECT_EQ(WEXITSTATUS(status), 4);
    EXPECT_EQ(at(block)[999], std::byte{5});
    Heap::instance().free(block, 1000);
}

TEST(HeapGrowthTest, carries_what_was_written_into_bigger_room) {
    const std::size_t used = Heap::instance().used();
    {
        multihull::shm::HeapGrowth growth;
        std::vector<std::byte> first(10, std::byte{3});
        const auto second = growth.grow(first, 100);
        EXPECT_EQ(second.size(), 100u);
        EXPECT_EQ(second[9], std::byte{3});
        second[99] = std::byte{4};
        const auto third = growth.grow(second, 1'000'000);
        EXPECT_EQ(third[9], std::byte{3});
        EXPECT_EQ(third[99], std::byte{4});
        EXPECT_THROW(growth.grow(third, std::size_t{1} << 50), std::bad_alloc);
        EXPECT_EQ(third[99], std::byte{4});
    }
    EXPECT_EQ(Heap::instance().used(), used);
    multihull::shm::HeapGrowth growth;
    growth.grow({}, 5000);
    const auto [block, size] = growth.take();
    EXPECT_EQ(size, 5000u);
    Heap::instance().free(block, size);
    EXPECT_EQ(Heap::instance().used(), used);
}

}    // namespace
