// Ranks of one machine that wake one another.
#include "mpi/bells.hpp"
#include "os/clock.hpp"
#include "support/board.hpp"

#include <multihull/error.hpp>

#include <gtest/gtest.h>

#include <array>
#include <atomic>
#include <cstdint>
#include <cstdio>
#include <optional>
#include <sys/wait.h>
#include <thread>
#include <unistd.h>

namespace {

using multihull::mpi::Bells;
using multihull::mpi::Sleeper;
namespace os = multihull::os;

constexpr std::array<std::uint64_t, 2> kKey{17, 42};
/// Longer than a test may take: who sleeps until then was not woken.
constexpr std::int64_t kLateNs = 60'000'000'000;

class BellsTest : public ::testing::Test {
protected:
    void SetUp() override {
        if (!Bells::supported()) GTEST_SKIP() << "this kernel lets nobody sleep on several words";
        bells_.emplace(3, kKey);
    }

    const Bells& bells() const { return *bells_; }

    std::optional<Bells> bells_;
};

/// Sleeps as a rank does until the condition holds; false when it slept too long.
template <class Condition>
bool sleep_until(Sleeper& sleeper, Condition condition) {
    const std::int64_t start = os::now_ns();
    while (!condition()) {
        if (!sleeper.may_sleep()) continue;
        sleeper.sleep(start + kLateNs);
        if (os::now_ns() - start >= kLateNs) return false;
    }
    sleeper.stay_awake();
    return true;
}

TEST_F(BellsTest, no_ring_of_another_process_is_missed) {
    constexpr std::int64_t kRounds = 20'000;
    test::Board board;
    const Bells::Address address = bells().address();
    const auto play = [&](const Bells& own, std::size_t rank) {
        Sleeper sleeper(own, rank);
        for (std::int64_t round = 1; round <= kRounds; ++round) {
            if (rank == 1) {
                board[2].store(round, std::memory_order_release);
                own.ring(2);
            }
            if (!sleep_until(sleeper, [&] { return board[rank].load(std::memory_order_acquire) == round; }))
                return false;
            if (rank == 2) {
                board[1].store(round, std::memory_order_release);
                own.ring(1);
            }
        }
        return true;
    };
    const pid_t child = ::fork();
    if (child == 0) ::_exit(play(Bells(3, address), 2) ? 0 : 1);
    EXPECT_TRUE(play(bells(), 1));
    int status = 0;
    ::waitpid(child, &status, 0);
    EXPECT_EQ(status, 0);
}

TEST_F(BellsTest, a_ring_before_the_sleep_is_heard) {
    std::array<os::FutexWord, 1> words{};
    const std::int64_t start = os::now_ns();
    bells().announce_sleep(0);
    bells().ring(0);
    bells().sleep(0, words, start + kLateNs);
    EXPECT_LT(os::now_ns() - start, kLateNs);
}

TEST_F(BellsTest, who_is_asked_once_more_finds_what_came_before_it_sleeps) {
    Sleeper sleeper(bells(), 0);
    EXPECT_FALSE(sleeper.may_sleep());
    EXPECT_TRUE(sleeper.may_sleep());
    sleeper.stay_awake();
    EXPECT_FALSE(sleeper.may_sleep()) << "something came: it has to look again";
}

TEST_F(BellsTest, another_word_ends_the_sleep) {
    std::atomic<std::uint32_t> word{0};
    std::array<os::FutexWord, 2> words{os::FutexWord{}, os::FutexWord{&word, 0}};
    const std::int64_t start = os::now_ns();
    std::thread waker([&] {
        word.store(1, std::memory_order_seq_cst);
        os::futex_wake_all(word);
    });
    bells().announce_sleep(0);
    bells().sleep(0, words, start + kLateNs);
    waker.join();
    EXPECT_LT(os::now_ns() - start, kLateNs);
    EXPECT_EQ(word.load(), 1U);
}

TEST_F(BellsTest, a_deadline_ends_the_sleep) {
    std::array<os::FutexWord, 1> words{};
    const std::int64_t until = os::now_ns() + 1'000'000;
    while (os::now_ns() < until) {
        bells().announce_sleep(0);
        bells().sleep(0, words, until);
    }
    SUCCEED();
}

TEST_F(BellsTest, other_memory_is_not_taken_for_them) {
    Bells::Address address = bells().address();
    EXPECT_THROW(Bells(4, address), multihull::Error) << "of another number of ranks";
    address.key[0] = 0;
    EXPECT_THROW(Bells(3, address), multihull::Error);
    address = bells().address();
    address.descriptor = ::fileno(stderr);
    EXPECT_ANY_THROW(Bells(3, address));
    address = bells().address();
    bells_->close_descriptor();
    EXPECT_ANY_THROW(Bells(3, address));
    EXPECT_LT(bells().address().descriptor, 0);
}

}    // namespace
