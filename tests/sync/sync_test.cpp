// What Lock, RLock, Semaphore, Condition, Event and Barrier do between processes, under every start method, also when a process
// dies with them in its hands.
#include <multihull/pool.hpp>
#include <multihull/process.hpp>
#include <multihull/shared.hpp>
#include <multihull/sync.hpp>

#include "shm/objects.hpp"
#include "support/board.hpp"
#include "support/start_methods.hpp"

#include <gtest/gtest.h>

#include <csignal>
#include <mutex>
#include <thread>
#include <vector>

namespace {

using namespace std::chrono_literals;
using multihull::Process;

class SyncTest : public test::StartMethodTest {
protected:
    std::size_t before_ = multihull::shm::count_objects();
    void TearDown() override {
        // What a test made is gone with its handles.
        EXPECT_TRUE(test::eventually([&] { return multihull::shm::count_objects() == before_; }));
        test::StartMethodTest::TearDown();
    }
};
INSTANTIATE_TEST_SUITE_P(EachStartMethod, SyncTest, test::each_start_method(), test::start_method_name);

[[noreturn]] void die() {
    ::kill(::getpid(), SIGKILL);
    std::abort();
}

void increment(multihull::Value<int> counter, multihull::Lock lock, int times) {
    for (int i = 0; i < times; ++i) {
        const std::lock_guard guard(lock);
        counter.value() += 1;
    }
}

TEST_P(SyncTest, a_lock_lets_one_process_in_at_a_time) {
    multihull::Value<int> counter(0);
    multihull::Lock lock;
    {
        std::vector<Process> processes;
        for (int i = 0; i < 4; ++i) processes.emplace_back(increment, counter, lock, 20000).start();
    }
    EXPECT_EQ(counter.value(), 80000);
}

TEST_P(SyncTest, a_lock_travels_to_tasks_of_a_pool_and_back) {
    multihull::Value<int> counter(0);
    multihull::Lock lock;
    multihull::Pool pool({.processes = 2});
    std::vector<multihull::Future<void>> futures;
    for (int i = 0; i < 20; ++i) futures.push_back(pool.apply_async(increment, counter, lock, 100));
    for (auto& future : futures) future.get();
    EXPECT_EQ(counter.value(), 2000);

    auto made = pool.apply_async(+[] { return multihull::Value<int>(7); });
    EXPECT_EQ(made.get().value(), 7);
    EXPECT_EQ(made.get().value(), 7);
    pool.close();
    pool.join();
}

void die_with(multihull::Lock lock) {
    lock.lock();
    die();
}

TEST_P(SyncTest, whoever_takes_a_dead_owners_lock_is_told_until_the_data_is_whole) {
    multihull::Lock lock;
    Process victim(die_with, lock);
    victim.start();
    victim.join();
    EXPECT_EQ(victim.exitcode(), -SIGKILL);
    EXPECT_THROW(std::lock_guard guard(lock), multihull::OwnerDied);
    EXPECT_FALSE(lock.is_owned());
    EXPECT_EQ(lock.lock_checked(), multihull::LockState::owner_died);
    lock.unlock();
    try {
        const std::lock_guard guard(lock);
        ADD_FAILURE() << "nobody has said that the data is whole";
    } catch (const multihull::OwnerDied& died) {
        EXPECT_TRUE(lock.is_owned());
        died.mark_consistent();
    }
    EXPECT_EQ(lock.lock_checked(), multihull::LockState::acquired);
    lock.unlock();
}

void die_with_when_told(multihull::Lock lock, multihull::Event held, multihull::Event go) {
    lock.lock();
    held.set();
    go.wait();
    die();
}

TEST_P(SyncTest, who_waits_for_a_lock_gets_it_when_its_owner_dies) {
    multihull::Lock lock;
    multihull::Event held, go;
    Process victim(die_with_when_told, lock, held, go);
    victim.start();
    held.wait();
    EXPECT_FALSE(lock.try_lock());
    EXPECT_FALSE(lock.try_lock_for(1ms));
    std::thread killer([&] { go.set(); });
    EXPECT_EQ(lock.lock_checked(), multihull::LockState::owner_died);
    lock.mark_consistent();
    lock.unlock();
    killer.join();
    victim.join();
}

TEST(Lock, is_given_back_by_its_owner_only) {
    multihull::Lock lock;
    EXPECT_THROW(lock.unlock(), multihull::SyncError);
    EXPECT_THROW(lock.mark_consistent(), multihull::SyncError);
    lock.lock();
    EXPECT_THROW(lock.lock(), multihull::SyncError);
    EXPECT_FALSE(lock.try_lock());
    std::thread([&] { EXPECT_THROW(lock.unlock(), multihull::SyncError); }).join();
    lock.unlock();
    multihull::RLock other;
    const std::scoped_lock both(lock, other);
    EXPECT_TRUE(lock.is_owned() && other.is_owned());
}

TEST(RLock, is_taken_and_given_back_as_often) {
    multihull::RLock lock;
    lock.lock();
    EXPECT_TRUE(lock.try_lock());
    EXPECT_TRUE(lock.acquire(1s));
    lock.unlock();
    lock.unlock();
    std::thread([&] { EXPECT_FALSE(lock.try_lock()); }).join();
    lock.unlock();
    std::thread([&] {
        EXPECT_TRUE(lock.try_lock());
        lock.unlock();
    }).join();
    EXPECT_THROW(lock.unlock(), multihull::SyncError);
}

void hold_permit(multihull::BoundedSemaphore semaphore, multihull::Event held, multihull::Event go) {
    semaphore.acquire();
    held.set();
    go.wait();
    die();
}

TEST_P(SyncTest, permits_of_the_dead_come_back) {
    multihull::BoundedSemaphore semaphore(2);
    multihull::Event held, go;
    Process victim(hold_permit, semaphore, held, go);
    victim.start();
    held.wait();
    EXPECT_EQ(semaphore.value(), 1U);
    semaphore.acquire();
    EXPECT_FALSE(semaphore.try_acquire());
    EXPECT_FALSE(semaphore.acquire(2ms));
    std::thread killer([&] { go.set(); });
    semaphore.acquire();
    killer.join();
    victim.join();
    semaphore.release(2);
    EXPECT_THROW(semaphore.release(), multihull::SyncError);
    EXPECT_EQ(semaphore.value(), 2U);
}

TEST(Semaphore, counts_what_is_released_by_those_who_hold_nothing) {
    multihull::Semaphore semaphore(0);
    semaphore.release(3);
    EXPECT_EQ(semaphore.value(), 3U);
    EXPECT_TRUE(semaphore.consume());
    EXPECT_EQ(semaphore.value(), 2U);
    EXPECT_TRUE(semaphore.try_acquire_for(1s));
    semaphore.release();
    EXPECT_EQ(semaphore.value(), 2U);
}

void wait_for(multihull::Condition condition, multihull::Value<int> waiting, multihull::Value<int> turn,
              multihull::Value<int> done) {
    std::unique_lock guard(condition);
    ++waiting.value();
    condition.notify_all();
    condition.wait_for([&] { return turn.value() != 0; });
    ++done.value();
}

TEST_P(SyncTest, a_condition_wakes_those_who_wait) {
    multihull::Condition condition;
    multihull::Value<int> waiting(0), turn(0), done(0);
    {
        std::vector<Process> processes;
        for (int i = 0; i < 3; ++i) processes.emplace_back(wait_for, condition, waiting, turn, done).start();
        std::unique_lock guard(condition);
        condition.wait_for([&] { return waiting.value() == 3; });
        turn.value() = 1;
        condition.notify_all();
    }
    EXPECT_EQ(done.value(), 3);
}

TEST(Condition, needs_its_lock) {
    multihull::Lock lock;
    multihull::Condition condition(lock);
    EXPECT_THROW(condition.notify(), multihull::SyncError);
    EXPECT_THROW(condition.wait(1ms), multihull::SyncError);
    const std::lock_guard guard(lock);
    EXPECT_FALSE(condition.wait(1ms));
    EXPECT_TRUE(lock.is_owned());
    EXPECT_FALSE(condition.wait_for([] { return false; }, 1ms));
}

TEST(Condition, gives_up_an_rlock_that_was_taken_twice) {
    multihull::Condition condition;
    multihull::Value<int> ready(0);
    condition.lock();
    condition.lock();
    std::thread other([&] {
        const std::lock_guard guard(condition);
        ready.value() = 1;
        condition.notify();
    });
    condition.wait_for([&] { return ready.value() == 1; });
    condition.unlock();
    condition.unlock();
    EXPECT_THROW(condition.unlock(), multihull::SyncError);
    other.join();
}

void wait_and_die(multihull::Condition condition, multihull::Value<int> waiting, multihull::Value<int> flag) {
    condition.lock();
    ++waiting.value();
    condition.notify_all();
    condition.wait_for([&] { return flag.value() != 0; });
    condition.unlock();
    die();    // without passing the wake-up on
}
void wait_and_tell(multihull::Condition condition, multihull::Value<int> waiting, multihull::Value<int> flag) {
    const std::lock_guard guard(condition);
    ++waiting.value();
    condition.notify_all();
    condition.wait_for([&] { return flag.value() != 0; });
}

TEST_P(SyncTest, a_wake_up_is_not_lost_with_a_dead_waiter) {
    multihull::Condition condition;
    multihull::Value<int> waiting(0), flag(0);
    Process victim(wait_and_die, condition, waiting, flag);
    Process other(wait_and_tell, condition, waiting, flag);
    victim.start();
    other.start();
    {
        const std::lock_guard guard(condition);
        condition.wait_for([&] { return waiting.value() == 2; });
        flag.value() = 1;
        condition.notify(1);    // whichever gets it
    }
    // Where it was the victim, nobody notifies the other, whom only the recovery wakes; and the other way round.
    while (!victim.join(1ms) && !other.join(1ms)) {}
    if (other.exitcode() == 0) {
        const std::lock_guard guard(condition);
        condition.notify_all();
    }
    other.join();
    victim.join();
    EXPECT_EQ(other.exitcode(), 0);
    EXPECT_EQ(victim.exitcode(), -SIGKILL);
}

void pass(multihull::Barrier barrier, multihull::Value<int> sum, int rounds) {
    for (int i = 0; i < rounds; ++i) sum.atomic().fetch_add(static_cast<int>(barrier.wait()));
}

TEST_P(SyncTest, a_barrier_opens_when_all_are_there) {
    multihull::Barrier barrier(3);
    multihull::Value<int> sum(0);
    {
        std::vector<Process> processes;
        for (int i = 0; i < 3; ++i) processes.emplace_back(pass, barrier, sum, 20).start();
    }
    EXPECT_EQ(sum.value(), 20 * (0 + 1 + 2));
    EXPECT_FALSE(barrier.broken());
}

void come_and_die(multihull::Barrier) { die(); }
void wait_to_be_killed(multihull::Barrier barrier) { barrier.wait(); }

TEST_P(SyncTest, a_barrier_breaks_when_a_party_dies) {
    multihull::Barrier barrier(2);
    Process early(come_and_die, barrier);
    early.start();
    EXPECT_THROW(barrier.wait(), multihull::BrokenBarrier);
    early.join();
    barrier.reset();
    EXPECT_FALSE(barrier.broken());

    multihull::Barrier three(3);
    Process waiting(wait_to_be_killed, three);
    waiting.start();
    EXPECT_TRUE(test::eventually([&] { return three.n_waiting() == 1; }));
    waiting.kill();
    EXPECT_THROW(three.wait(), multihull::BrokenBarrier);
}

TEST(Barrier, breaks_when_one_gives_up_and_is_whole_after_reset) {
    multihull::Barrier barrier(2);
    EXPECT_THROW(barrier.wait(1ms), multihull::BrokenBarrier);
    EXPECT_TRUE(barrier.broken());
    EXPECT_THROW(barrier.wait(), multihull::BrokenBarrier);
    barrier.reset();
    std::thread other([&] { barrier.wait(); });
    barrier.wait();
    other.join();
    EXPECT_THROW(multihull::Barrier(0), std::invalid_argument);
    std::thread waits([&] { EXPECT_THROW(barrier.wait(), multihull::BrokenBarrier); });
    EXPECT_TRUE(test::eventually([&] { return barrier.n_waiting() == 1; }));
    barrier.reset();
    waits.join();
}

void set_event(multihull::Event event) { event.set(); }

TEST_P(SyncTest, an_event_lets_everybody_go_on) {
    multihull::Event event;
    EXPECT_FALSE(event.is_set());
    EXPECT_FALSE(event.wait(1ms));
    Process process(set_event, event);
    process.start();
    event.wait();
    EXPECT_TRUE(event.is_set());
    event.clear();
    EXPECT_FALSE(event.wait(0ms));
}

TEST_P(SyncTest, an_object_lives_until_its_last_handle_and_no_longer) {
    const std::size_t before = multihull::shm::count_objects();
    {
        multihull::Event event;
        multihull::Lock lock;
        multihull::Lock copy = lock;
        EXPECT_EQ(multihull::shm::count_objects(), before + 2);
        Process process(set_event, event);
        process.start();
    }
    EXPECT_EQ(multihull::shm::count_objects(), before);
}

void change(multihull::Value<double> number, multihull::Array<int> array) {
    number.value() = 3.5;
    for (int& x : array) x = -x;
}

TEST_P(SyncTest, values_and_arrays_are_changed_in_place) {
    multihull::Value<double> number(0.0);
    multihull::Array<int> array(std::views::iota(0, 10));
    multihull::Array<int> large(std::size_t{1} << 20, 3);
    Process(change, number, array).start().join();
    Process(change, number, large).start().join();
    EXPECT_EQ(number.value(), 3.5);
    for (int i = 0; i < 10; ++i) EXPECT_EQ(array.at(static_cast<std::size_t>(i)), -i);
    EXPECT_THROW(array.at(10), std::out_of_range);
    for (int x : large) ASSERT_EQ(x, -3);
    EXPECT_EQ(large.span().size(), std::size_t{1} << 20);
}

TEST(Value, has_a_lock_of_its_own_and_atomics) {
    struct Pair {
        int first;
        double second;
    };
    multihull::Value<Pair> pair({1, 2.5});
    EXPECT_EQ(pair.get().second, 2.5);
    pair.set({2, 3.5});
    EXPECT_EQ(pair.value().first, 2);
    multihull::Value<long> number(1);
    number.atomic().fetch_add(4);
    const std::lock_guard guard(number);
    EXPECT_TRUE(number.get_lock().is_owned());
    EXPECT_EQ(number.value(), 5);
    struct Big {
        std::array<int, 100000> numbers;
    };
    multihull::Value<Big> big;
    EXPECT_EQ(big.value().numbers[99999], 0);
}

multihull::Lock& global_lock() {
    static multihull::Lock lock;
    return lock;
}

TEST(Lock, that_is_global_is_known_to_forked_children) {
    multihull::Lock& lock = global_lock();
    const std::lock_guard guard(lock);
    Process child(
        {.start_method = multihull::StartMethod::fork}, +[] {
            if (global_lock().try_lock_for(1ms)) ::_exit(3);
        });
    child.start();
    child.join();
    EXPECT_EQ(child.exitcode(), 0);
}

}    // namespace
