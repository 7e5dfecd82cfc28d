// The shared region: homes and extents have one owner each, and come back when their owner is gone.
#include "shm/region.hpp"
#include "support/in_child.hpp"

#include <multihull/error.hpp>

#include <gtest/gtest.h>

#include <set>
#include <string>
#include <sys/wait.h>
#include <unistd.h>
#include <vector>

namespace {

namespace shm = multihull::shm;
using shm::Offset;
using shm::Region;
using test::in_child;

TEST(RegionTest, offsets_mean_the_same_in_a_forked_child) {
    Region& region = Region::instance();
    const Offset place = region.claim_extents(1);
    ASSERT_NE(place, 0u);
    region.at(place)[3] = std::byte{1};
    EXPECT_EQ(region.offset_of(region.at(place)), place);
    EXPECT_EQ(in_child([&] {
                  region.at(place)[4] = std::byte{2};
                  return static_cast<int>(region.at(place)[3]);
              }),
              1);
    EXPECT_EQ(region.at(place)[4], std::byte{2});
    region.release_extents(place, 1);
}

TEST(RegionTest, knows_what_lies_in_its_extents) {
    const Region& region = Region::instance();
    const Offset place = Region::instance().claim_extents(100);
    EXPECT_TRUE(region.in_extents(place, 100));
    EXPECT_TRUE(region.in_extents(place, 0));
    EXPECT_FALSE(region.in_extents(0, 1));
    EXPECT_FALSE(region.in_extents(64, 1));
    EXPECT_FALSE(region.in_extents(place, ~std::uint64_t{0}));
    EXPECT_FALSE(region.in_extents(~std::uint64_t{0} - 5, 100));
    EXPECT_FALSE(region.in_extents(~std::uint64_t{0}, 1));
    EXPECT_FALSE(region.in_extents(std::uint64_t{1} << 45, 1));
    Region::instance().release_extents(place, 100);
}

TEST(RegionTest, extents_are_claimed_once_and_read_as_zeros) {
    Region& region = Region::instance();
    std::vector<Offset> claimed;
    std::set<Offset> places;
    for (int i = 0; i < 20; ++i) {
        claimed.push_back(region.claim_extents(shm::kExtentSize * static_cast<std::size_t>(1 + i % 3)));
        ASSERT_NE(claimed.back(), 0u);
        for (int part = 0; part <= i % 3; ++part) {
            EXPECT_TRUE(places.insert(claimed.back() + static_cast<std::size_t>(part) * shm::kExtentSize).second);
        }
        region.at(claimed.back())[0] = std::byte{7};
    }
    for (int i = 0; i < 20; ++i) {
        region.release_extents(claimed[static_cast<std::size_t>(i)],
                               shm::kExtentSize * static_cast<std::size_t>(1 + i % 3));
    }
    const Offset again = region.claim_extents(shm::kExtentSize * 3);
    for (std::size_t i = 0; i < 3 * shm::kExtentSize; i += 4096) ASSERT_EQ(region.at(again)[i], std::byte{0});
    region.release_extents(again, shm::kExtentSize * 3);
}

TEST(RegionTest, more_than_there_is_cannot_be_claimed) {
    EXPECT_EQ(Region::instance().claim_extents(std::size_t{1} << 45), 0u);
    EXPECT_EQ(Region::instance().claim_extents(~std::size_t{0} - (std::size_t{64} << 20)), 0u);
}

TEST(RegionTest, homes_are_claimed_once_read_as_zeros_and_run_out_with_a_sentence) {
    Region& region = Region::instance();
    std::vector<Offset> homes;
    try {
        for (std::uint32_t i = 0; i <= shm::kHomes; ++i) {
            const Offset home = region.claim_home();
            ASSERT_EQ(region.at(home)[0], std::byte{0});
            region.at(home)[0] = std::byte{1};
            homes.push_back(home);
        }
        ADD_FAILURE() << "there is no end of homes";
    } catch (const multihull::StartError& error) {
        EXPECT_GT(std::string(error.what()).size(), 20u);
    }
    EXPECT_EQ(std::set<Offset>(homes.begin(), homes.end()).size(), homes.size());
    for (const Offset home : homes) region.release_home(home);
    const Offset again = region.claim_home();
    EXPECT_EQ(region.at(again)[0], std::byte{0});
    region.release_home(again);
}

TEST(RegionTest, what_a_dead_process_owned_comes_back) {
    Region& region = Region::instance();
    std::set<Offset> left;
    // Each child takes a home and leaves without giving it back; there are not enough for all of them to keep one.
    for (std::uint32_t i = 0; i < 2 * shm::kHomes; ++i) {
        ASSERT_EQ(in_child([&] {
                      try {
                          region.at(region.claim_home())[0] = std::byte{1};
                          region.at(region.claim_extents(1))[0] = std::byte{1};
                          return 3;
                      } catch (const multihull::Error&) {
                          return 4;
                      }
                  }),
                  3)
            << "child " << i;
    }
    region.sweep_dead();
    const Offset home = region.claim_home();
    EXPECT_EQ(region.at(home)[0], std::byte{0});
    region.release_home(home);
}

TEST(RegionTest, processes_have_numbers_of_their_own) {
    Region& region = Region::instance();
    const std::uint32_t own = region.own_number();
    EXPECT_NE(own, 0u);
    EXPECT_EQ(region.own_number(), own);
    EXPECT_EQ(region.number_of(::getpid()), own);
    EXPECT_EQ(region.number_of(-5), 0u);
    EXPECT_EQ(in_child([&] { return region.own_number() != own && region.own_number() != 0 ? 1 : 2; }), 1);
}

}    // namespace
