// What Queue, JoinableQueue and SimpleQueue do between processes, under every start method.
#include <multihull/pool.hpp>
#include <multihull/process.hpp>
#include <multihull/queue.hpp>
#include <multihull/shared.hpp>
#include <multihull/sync.hpp>
#include <multihull/wait.hpp>

#include "channel/queue_parts.hpp"
#include "shm/objects.hpp"
#include "shm/region.hpp"
#include "support/board.hpp"
#include "support/start_methods.hpp"

#include <gtest/gtest.h>

#include <csignal>
#include <numeric>
#include <string>
#include <sys/ptrace.h>
#include <sys/wait.h>
#include <thread>
#include <unistd.h>
#include <vector>

namespace {

using namespace std::chrono_literals;
using multihull::Process;
using multihull::Queue;

class QueueTest : public test::StartMethodTest {
protected:
    std::size_t before_ = multihull::shm::count_objects();
    void TearDown() override {
        EXPECT_TRUE(test::eventually([&] { return multihull::shm::count_objects() == before_; }));
        test::StartMethodTest::TearDown();
    }
};
INSTANTIATE_TEST_SUITE_P(EachStartMethod, QueueTest, test::each_start_method(), test::start_method_name);

TEST(Queue, keeps_order_and_bounds) {
    Queue<int> queue(3);
    EXPECT_TRUE(queue.empty());
    EXPECT_EQ(queue.maxsize(), 3U);
    for (int i = 0; i < 3; ++i) queue.put(i);
    EXPECT_TRUE(queue.full());
    EXPECT_EQ(queue.qsize(), 3U);
    EXPECT_FALSE(queue.try_put(3));
    EXPECT_FALSE(queue.try_put_for(3, 1ms));
    EXPECT_THROW(queue.put(3, 1ms), multihull::QueueFull);
    for (int i = 0; i < 3; ++i) EXPECT_EQ(queue.get(), i);
    EXPECT_EQ(queue.try_get(), std::nullopt);
    EXPECT_EQ(queue.try_get_for(1ms), std::nullopt);
    EXPECT_THROW(queue.get(1ms), multihull::QueueEmpty);
    EXPECT_THROW(queue.get(1ms), multihull::WaitTimeout);
}

// The recovery of a dead process needs the locks of every queue that it used: who sweeps for memory must not hold one.
TEST(Queue, finds_memory_that_a_dead_process_left_when_there_is_no_other) {
    Queue<std::vector<std::byte>> queue;
    const std::vector<std::byte> small(1000);
    const std::vector<std::byte> big(3 * multihull::shm::kExtentSize);
    const pid_t child = ::fork();
    if (child == 0) {
        auto& region = multihull::shm::Region::instance();
        queue.put(small);
        const auto block = queue.loan(100);
        for (std::size_t run = std::size_t{1} << 44; run >= multihull::shm::kExtentSize; run /= 2) {
            while (region.claim_extents(run) != 0) {}
        }
        ::kill(::getpid(), SIGKILL);
    }
    siginfo_t end{};
    ASSERT_EQ(::waitid(P_PID, static_cast<id_t>(child), &end, WEXITED | WNOWAIT), 0);
    ASSERT_EQ(end.si_status, SIGKILL);
    for (int i = 0; i < 500; ++i) queue.put(small);
    queue.put(big);
    for (int i = 0; i < 501; ++i) EXPECT_EQ(queue.get().size(), small.size());
    EXPECT_EQ(queue.get().size(), big.size());
    ::waitpid(child, nullptr, 0);
}

TEST(Queue, grows_shrinks_and_keeps_messages_of_every_size) {
    Queue<std::string> queue;
    std::size_t put = 0;
    std::size_t taken = 0;
    const auto text = [](std::size_t i) {
        return std::string(i % 97 == 0 ? i * 37 % 100000 : i * 13 % 2300, static_cast<char>('a' + i % 26));
    };
    for (int round = 0; round < 12; ++round) {
        const std::size_t fill = round % 3 == 0 ? 5000 : 100;
        for (std::size_t i = 0; i < fill; ++i, ++put) queue.put(text(put));
        while (taken < put - (round % 2 == 0 ? 50 : 0)) {
            ASSERT_EQ(queue.get(), text(taken));
            ++taken;
        }
    }
    for (int i = 0; i < 20000; ++i, ++put, ++taken) {
        queue.put(text(put));
        ASSERT_EQ(queue.get(), text(taken));
    }
    while (taken < put) ASSERT_EQ(queue.get(), text(taken++));
    EXPECT_TRUE(queue.empty());
}

TEST(Queue, closed_drains_and_then_says_so) {
    Queue<int> queue;
    queue.put(1);
    queue.close();
    EXPECT_TRUE(queue.closed());
    EXPECT_THROW(queue.put(2), multihull::QueueClosed);
    EXPECT_EQ(queue.get(), 1);
    EXPECT_THROW(queue.get(), multihull::QueueClosed);
    Queue<int> other;
    std::thread waits([&] { EXPECT_THROW(other.get(), multihull::QueueClosed); });
    other.close();
    waits.join();
}

// A taker says which slots are free again a moment before it is done with its message: putters may have come round by then.
TEST(Queue, a_message_is_taken_whole_though_its_slots_are_written_again_at_once) {
    using multihull::channel::QueueData;
    using multihull::channel::SlotHead;
    multihull::JoinableQueue<std::string> queue;
    const std::string taken(300, 't');    // three slots
    const std::string small = "small";    // one slot
    const std::string big(100'000, 'b');
    queue.put(small);
    queue.put(taken);
    QueueData& data = multihull::channel::data_of(queue.core().object()->head());
    const auto place = [&] { return data.put_at[data.put_total.load() % 2]; };
    const pid_t child = ::fork();
    if (child == 0) {
        if (queue.get() != small || ::ptrace(PTRACE_TRACEME, 0, nullptr, nullptr) != 0) ::_exit(1);
        ::raise(SIGSTOP);
        const bool whole = queue.get() == taken;
        queue.task_done();
        queue.task_done();
        ::_exit(whole ? 0 : 2);
    }
    int status = 0;
    ASSERT_EQ(::waitpid(child, &status, 0), child);
    if (!WIFSTOPPED(status)) GTEST_SKIP() << "processes may not be traced here";
    std::size_t left = 0;
    for (; place().position < multihull::channel::kFirstSlots; ++left) queue.put(small);
    const std::uint64_t before = data.progress.load();
    while (data.progress.load() == before) {
        ASSERT_EQ(::ptrace(PTRACE_SINGLESTEP, child, nullptr, nullptr), 0);
        ASSERT_EQ(::waitpid(child, &status, 0), child);
        ASSERT_TRUE(WIFSTOPPED(status));
    }
    queue.put(small);
    queue.put(big);
    EXPECT_EQ(place().hops, 0U);
    const auto* const head = reinterpret_cast<const SlotHead*>(data.ring0.data() + multihull::channel::kSlotSize);
    EXPECT_EQ(head->kind, SlotHead::big_message) << "where the head of the message was";
    ASSERT_EQ(::ptrace(PTRACE_DETACH, child, nullptr, nullptr), 0);
    ASSERT_EQ(::waitpid(child, &status, 0), child);
    EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0) << status;
    // If the child took the new message's kind for its own's, it has lent itself the block of a message that has none.
    auto& region = multihull::shm::Region::instance();
    const auto* const none = multihull::channel::block_at(data, 0U - 1U);
    if (region.offset_of(none + 1) <= region.header().size) {
        EXPECT_EQ(none->state.load(), 0U);
    }
    for (std::size_t i = 0; i <= left; ++i) {
        ASSERT_EQ(queue.get(), small);
        queue.task_done();
    }
    EXPECT_EQ(queue.get(), big);
    queue.task_done();
    EXPECT_TRUE(queue.join(0ns)) << "the child has done both of its own";
}

TEST(Queue, that_was_overwritten_is_not_followed_out_of_its_memory) {
    Queue<int> queue;
    queue.put(1);
    auto& data = multihull::channel::data_of(queue.core().object()->head());
    data.put_at[1].ring = ~0U;
    EXPECT_THROW(queue.put(2), multihull::CodecError);
    data.take_at[0].ring = 3;    // which has no memory
    EXPECT_THROW(queue.get(), multihull::CodecError);
    data.take_at[0].ring = 0;
    EXPECT_EQ(queue.get(), 1);
}

TEST(Queue, lends_memory_to_be_filled_in_place) {
    Queue<std::vector<double>> queue;
    {
        auto loan = queue.loan(1000000);
        std::iota(loan.begin(), loan.end(), 0.0);
        queue.publish(std::move(loan));
        static_cast<void>(queue.loan(5));    // never published
    }
    queue.put({1.0, 2.0});
    {
        auto view = queue.get_view();
        ASSERT_EQ(view.size(), 1000000U);
        EXPECT_EQ(view[999999], 999999.0);
        EXPECT_EQ(std::accumulate(view.begin(), view.end(), 0.0), 999999.0 * 1000000 / 2);
    }
    EXPECT_EQ(queue.get_view()[1], 2.0);
    {
        auto loan = queue.loan(3);
        loan[0] = loan[1] = loan[2] = 7;
        queue.publish(std::move(loan));
    }
    EXPECT_EQ(queue.get(), (std::vector<double>{7, 7, 7}));

    struct Sample {
        long time;
        std::array<float, 5000> values;
    };
    Queue<Sample> samples;
    auto loan = samples.loan();
    loan->time = 5;
    samples.publish(std::move(loan));
    EXPECT_EQ(samples.get_view()->time, 5);

    Queue<std::string> strings;
    auto text = strings.loan(3);
    std::memcpy(text.data(), "abc", 3);
    strings.publish(std::move(text));
    EXPECT_EQ(strings.get(), "abc");
}

void put_numbers(Queue<int> queue, int first, int count) {
    for (int i = 0; i < count; ++i) queue.put(first + i);
}
void take_numbers(Queue<int> queue, multihull::Array<int> seen) {
    std::vector<int> last(16, -1);
    try {
        for (;;) {
            const int number = queue.get();
            seen.atomic(static_cast<std::size_t>(number)).fetch_add(1);
            auto& before = last[static_cast<std::size_t>(number) / 5000];
            if (number <= before) ::_exit(3);    // one putter's messages come in order
            before = number;
        }
    } catch (const multihull::QueueClosed&) {}
}

TEST_P(QueueTest, every_message_of_many_putters_comes_once_to_one_of_many_takers) {
    for (const std::size_t maxsize : {std::size_t{0}, std::size_t{7}}) {
        Queue<int> queue(maxsize);
        multihull::Array<int> seen(15000);
        std::vector<Process> takers;
        {
            std::vector<Process> putters;
            for (int i = 0; i < 3; ++i) takers.emplace_back(take_numbers, queue, seen).start();
            for (int i = 0; i < 3; ++i) putters.emplace_back(put_numbers, queue, i * 5000, 5000).start();
        }
        queue.close();
        for (auto& taker : takers) {
            taker.join();
            EXPECT_EQ(taker.exitcode(), 0);
        }
        for (const int times : seen) ASSERT_EQ(times, 1);
    }
}

void echo(Queue<std::string> in, Queue<std::string> out) {
    try {
        for (;;) out.put(in.get());
    } catch (const multihull::QueueClosed&) {}
}

TEST_P(QueueTest, carries_messages_of_every_size_between_processes) {
    Queue<std::string> there, back;
    Process process(echo, there, back);
    process.start();
    for (const std::size_t size : {0U, 1U, 100U, 112U, 113U, 2000U, 2032U, 2033U, 5000U, 1U << 20, 20U << 20}) {
        const std::string text(size, 'x');
        there.put(text);
        ASSERT_EQ(back.get(), text);
    }
    there.close();
    process.join();
    EXPECT_EQ(process.exitcode(), 0);
}

void pass_on(Queue<Queue<int>> queues) { queues.get().put(42); }

TEST_P(QueueTest, handles_travel_inside_messages) {
    Queue<Queue<int>> queues;
    Queue<int> answers;
    queues.put(answers);
    Process process(pass_on, queues);
    process.start();
    EXPECT_EQ(answers.get(), 42);
    process.join();
    Queue<Queue<int>> full(1);
    full.put(answers);
    EXPECT_FALSE(full.try_put(answers));
    static_cast<void>(full.get());
}

void put_later(multihull::Event go, Queue<int> queue) {
    go.wait();
    queue.put(5);
}

TEST_P(QueueTest, can_be_waited_for_among_others) {
    Queue<int> first, second;
    multihull::Event go;
    Process process(put_later, go, second);
    process.start();
    EXPECT_TRUE(multihull::wait({first, second}, 1ms).empty());
    std::thread later([&] { go.set(); });
    EXPECT_EQ(multihull::wait({first, second}), std::vector<std::size_t>{1});
    later.join();
    first.put(1);
    EXPECT_EQ(multihull::wait({first, second}), (std::vector<std::size_t>{0, 1}));
    EXPECT_EQ(second.get(), 5);
    EXPECT_EQ(multihull::wait({second, process}), std::vector<std::size_t>{1});
    second.close();
    EXPECT_EQ(multihull::wait({second}), std::vector<std::size_t>{0});
}

int take_one(Queue<int> queue) { return queue.get(); }

TEST_P(QueueTest, serves_tasks_of_a_pool) {
    Queue<int> queue;
    multihull::Pool pool({.processes = 2});
    std::vector<multihull::Future<int>> futures;
    for (int i = 0; i < 10; ++i) futures.push_back(pool.apply_async(take_one, queue));
    for (int i = 0; i < 10; ++i) queue.put(i);
    int sum = 0;
    for (auto& future : futures) sum += future.get();
    EXPECT_EQ(sum, 45);
    pool.close();
    pool.join();
}

void work(multihull::JoinableQueue<int> queue, multihull::Value<int> sum) {
    for (;;) {
        const int number = queue.get();
        if (number < 0) {
            ::kill(::getpid(), SIGKILL);
        }
        sum.atomic().fetch_add(number);
        queue.task_done();
    }
}

TEST_P(QueueTest, can_be_joined_and_tells_of_tasks_that_died) {
    multihull::JoinableQueue<int> queue;
    multihull::Value<int> sum(0);
    EXPECT_THROW(queue.task_done(), multihull::SyncError);
    {
        std::vector<Process> processes;
        for (int i = 0; i < 2; ++i) processes.emplace_back(Process({.daemon = true}, work, queue, sum)).start();
        for (int i = 1; i <= 100; ++i) queue.put(i);
        queue.join();
        EXPECT_EQ(sum.value(), 5050);
        queue.put(-1);
        queue.put(10);
        try {
            queue.join();
            ADD_FAILURE() << "one was lost";
        } catch (const multihull::TasksLost& lost) {
            EXPECT_EQ(lost.count(), 1U);
        }
        queue.join();
        EXPECT_EQ(sum.value(), 5060);
        EXPECT_TRUE(queue.join(1ms));
        queue.put(-1);
        EXPECT_THROW(queue.join(), multihull::TasksLost);
        queue.put(1);
        EXPECT_FALSE(queue.join(1ms));    // nobody is left
    }
}

[[noreturn]] void die_with_blocks(Queue<std::string> queue) {
    auto loan = queue.loan(std::size_t{1} << 20);
    auto view = queue.get_view();
    ::kill(::getpid(), SIGKILL);
    std::abort();
}

TEST_P(QueueTest, memory_on_loan_comes_back_from_the_dead) {
    Queue<std::string> queue;
    for (int i = 0; i < 200; ++i) {
        queue.put(std::string(std::size_t{1} << 20, 'x'));
        Process victim(die_with_blocks, queue);
        victim.start();
        victim.join();
        if (GetParam() == multihull::StartMethod::spawn && i > 20) break;
    }
    // 400 of them would have taken 400 MiB; what came back was used again.
    std::vector<multihull::Loan<std::string>> loans;
    for (int i = 0; i < 2; ++i) loans.push_back(queue.loan(std::size_t{1} << 20));
    EXPECT_EQ(queue.qsize(), 0U);
}

}    // namespace
