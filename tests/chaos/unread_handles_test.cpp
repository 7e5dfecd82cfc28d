// Messages and results that hold handles and that nobody reads: what they name ends with whatever carried them, whoever dies meanwhile,
// and no sooner.
#include "chaos/chaos.hpp"

#include <multihull/pipe.hpp>
#include <multihull/process.hpp>
#include <multihull/queue.hpp>
#include <multihull/sync.hpp>

#include "shm/objects.hpp"
#include "support/start_methods.hpp"

#include <array>
#include <csignal>
#include <optional>
#include <string>
#include <vector>

namespace {

using namespace std::chrono_literals;
using chaos::eventually;
using multihull::Event;
using multihull::Pool;
using multihull::Process;
using multihull::Queue;
using multihull::os::KillPoint;
using multihull::shm::count_objects;

// A handle in a message of that size: in a slot, or in a block.
struct Named {
    Event event;
    std::string text;
};
Named named(std::size_t size) { return {Event(), std::string(size, 'x')}; }
constexpr std::array<std::size_t, 2> kSizes{10, 5000};

struct Unreadable {
    Event before;
    Event after;
};

// What holds a queue of its own kind.
struct Circle {
    std::optional<Queue<Circle>> queue;
};

class Counted {
protected:
    std::size_t more() const { return count_objects() - before_; }
    // Deaths are told of by others, in a moment.
    void expect_none(const std::string& what) const {
        EXPECT_TRUE(eventually([&] { return more() == 0; })) << what << ": " << more() << " objects";
    }
    const std::size_t before_ = count_objects();
};

class UnreadHandles : public ::testing::Test, public Counted {
protected:
    void TearDown() override { expect_none("at the end"); }
};

class UnreadHandlesElsewhere : public test::StartMethodTest, public Counted {
protected:
    void TearDown() override {
        chaos::disarm();
        expect_none("at the end");
        test::StartMethodTest::TearDown();
    }
};
INSTANTIATE_TEST_SUITE_P(EachStartMethod, UnreadHandlesElsewhere, test::each_start_method(), test::start_method_name);

}    // namespace

template <>
struct multihull::Codec<Unreadable> {
    static void encode(multihull::detail::Writer& writer, const Unreadable& value) {
        multihull::detail::encode(writer, value.before);
        multihull::detail::encode(writer, value.after);
    }
    static Unreadable decode(multihull::detail::Reader& reader) {
        static_cast<void>(multihull::detail::decode<Event>(reader));
        throw CodecError("it is not to be read");
    }
};

