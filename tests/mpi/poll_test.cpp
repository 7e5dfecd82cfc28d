// How long to wait before MPI is asked again.
#include "mpi/poll.hpp"

#include <gtest/gtest.h>

#include <cstdint>

namespace {

using multihull::mpi::Poll;

constexpr std::int64_t kUs = 1'000;
constexpr std::int64_t kMs = 1'000'000;
constexpr std::int64_t kSecond = 1'000'000'000;

TEST(PollTest, waits_awake_at_first_then_for_an_eighth_of_what_it_waited) {
    Poll poll;
    poll.something_happened(kSecond);
    EXPECT_EQ(poll.pause_ns(kSecond), 0);
    EXPECT_EQ(poll.pause_ns(kSecond + 49 * kUs), 0);
    EXPECT_EQ(poll.pause_ns(kSecond + 80 * kUs), 10 * kUs);
    EXPECT_EQ(poll.pause_ns(kSecond + 4 * kMs), 500 * kUs);
    EXPECT_EQ(poll.pause_ns(kSecond + 100 * kMs), kMs) << "no longer than a millisecond";
    EXPECT_EQ(poll.pause_ns(kSecond + 60 * kSecond), 10 * kMs) << "but where nothing comes for long";
    poll.something_happened(62 * kSecond);
    EXPECT_EQ(poll.pause_ns(62 * kSecond), 0);
}

TEST(PollTest, does_not_wait_awake_in_a_crowd_where_tasks_are_long) {
    Poll poll;
    poll.something_happened(kSecond);
    EXPECT_EQ(poll.pause_ns(kSecond, kMs), 0) << "there is no crowd";
    poll.be_crowded();
    EXPECT_EQ(poll.pause_ns(kSecond, 50 * kUs), 0) << "tasks are short";
    EXPECT_EQ(poll.pause_ns(kSecond), 0) << "nobody knows";
    EXPECT_EQ(poll.pause_ns(kSecond, 100 * kUs), 5 * kUs);
    EXPECT_EQ(poll.pause_ns(kSecond, 640 * kUs), 20 * kUs);
    EXPECT_EQ(poll.pause_ns(kSecond, kSecond), 50 * kUs);
}

TEST(PollTest, rests_no_longer_than_nobody_runs_out_of_tasks) {
    EXPECT_EQ(Poll::rest_ns(3, kMs, 2), 0) << "a worker has nothing ahead";
    EXPECT_EQ(Poll::rest_ns(4, kMs, 2), 250 * kUs) << "a quarter of the task that each has ahead";
    EXPECT_EQ(Poll::rest_ns(4, 50 * kUs, 2), 0) << "not worth a sleep";
    EXPECT_EQ(Poll::rest_ns(2'000, 10 * kUs, 2), 500 * kUs);
    EXPECT_EQ(Poll::rest_ns(2'000, 6 * kMs, 2), 750 * kUs) << "an eighth of a task";
    EXPECT_EQ(Poll::rest_ns(2'000, kSecond, 2), kMs);
}

TEST(PollTest, rests_for_a_part_of_a_task_where_its_end_wakes_up) {
    EXPECT_EQ(Poll::rest_at_hand_ns(1, 10 * kMs, 2), 0) << "a worker has nothing";
    EXPECT_EQ(Poll::rest_at_hand_ns(2, 3'200 * kUs, 2), 100 * kUs);
    EXPECT_EQ(Poll::rest_at_hand_ns(2, 100 * kUs, 2), 0);
    EXPECT_EQ(Poll::rest_at_hand_ns(2, kSecond, 2), kMs);
}

}    // namespace
