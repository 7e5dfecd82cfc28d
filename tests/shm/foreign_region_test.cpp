// Another process's region, and the calls that are read there.
#include "shm/foreign_region.hpp"
#include "pool/fetched_call.hpp"
#include "support/in_child.hpp"

#include <multihull/error.hpp>

#include <gtest/gtest.h>

#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <sys/wait.h>
#include <system_error>
#include <unistd.h>
#include <vector>

namespace {

namespace shm = multihull::shm;
using multihull::detail::FetchedCall;
using multihull::detail::FetchedPiece;
using multihull::detail::FetchPlan;
using test::in_child;

template <class Exception, class Function>
bool throws(Function function) {
    try {
        function();
        return false;
    } catch (const Exception&) {
        return true;
    }
}

TEST(ForeignRegionTest, is_seen_where_its_owner_writes_to_it) {
    shm::Region& region = shm::Region::instance();
    const shm::Offset place = region.claim_extents(1);
    ASSERT_NE(place, 0U);
    region.at(place)[3] = std::byte{5};
    const shm::RegionAddress address = shm::address_of_own_region();
    EXPECT_EQ(address.pid, ::getpid());
    EXPECT_EQ(in_child([&] {
                  shm::look_into_foreign_region(address);
                  const std::byte* const there = shm::readable_at(shm::kForeign | place);
                  const bool own = shm::readable_at(place) == shm::Region::instance().at(place);
                  return there != shm::readable_at(place) && own ? static_cast<int>(there[3]) : 0;
              }),
              5);
    region.release_extents(place, 1);
}

TEST(ForeignRegionTest, what_is_no_region_any_more_is_refused) {
    const shm::RegionAddress right = shm::address_of_own_region();
    shm::RegionAddress other_family = right;
    other_family.family[0] ^= 1;
    EXPECT_TRUE(throws<multihull::Error>([&] { shm::map_foreign_region(other_family); }));
    int ends[2];
    ASSERT_EQ(::pipe(ends), 0);
    shm::RegionAddress a_pipe = right;
    a_pipe.descriptor = ends[0];
    EXPECT_TRUE(throws<multihull::Error>([&] { shm::map_foreign_region(a_pipe); }));
    ::close(ends[0]);
    ::close(ends[1]);
    shm::RegionAddress closed = right;
    closed.descriptor = ends[0];
    EXPECT_TRUE(throws<std::system_error>([&] { shm::map_foreign_region(closed); }));
    shm::RegionAddress nobody = right;
    nobody.pid = ::fork();
    if (nobody.pid == 0) ::_exit(0);
    ::waitpid(nobody.pid, nullptr, 0);
    EXPECT_TRUE(throws<std::system_error>([&] { shm::map_foreign_region(nobody); }));
}

std::vector<std::byte> make_plan(const std::vector<FetchedPiece>& pieces, const std::string& rest) {
    FetchPlan head{rest.size(), pieces.size()};
    for (const FetchedPiece& piece : pieces) head.call_size += piece.size;
    std::vector<std::byte> plan(sizeof head + pieces.size() * sizeof(FetchedPiece) + rest.size());
    std::memcpy(plan.data(), &head, sizeof head);
    std::memcpy(plan.data() + sizeof head, pieces.data(), pieces.size() * sizeof(FetchedPiece));
    std::memcpy(plan.data() + plan.size() - rest.size(), rest.data(), rest.size());
    return plan;
}

TEST(FetchedCallTest, pieces_come_to_their_places) {
    const std::string first(100'000, 'a');
    const std::string second(50'000, 'b');
    const auto address = [](const std::string& text) { return reinterpret_cast<std::uintptr_t>(text.data()); };
    const auto plan =
        make_plan({{3, first.size(), address(first)}, {first.size() + 5, second.size(), address(second)}}, "123456");
    const auto small = make_plan({{0, 7, address(first)}}, "!");
    const pid_t owner = ::getpid();
    if (!multihull::detail::can_fetch_from(owner, address(first))) GTEST_SKIP() << "this system forbids it";
    EXPECT_EQ(in_child([&] {
                  FetchedCall call;
                  const auto text = [](std::span<const std::byte> bytes) {
                      return std::string(reinterpret_cast<const char*>(bytes.data()), bytes.size());
                  };
                  const bool whole = text(call.fetch(plan, owner)) == "123" + first + "45" + second + "6";
                  const bool again = text(call.fetch(small, owner)) == "aaaaaaa!";
                  return whole && again ? 1 : 0;
              }),
              1);
}

TEST(FetchedCallTest, no_piece_comes_to_a_place_to_which_it_is_copied_slowly) {
    const std::vector<std::byte> bytes(20'000, std::byte{7});
    const auto begin = reinterpret_cast<std::uintptr_t>(bytes.data());
    const pid_t owner = ::getpid();
    if (!multihull::detail::can_fetch_from(owner, begin)) GTEST_SKIP() << "this system forbids it";
    EXPECT_EQ(
        in_child([&] {
            FetchedCall call;
            for (std::size_t shift = 0; shift < 200; shift += 4) {
                const std::vector<FetchedPiece> pieces{{24, 5'000, begin + shift}, {5'032, 5'000, begin + 3 * shift}};
                const auto fetched = call.fetch(make_plan(pieces, std::string(32, 'r')), owner);
                for (const FetchedPiece& piece : pieces) {
                    const auto* const from = reinterpret_cast<const void*>(piece.address);
                    const std::byte* const to = fetched.data() + piece.position;
                    if (multihull::detail::copies_slowly(to, from, piece.size)) return 2;
                    if (std::memcmp(to, from, piece.size) != 0) return 3;
                }
                if (reinterpret_cast<std::uintptr_t>(fetched.data()) % multihull::detail::kMaxAlignment != 0) return 4;
            }
            return 1;
        }),
        1);
}

TEST(FetchedCallTest, memory_that_is_gone_is_an_error) {
    const auto plan = make_plan({{0, 100, 8}}, "");
    FetchedCall call;
    EXPECT_TRUE(throws<multihull::Error>([&] { call.fetch(plan, ::getpid()); }));
    EXPECT_FALSE(multihull::detail::can_fetch_from(::getpid(), 8));
    const pid_t nobody = ::fork();
    if (nobody == 0) ::_exit(0);
    ::waitpid(nobody, nullptr, 0);
    EXPECT_FALSE(multihull::detail::can_fetch_from(nobody, reinterpret_cast<std::uintptr_t>(plan.data())));
}

}    // namespace