namespace {

TEST_F(UnreadHandles, end_with_their_queue) {
    for (const std::size_t size : kSizes) {
        {
            multihull::JoinableQueue<Named> queue;
            for (int i = 0; i < 300; ++i) queue.put(named(size));
            for (int i = 0; i < 100; ++i) queue.get().event.set();
            EXPECT_EQ(more(), 1U + 200U);
            queue.close();
            EXPECT_EQ(more(), 1U + 200U);
        }
        EXPECT_EQ(more(), 0U);
    }
}

TEST_F(UnreadHandles, end_with_queues_that_only_messages_hold) {
    Queue<Queue<Queue<Named>>> outer;
    {
        for (int i = 0; i < 3; ++i) {
            Queue<Queue<Named>> middle;
            for (int j = 0; j < 3; ++j) {
                Queue<Named> inner;
                inner.put(named(10));
                inner.put(named(5000));
                middle.put(inner);
            }
            outer.put(middle);
        }
    }
    EXPECT_EQ(more(), 1U + 3U + 9U + 18U);
    outer.get();
    EXPECT_EQ(more(), 1U + 2U + 6U + 12U);
}

TEST_F(UnreadHandles, are_kept_by_each_message_that_names_them) {
    Queue<Event> first;
    std::optional<Queue<Event>> second(std::in_place);
    {
        const Event event;
        first.put(event);
        first.put(event);
        second->put(event);
    }
    EXPECT_EQ(more(), 3U);
    second.reset();
    EXPECT_EQ(more(), 2U);
    {
        Event read = first.get();
        EXPECT_EQ(more(), 2U);
        read.set();
    }
    EXPECT_TRUE(first.get().is_set());
    EXPECT_EQ(more(), 1U);
}

TEST_F(UnreadHandles, of_a_queue_within_itself_end_when_it_is_read) {
    std::optional<Queue<Circle>> queue(std::in_place);
    queue->put({*queue});
    queue->put({std::nullopt});
    Circle circle = queue->get();
    queue.reset();
    EXPECT_EQ(more(), 1U);
}

TEST_F(UnreadHandles, of_a_message_that_is_not_put_end_at_once) {
    Queue<Event> queue(1);
    queue.put(Event());
    EXPECT_FALSE(queue.try_put(Event()));
    EXPECT_FALSE(queue.try_put_for(Event(), 1ms));
    EXPECT_EQ(more(), 2U);
    queue.close();
    EXPECT_THROW(queue.put(Event()), multihull::QueueClosed);
    EXPECT_EQ(more(), 2U);
}

TEST_F(UnreadHandles, of_a_message_that_can_t_be_decoded_end_with_it) {
    Queue<Unreadable> queue;
    for (int i = 0; i < 3; ++i) queue.put({});
    EXPECT_EQ(more(), 1U + 6U);
    EXPECT_THROW(queue.get(), multihull::CodecError);
    EXPECT_EQ(more(), 1U + 4U);
}

TEST_F(UnreadHandles, in_a_connection_are_their_reader_s) {
    auto [here, there] = multihull::Pipe();
    here.send(named(10));
    EXPECT_EQ(more(), 1U);
    there.recv<Named>().event.set();
    EXPECT_EQ(more(), 0U);
    there.close();
    EXPECT_THROW(here.send(named(10)), multihull::EndOfFile);
}

void put_and_die(std::size_t size) {
    Queue<Queue<Named>> queue;
    Queue<Named> inner;
    for (int i = 0; i < 10; ++i) inner.put(named(size));
    for (int i = 0; i < 10; ++i) queue.put(inner);
    ::kill(::getpid(), SIGKILL);
}

TEST_P(UnreadHandlesElsewhere, end_with_their_last_holder) {
    for (const std::size_t size : kSizes) {
        Process process(put_and_die, size);
        process.start();
        process.join();
        ASSERT_EQ(process.exitcode(), -SIGKILL);
        expect_none("a holder that was killed");
    }
}

// Everything that can happen to a message that holds handles, over and over.
void send_and_drop() {
    for (std::size_t turn = 0;; ++turn) {
        Queue<Queue<Named>> outer(2);
        Queue<Named> inner;
        for (const std::size_t size : kSizes) inner.put(named(size));
        outer.put(inner);
        outer.put(inner);
        static_cast<void>(outer.try_put(inner));
        if (turn % 2 == 0) inner.get();
        if (turn % 3 == 0) outer.get().get();
    }
}

TEST_P(UnreadHandlesElsewhere, are_nobody_s_after_a_death_at_each_point) {
    if (!multihull::os::kFailpoints) GTEST_SKIP() << "this build has no kill points";
    for (const KillPoint point :
         {KillPoint::object_pinned, KillPoint::pins_queued, KillPoint::block_queued, KillPoint::put_slot_written,
          KillPoint::put_published, KillPoint::get_copied, KillPoint::get_taken, KillPoint::pins_taken,
          KillPoint::pin_dropped, KillPoint::pin_uncounted, KillPoint::object_ending, KillPoint::object_ended}) {
        for (std::uint32_t nth = 1; nth <= (GetParam() == multihull::StartMethod::spawn ? 2U : 8U); ++nth) {
            chaos::arm(point, nth);
            Process process(send_and_drop);
            process.start();
            if (!process.join(chaos::kForever)) chaos::hang(chaos::name_of(point));
            chaos::disarm();
            ASSERT_EQ(process.exitcode(), -SIGKILL) << chaos::name_of(point);
            expect_none(std::string(chaos::name_of(point)) + ", " + std::to_string(nth));
        }
    }
}

void put_for_ever(Queue<Named> queue) {
    for (std::size_t i = 0;; ++i) queue.put(named(kSizes[i % 2]));
}
void take_for_ever(Queue<Named> queue, Queue<int> failures) {
    for (;;) {
        try {
            queue.get().event.set();
        } catch (const multihull::Error&) {
            failures.put(1);
        }
    }
}

// What was put can be read, whoever dies: a pin that went twice, or too early, would have ended it.
TEST_P(UnreadHandlesElsewhere, outlive_putters_and_takers_that_die) {
    if (!multihull::os::kFailpoints) GTEST_SKIP() << "this build has no kill points";
    for (const KillPoint point :
         {KillPoint::object_pinned, KillPoint::pins_queued, KillPoint::block_queued, KillPoint::put_published,
          KillPoint::get_copied, KillPoint::get_taken, KillPoint::pins_taken, KillPoint::pin_uncounted}) {
        for (const std::uint32_t nth : {1U, 20U}) {
            Queue<Named> queue(5);
            Queue<int> failures;
            chaos::arm(point, nth);
            std::vector<Process> processes;
            for (int i = 0; i < 2; ++i) {
                processes.emplace_back(Process({.daemon = true}, put_for_ever, queue)).start();
                processes.emplace_back(Process({.daemon = true}, take_for_ever, queue, failures)).start();
            }
            const auto somebody_died = [&] {
                return std::ranges::any_of(processes, [](auto& process) { return process.exitcode() == -SIGKILL; });
            };
            if (!eventually(somebody_died)) chaos::hang(chaos::name_of(point));
            chaos::disarm();
            for (int i = 0; i < 20; ++i) {
                auto message = queue.try_get_for(chaos::kForever);
                ASSERT_TRUE(message) << chaos::name_of(point);
                message->event.set();
            }
            for (auto& process : processes) process.kill();
            for (auto& process : processes) process.join();
            while (auto message = queue.try_get()) message->event.set();
            EXPECT_TRUE(failures.empty()) << chaos::name_of(point);
            EXPECT_TRUE(eventually([&] { return more() == 2; })) << chaos::name_of(point) << ", " << more();
        }
    }
}

// Results.

Named result_of(std::size_t size) { return named(size); }
std::vector<Event> events(int count) { return std::vector<Event>(static_cast<std::size_t>(count)); }
Named first_fails(std::size_t size) {
    if (size == 1) throw std::runtime_error("it fails");
    return named(size);
}
Unreadable unreadable() { return {}; }
std::vector<std::size_t> many_sizes() {
    std::vector<std::size_t> sizes;
    for (std::size_t i = 0; i < 40; ++i) sizes.push_back(kSizes[i % 2]);
    return sizes;
}

TEST_P(UnreadHandlesElsewhere, of_results_end_with_their_future) {
    Pool pool(2);
    for (const std::size_t size : kSizes) {
        {
            auto future = pool.apply_async(result_of, size);
            ASSERT_TRUE(future.wait_for(chaos::kForever));
            EXPECT_EQ(more(), 1U);
        }
        expect_none("a future that was dropped");
        {
            auto future = pool.apply_async(result_of, size);
            future.get().event.set();
            EXPECT_TRUE(future.get().event.is_set());
            EXPECT_EQ(more(), 1U);
        }
        expect_none("a result that was read twice");
        for (int i = 0; i < 5; ++i) pool.apply_async(result_of, size);
        EXPECT_EQ(pool.apply(events, 7).size(), 7U);
        // The last of those that nobody waits for is forgotten with a later task.
        EXPECT_TRUE(eventually([&] { return pool.apply(events, 0).empty() && more() == 0; })) << more();
        EXPECT_THROW(pool.apply(unreadable), multihull::CodecError);
        expect_none("a result that can't be decoded");
    }
    pool.close();
    pool.join();
}

TEST_P(UnreadHandlesElsewhere, of_maps_end_with_them) {
    Pool pool(2);
    {
        auto future = pool.map_async(result_of, many_sizes());
        ASSERT_TRUE(future.wait_for(chaos::kForever));
        EXPECT_EQ(more(), 40U);
    }
    expect_none("a map that was dropped");
    {
        const auto results = pool.map(result_of, many_sizes());
        EXPECT_EQ(more(), 40U);
    }
    expect_none("a map that was read");
    auto sizes = many_sizes();
    sizes[20] = 1;
    EXPECT_THROW(pool.map(first_fails, sizes), std::runtime_error);
    expect_none("a map of which an input failed");
    {
        auto results = pool.imap(result_of, many_sizes());
        EXPECT_TRUE(results.next());
    }
    EXPECT_TRUE(eventually([&] { return pool.apply(events, 0).empty() && more() == 0; })) << more();
    pool.close();
    pool.join();
}

TEST_P(UnreadHandlesElsewhere, of_a_pool_end_with_it) {
    for (const bool terminate : {false, true}) {
        std::vector<multihull::Future<Named>> futures;
        std::optional<multihull::Future<std::vector<Named>>> map;
        {
            Pool pool(2);
            for (std::size_t i = 0; i < 30; ++i) futures.push_back(pool.apply_async(result_of, kSizes[i % 2]));
            map = pool.map_async(result_of, many_sizes());
            if (terminate) {
                ASSERT_TRUE(futures.front().wait_for(chaos::kForever));
                pool.terminate();
            } else {
                pool.close();
            }
            pool.join();
        }
        if (!terminate) {
            EXPECT_EQ(more(), 30U + 40U);
        }
        futures.clear();
        map.reset();
        expect_none("a pool that has ended");
    }
}

void work_and_die() {
    Pool pool(2);
    std::vector<multihull::Future<Named>> futures;
    for (std::size_t i = 0; i < 10; ++i) futures.push_back(pool.apply_async(result_of, kSizes[i % 2]));
    for (auto& future : futures) future.wait();
    ::kill(::getpid(), SIGKILL);
}

TEST_P(UnreadHandlesElsewhere, of_a_pool_end_with_its_process) {
    Process process(work_and_die);
    process.start();
    process.join();
    ASSERT_EQ(process.exitcode(), -SIGKILL);
    expect_none("a pool's process that was killed");
}

TEST_P(UnreadHandlesElsewhere, of_results_are_nobody_s_after_the_worker_s_death) {
    if (!multihull::os::kFailpoints) GTEST_SKIP() << "this build has no kill points";
    for (const unsigned retries : {0U, 3U}) {
        Pool pool({.processes = 2, .retries = retries, .retry_on = multihull::RetryOn::crash});
        for (const KillPoint point : {KillPoint::object_pinned, KillPoint::pins_published,
                                      KillPoint::task_result_written, KillPoint::task_done}) {
            for (const std::uint32_t nth : {1U, 2U, 9U}) {
                chaos::arm(point, nth);
                {
                    std::vector<multihull::Future<Named>> futures;
                    for (std::size_t i = 0; i < 10; ++i) futures.push_back(pool.apply_async(result_of, kSizes[i % 2]));
                    auto map = pool.map_async(result_of, many_sizes());
                    std::size_t lost = 0;
                    for (std::size_t i = 0; i < futures.size(); ++i) {
                        try {
                            if (i % 2 == 0) chaos::ended(futures[i], chaos::name_of(point)).get().event.set();
                        } catch (const multihull::WorkerCrashed&) {
                            ++lost;
                        }
                    }
                    try {
                        for (Named& result : chaos::ended(map, "a map").get()) result.event.set();
                    } catch (const multihull::WorkerCrashed&) {
                        ++lost;
                    }
                    EXPECT_LE(lost, retries == 0 ? 1U : 0U) << chaos::name_of(point);
                    for (auto& future : futures) chaos::ended(future, chaos::name_of(point));
                }
                chaos::disarm();
                EXPECT_TRUE(eventually([&] { return pool.apply(events, 0).empty() && more() == 0; }))
                    << chaos::name_of(point) << ", " << nth << ", " << retries << ": " << more();
            }
        }
        pool.close();
        pool.join();
    }
}

}    // namespace
