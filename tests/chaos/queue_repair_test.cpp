// A process that makes right what a dead one left half done in a queue dies over it as well.
#include "chaos/chaos.hpp"

#include <multihull/queue.hpp>

#include <gtest/gtest.h>

#include <csignal>
#include <string>
#include <sys/wait.h>
#include <unistd.h>

namespace {

using multihull::os::KillPoint;

std::string text(char letter) { return std::string(20'000, letter); }

// Nobody is told of this child's death: who comes upon what it left finds that out by himself.
template <class Function>
int killed_child(Function function) {
    const pid_t child = ::fork();
    if (child == 0) {
        function();
        ::_exit(0);
    }
    int status = 0;
    ::waitpid(child, &status, 0);
    return WIFSIGNALED(status) ? WTERMSIG(status) : 0;
}

class QueueRepair : public ::testing::Test {
protected:
    void SetUp() override {
        if (!multihull::os::kFailpoints) GTEST_SKIP() << "this build has no kill points";
    }
    void TearDown() override { chaos::disarm(); }
};

TEST_F(QueueRepair, a_block_is_freed_once_though_the_repairer_dies_too) {
    multihull::Queue<std::string> queue;
    queue.put(text('a'));
    // One takes the message and dies before he has written down that its memory is his.
    chaos::arm(KillPoint::get_taken, 1);
    ASSERT_EQ(killed_child([&] { queue.get(); }), SIGKILL);
    // The next one is about to take another, makes that right, and dies before he has struck the note out.
    queue.put(text('b'));
    chaos::arm(KillPoint::queue_repaired, 1);
    ASSERT_EQ(killed_child([&] { queue.get(); }), SIGKILL);
    chaos::disarm();
    // Neither the memory of the first message, nor whose it is now, may be confused.
    queue.put(text('c'));
    EXPECT_EQ(queue.get(), text('b'));
    EXPECT_EQ(queue.get(), text('c'));
    for (char letter = 'd'; letter < 'j'; ++letter) queue.put(text(letter));
    for (char letter = 'd'; letter < 'j'; ++letter) EXPECT_EQ(queue.get(), text(letter));
}

TEST_F(QueueRepair, the_same_on_the_way_in) {
    multihull::Queue<std::string> queue;
    chaos::arm(KillPoint::block_queued, 1);
    ASSERT_EQ(killed_child([&] { queue.put(text('a')); }), SIGKILL);
    chaos::arm(KillPoint::queue_repaired, 1);
    ASSERT_EQ(killed_child([&] { queue.put(text('b')); }), SIGKILL);
    chaos::disarm();
    for (char letter = 'c'; letter < 'j'; ++letter) queue.put(text(letter));
    for (char letter = 'c'; letter < 'j'; ++letter) EXPECT_EQ(queue.get(), text(letter));
    EXPECT_TRUE(queue.empty());
}

}    // namespace
