#include <multihull/pipe.hpp>
#include <multihull/pool.hpp>
#include <multihull/process.hpp>
#include <multihull/wait.hpp>

#include "support/board.hpp"
#include "support/descriptors.hpp"
#include "support/start_methods.hpp"

#include <gtest/gtest.h>

#include <list>
#include <sys/eventfd.h>
#include <thread>
#include <unistd.h>

namespace {

using multihull::Connection;
using multihull::Future;
using multihull::Pipe;
using multihull::wait;
using namespace std::chrono_literals;
namespace mh = multihull;
using Places = std::vector<std::size_t>;

TEST(Wait, AnswersWhatIsReadyInOrder) {
    auto [a, a_end] = Pipe();
    auto [b, b_end] = Pipe();
    auto [c, c_end] = Pipe();
    EXPECT_EQ(wait({a, b, c}, 0s), Places{});
    EXPECT_EQ(wait({a, b, c}, 1ms), Places{});
    c_end.send(1);
    EXPECT_EQ(wait({a, b, c}), Places{2});
    a_end.close();
    EXPECT_EQ(wait({a, b, c}), (Places{0, 2}));    // an end of file is something to receive
    EXPECT_EQ(c.recv<int>(), 1);
    EXPECT_EQ(wait({b, c, a.fileno()}), Places{2});
    EXPECT_THROW(wait({a_end}), mh::Error);
    EXPECT_THROW(wait(std::initializer_list<mh::Waitable>{}), mh::Error);
    EXPECT_EQ(wait(std::initializer_list<mh::Waitable>{}, 1ms), Places{});
}

TEST(Wait, AnswersTheObjectsOfARange) {
    std::list<Connection> ours;
    std::vector<Connection> theirs;
    for (int i = 0; i < 10; ++i) {
        auto [x, y] = Pipe();
        ours.push_back(std::move(x));
        theirs.push_back(std::move(y));
    }
    theirs[3].send(3);
    theirs[7].send(7);
    int sum = 0;
    for (Connection* const ready : wait(ours)) sum += ready->recv<int>();
    EXPECT_EQ(sum, 10);
    EXPECT_TRUE(wait(ours, 0s).empty());
}

TEST(Wait, SeesAListenersClients) {
    mh::Listener listener;
    EXPECT_EQ(wait({listener}, 0s), Places{});
    const Connection client = mh::Client(listener.address());
    EXPECT_EQ(wait({listener}), Places{0});
    listener.accept();
}

class WaitForProcesses : public test::StartMethodTest {};
INSTANTIATE_TEST_SUITE_P(EachStartMethod, WaitForProcesses, test::each_start_method(), test::start_method_name);

TEST_P(WaitForProcesses, AndTheirConnectionsAndTasksAtOnce) {
    test::Board board;
    mh::Pool pool(2);
    auto task = pool.apply_async(test::hold, board.path(), 5);
    mh::Process process(test::hold, board.path(), 0);
    EXPECT_THROW(wait({process}, 0s), mh::Error);
    process.start();
    auto [ours, theirs] = Pipe();
    EXPECT_EQ(wait({process, task, ours}, 1ms), Places{});
    theirs.send(1);
    EXPECT_EQ(wait({process, task, ours}), Places{2});
    board[test::kLetGo] = 1;
    Places ready;
    while (ready.size() < 2) ready = wait({process, task});
    EXPECT_EQ(ready, (Places{0, 1}));
    EXPECT_EQ(task.get(), 5);
    process.join();
}

int square(int x) { return x * x; }
int crash(int) { std::abort(); }

TEST_P(WaitForProcesses, FuturesInTheOrderInWhichTheyEnd) {
    mh::Pool pool(2);
    std::vector<Future<int>> futures;
    for (int i = 0; i < 200; ++i) futures.push_back(pool.apply_async(square, i));
    int sum = 0;
    while (!futures.empty()) {
        const auto ready = wait(futures);
        ASSERT_FALSE(ready.empty());
        for (Future<int>* const future : ready) sum += future->get();
        std::erase_if(futures, [&](const auto& future) { return std::ranges::find(ready, &future) != ready.end(); });
    }
    EXPECT_EQ(sum, 199 * 200 * 399 / 6);
    auto crashed = pool.apply_async(crash, 1);
    EXPECT_EQ(wait({crashed}), Places{0});
    EXPECT_THROW(crashed.get(), mh::WorkerCrashed);
}

// A task takes the place of one that has just ended, while the callback of that one is on its way.
TEST(Wait, TellsTasksInTheSamePlaceApart) {
    mh::Pool pool(2);
    for (int i = 0; i < 3000; ++i) {
        auto task = pool.apply_async(square, i);
        ASSERT_EQ(wait({task}), Places{0});
        ASSERT_EQ(task.get(), i * i);
    }
}

TEST(Wait, LeavesNothingBehindWhenItWaitsOften) {
    test::Board board;
    mh::Pool pool(1);
    auto task = pool.apply_async(test::hold, board.path(), 5);
    EXPECT_EQ(wait({task}, 1ms), Places{});
    const std::size_t before = test::open_descriptors();
    for (int i = 0; i < 1000; ++i) EXPECT_EQ(wait({task}, 0s), Places{});
    for (int i = 0; i < 100; ++i) EXPECT_EQ(wait({task}, 10us), Places{});
    EXPECT_LE(test::open_descriptors(), before);    // an earlier test's may have been closed meanwhile
    std::vector<std::thread> waiters;
    for (int i = 0; i < 4; ++i) waiters.emplace_back([&] { EXPECT_EQ(wait({task}), Places{0}); });
    board[test::kLetGo] = 1;
    for (auto& waiter : waiters) waiter.join();
    EXPECT_EQ(wait({task}), Places{0});
}

// Something that lives in memory, as a queue does.
class Bell {
public:
    void ring() { state_->rung = true, state_->wake(); }
    std::shared_ptr<mh::detail::WaitSource> wait_source() const { return state_; }

private:
    struct State final : mh::detail::WaitSource {
        bool ready() override { return rung; }
        void prepare(int fd) override { eventfd = fd; }
        void forget() noexcept override { eventfd = -1; }
        void wake() const {
            const std::uint64_t one = 1;
            if (eventfd >= 0) {
                ASSERT_EQ(::write(eventfd, &one, sizeof one), 8);
            }
        }
        std::atomic<bool> rung = false;
        std::atomic<int> eventfd = -1;
    };
    std::shared_ptr<State> state_ = std::make_shared<State>();
};

TEST(Wait, AsksWhoHasASourceOfItsOwn) {
    Bell bell;
    auto [ours, theirs] = Pipe();
    EXPECT_EQ(wait({ours, bell}, 1ms), Places{});
    std::thread ringer([&] { bell.ring(); });
    EXPECT_EQ(wait({ours, bell}), Places{1});
    ringer.join();
    theirs.send(1);
    EXPECT_EQ(wait({ours, bell}), (Places{0, 1}));
}

}    // namespace
