// Queues, locks and their relatives between the threads of one process: what the thread sanitizer can follow.
#include <multihull/queue.hpp>
#include <multihull/shared.hpp>
#include <multihull/sync.hpp>

#include <gtest/gtest.h>

#include <array>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

namespace {

template <class Function>
void in_threads(int count, Function function) {
    std::vector<std::thread> threads;
    for (int i = 0; i < count; ++i) threads.emplace_back([=]() mutable { function(i); });
    for (auto& thread : threads) thread.join();
}

TEST(Threads, share_a_lock_and_a_value) {
    multihull::Lock lock;
    multihull::RLock rlock;
    multihull::Value<long> value(0);
    in_threads(4, [=](int) mutable {
        for (int i = 0; i < 2000; ++i) {
            const std::scoped_lock both(lock, rlock);
            value.value() += 1;
        }
    });
    EXPECT_EQ(value.value(), 8000);
}

TEST(Threads, share_permits) {
    multihull::BoundedSemaphore semaphore(1);
    multihull::Value<long> value(0);
    in_threads(4, [=](int) mutable {
        for (int i = 0; i < 1000; ++i) {
            const std::lock_guard permit(semaphore);
            value.value() += 1;
        }
    });
    EXPECT_EQ(value.value(), 4000);
}

TEST(Threads, take_turns_by_a_condition) {
    multihull::Condition condition;
    multihull::Value<int> turn(0);
    in_threads(3, [=](int self) mutable {
        for (int i = 0; i < 200; ++i) {
            const std::lock_guard guard(condition);
            condition.wait_for([&] { return turn.value() % 3 == self; });
            turn.value() += 1;
            condition.notify_all();
        }
    });
    EXPECT_EQ(turn.value(), 600);
}

TEST(Threads, pass_barriers_and_see_what_was_written_before) {
    multihull::Barrier barrier(3);
    multihull::Event begin;
    multihull::Array<int> rounds(3);
    std::thread starter([=]() mutable { begin.set(); });
    in_threads(3, [=](int self) mutable {
        begin.wait();
        for (int round = 1; round <= 200; ++round) {
            rounds[static_cast<std::size_t>(self)] = round;
            barrier.wait();
            for (const int other : rounds) EXPECT_EQ(other, round);
            barrier.wait();
        }
    });
    starter.join();
}

TEST(Threads, put_and_take_messages_of_every_size) {
    for (const std::size_t maxsize : {std::size_t{0}, std::size_t{4}}) {
        multihull::JoinableQueue<std::string> queue(maxsize);
        multihull::Value<long> bytes(0);
        in_threads(6, [=](int self) mutable {
            if (self < 3) {
                for (int i = 0; i < 500; ++i) queue.put(std::string(static_cast<std::size_t>(i * 11), 'x'));
                return;
            }
            for (int i = 0; i < 500; ++i) {
                const std::string text = queue.get();
                bytes.atomic().fetch_add(static_cast<long>(text.size()));
                queue.task_done();
            }
        });
        queue.join();
        EXPECT_EQ(bytes.value(), 3L * 11 * 499 * 500 / 2);
    }
}

TEST(Threads, fill_and_read_messages_in_place) {
    multihull::Queue<std::vector<int>> queue(3);
    in_threads(4, [=](int self) mutable {
        for (int i = 0; i < 200; ++i) {
            if (self < 2) {
                auto loan = queue.loan(2000);
                for (int& number : loan) number = i;
                queue.publish(std::move(loan));
            } else {
                const auto view = queue.get_view();
                for (const int number : view) ASSERT_EQ(number, view[0]);
            }
        }
    });
    EXPECT_TRUE(queue.empty());
}

}    // namespace
