// Kills processes in the middle of using queues, locks, semaphores, conditions and barriers: at every named point of their
// protocols, and at random. The survivors go on: no hang, no torn, lost or repeated message, no permit and no memory lost.
#include "chaos/chaos.hpp"

#include <multihull/detail/queue_watch.hpp>
#include <multihull/process.hpp>
#include <multihull/queue.hpp>
#include <multihull/shared.hpp>
#include <multihull/sync.hpp>

#include "shm/objects.hpp"
#include "support/start_methods.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <csignal>
#include <memory>
#include <mutex>
#include <optional>
#include <random>
#include <semaphore>
#include <string>
#include <vector>

namespace {

using namespace std::chrono_literals;
using chaos::eventually;
using multihull::Process;
using multihull::os::KillPoint;

constexpr std::size_t kPutters = 3;
constexpr std::size_t kTakers = 3;
constexpr std::size_t kMost = 400000;    // messages of one putter

// Who put it, the how manieth of his it is, and a text that shows when it was torn.
struct Message {
    std::uint32_t putter = 0;
    std::uint32_t number = 0;
    std::string text;
};

std::string text_of(std::uint32_t putter, std::uint32_t number) {
    const std::size_t size = number % 23 == 0 ? 5000 + number % 3000 : number % 7 == 0 ? 700 : 40;
    return std::string(size, static_cast<char>('a' + (putter * 7 + number) % 26));
}

// What each process writes down where everybody sees it: how far it has come when it dies.
struct Ledger {
    std::array<std::atomic<std::uint32_t>, kPutters> begun;                        // puts that were begun
    std::array<std::atomic<std::uint32_t>, kPutters> done;                         // puts that returned
    std::array<std::array<std::atomic<std::uint8_t>, kMost>, kPutters> is_done;    // of each message: its put returned
    std::array<std::array<std::atomic<std::uint8_t>, kMost>, kPutters> seen;       // of each message: how often it came
    std::atomic<std::uint32_t> wrong;
};
// A shared value must be trivially copyable, which atomics are not.
struct alignas(64) LedgerBytes {
    std::array<std::byte, sizeof(Ledger)> bytes;
};
using SharedLedger = multihull::Value<LedgerBytes>;
Ledger& ledger_of(const SharedLedger& shared) { return *reinterpret_cast<Ledger*>(shared.value().bytes.data()); }

// Goes on as an event loop does: tries, and where there is nothing to be done has itself told when to try again.
class Watching {
public:
    using Side = multihull::detail::QueueWatch::Side;
    Watching(const multihull::Queue<Message>& queue, Side side) : watch_(queue.core(), side) {}

    template <class Try>
    void until(Try done) {
        while (!done()) {
            watch_.start([told = told_] { told->release(); });
            told_->acquire();
        }
    }

private:
    multihull::detail::QueueWatch watch_;
    std::shared_ptr<std::binary_semaphore> told_ = std::make_shared<std::binary_semaphore>(0);
};

void put_for_ever(multihull::Queue<Message> queue, SharedLedger shared, std::uint32_t putter, bool watches) {
    Ledger& ledger = ledger_of(shared);
    Watching room(queue, Watching::Side::put);
    try {
        for (;;) {
            const std::uint32_t number = ledger.begun[putter].fetch_add(1);
            if (number >= ledger.seen[0].size()) return;
            const Message message{putter, number, text_of(putter, number)};
            if (watches) {
                room.until([&] { return queue.try_put(message); });
            } else {
                queue.put(message);
            }
            ledger.is_done[putter][number].store(1);
            ledger.done[putter].fetch_add(1);
        }
    } catch (const multihull::QueueClosed&) {}
}

void take_for_ever(multihull::Queue<Message> queue, SharedLedger shared, bool watches) {
    Ledger& ledger = ledger_of(shared);
    std::array<std::int64_t, kPutters> last;
    last.fill(-1);
    Watching messages(queue, Watching::Side::get);
    std::optional<Message> message;
    try {
        for (;;) {
            if (watches) {
                messages.until([&] { return (message = queue.try_get()).has_value(); });
            } else {
                message = queue.get();
            }
            if (message->putter >= kPutters || message->text != text_of(message->putter, message->number) ||
                message->number <= last[message->putter] ||
                ledger.seen[message->putter][message->number].fetch_add(1) != 0) {
                ledger.wrong.fetch_add(1);
            }
            last[message->putter] = message->number;
        }
    } catch (const multihull::QueueClosed&) {}
}

class Stage {
public:
    /// Of the putters and the takers so many watch the queue; the others sleep in it.
    explicit Stage(std::size_t maxsize, std::size_t watching = 0) : queue_(maxsize), watching_(watching) {
        for (std::uint32_t i = 0; i < kPutters; ++i) putters_.push_back(new_putter(i));
        for (std::size_t i = 0; i < kTakers; ++i) takers_.push_back(new_taker(i));
    }

    // Replaces whoever has died; answers how many had.
    std::size_t replace_dead() {
        std::size_t dead = 0;
        for (std::uint32_t i = 0; i < kPutters; ++i) {
            if (putters_[i].exitcode() == -SIGKILL) {
                ++dead;
                putters_[i] = new_putter(i);
            }
        }
        return dead + replace_dead_takers();
    }
    void kill_one(std::mt19937& random) {
        const std::size_t victim = random() % (kPutters + kTakers);
        (victim < kPutters ? putters_[victim] : takers_[victim - kPutters]).kill();
    }
    std::uint64_t progress() const {
        std::uint64_t sum = 0;
        for (const auto& done : ledger().done) sum += done.load();
        return sum;
    }
    // A putter has put all that it may.
    bool is_over() const {
        return std::any_of(ledger().begun.begin(), ledger().begun.end(), [](auto& begun) { return begun >= kMost; });
    }

    // Lets everybody finish, and compares what was put with what came.
    void finish(const std::string& what) {
        for (auto& putter : putters_) putter.kill();
        for (auto& putter : putters_) putter.join();
        const auto drained = [&] { return replace_dead_takers(), queue_.empty(); };
        if (!eventually(drained)) chaos::hang(what + ": the queue is not drained");
        queue_.close();
        for (auto& taker : takers_) {
            if (!taker.join(chaos::kForever)) chaos::hang(what + ": a taker does not end");
        }
        EXPECT_EQ(ledger().wrong.load(), 0U) << what << ": torn, repeated or out of order";
        std::uint64_t lost = 0;
        for (std::size_t putter = 0; putter < kPutters; ++putter) {
            for (std::size_t number = 0; number < ledger().begun[putter].load() && number < kMost; ++number) {
                // What was not put completely may be there or not.
                if (ledger().seen[putter][number].load() == 0 && ledger().is_done[putter][number].load() != 0) ++lost;
            }
        }
        EXPECT_LE(lost, dead_takers_) << what << ": lost more than one with each taker that died";
    }

private:
    Ledger& ledger() const { return ledger_of(ledger_); }
    Process new_putter(std::uint32_t i) {
        Process process(put_for_ever, queue_, ledger_, i, i < watching_);
        process.start();
        return process;
    }
    Process new_taker(std::size_t i) {
        Process process(take_for_ever, queue_, ledger_, i < watching_);
        process.start();
        return process;
    }
    std::size_t replace_dead_takers() {
        std::size_t dead = 0;
        for (std::size_t i = 0; i < kTakers; ++i) {
            if (takers_[i].exitcode() == -SIGKILL) {
                ++dead;
                takers_[i] = new_taker(i);
            }
        }
        dead_takers_ += dead;
        return dead;
    }

    multihull::Queue<Message> queue_;
    std::size_t watching_;
    SharedLedger ledger_;
    std::vector<Process> putters_;
    std::vector<Process> takers_;
    std::size_t dead_takers_ = 0;
};

class SharedObjectChaos : public test::StartMethodTest {
protected:
    void SetUp() override {
        if (!multihull::os::kFailpoints && GetParam() == multihull::StartMethod::spawn)
            GTEST_SKIP() << "said in the others";
        test::StartMethodTest::SetUp();
        before_ = multihull::shm::count_objects();
    }
    void TearDown() override {
        chaos::disarm();
        EXPECT_TRUE(eventually([&] { return multihull::shm::count_objects() == before_; }))
            << multihull::shm::count_objects() << " objects, before " << before_;
        test::StartMethodTest::TearDown();
    }
    std::size_t before_ = 0;
};
INSTANTIATE_TEST_SUITE_P(EachStartMethod, SharedObjectChaos, test::each_start_method(), test::start_method_name);

// Somebody dies at the point, three times; answers how many did.
std::size_t die_at(KillPoint point, std::size_t maxsize, std::size_t watching) {
    Stage stage(maxsize, watching);
    const std::string what = std::string(chaos::name_of(point)) + ", maxsize " + std::to_string(maxsize);
    std::size_t deaths = 0;
    for (int round = 0; round < 3; ++round) {
        chaos::arm(point, point == KillPoint::ring_grown ? 1 : 20);
        const std::uint64_t before = stage.progress();
        std::size_t dead = 0;
        // Not every point is met by every run: many messages without a death are enough, too.
        if (!eventually([&] {
                dead += stage.replace_dead();
                return dead != 0 || stage.progress() > before + 5000 || stage.is_over();
            })) {
            chaos::hang(what);
        }
        chaos::disarm();
        deaths += dead;
        const std::uint64_t since = stage.progress();
        if (!eventually([&] { return stage.replace_dead(), stage.progress() > since + 100 || stage.is_over(); })) {
            chaos::hang(what + ": nothing moves after the death");
        }
    }
    stage.finish(what);
    return deaths;
}

TEST_P(SharedObjectChaos, a_queue_survives_a_death_at_each_point_of_its_protocol) {
    if (!multihull::os::kFailpoints) GTEST_SKIP() << "this build has no kill points";
    for (const KillPoint point :
         {KillPoint::lock_taken, KillPoint::lock_before_sleep, KillPoint::lock_released, KillPoint::waiter_enlisted,
          KillPoint::waiter_chosen, KillPoint::waiter_granted, KillPoint::put_slot_written, KillPoint::block_queued,
          KillPoint::put_published, KillPoint::put_before_wake, KillPoint::get_copied, KillPoint::get_taken,
          KillPoint::block_loaned, KillPoint::block_freed, KillPoint::block_queued, KillPoint::ring_grown}) {
        for (const std::size_t maxsize : {std::size_t{0}, std::size_t{3}}) die_at(point, maxsize, 0);
    }
}

TEST_P(SharedObjectChaos, a_queue_survives_the_death_of_those_who_watch_it) {
    if (!multihull::os::kFailpoints) GTEST_SKIP() << "this build has no kill points";
    if (GetParam() == multihull::StartMethod::spawn) GTEST_SKIP() << "that takes longer, and changes nothing here";
    for (const KillPoint point : {KillPoint::watch_woken, KillPoint::watch_told, KillPoint::watch_settled,
                                  KillPoint::waiter_enlisted, KillPoint::waiter_granted, KillPoint::get_copied}) {
        std::size_t deaths = 0;
        // All of them, so that nobody but the watchers' recovery can wake the others; and one beside those who sleep.
        for (const std::size_t watching : {kTakers, std::size_t{1}}) deaths += die_at(point, 3, watching);
        EXPECT_GT(deaths, 0U) << chaos::name_of(point);
    }
}

TEST_P(SharedObjectChaos, a_queue_survives_deaths_at_random) {
    std::mt19937 random(chaos::seed());
    const int rounds = chaos::rounds(GetParam() == multihull::StartMethod::spawn ? 20 : 100);
    for (const std::size_t maxsize : {std::size_t{0}, std::size_t{5}}) {
        Stage stage(maxsize, maxsize == 0 ? 0 : 2);
        for (int round = 0; round < rounds; ++round) {
            const std::uint64_t since = stage.progress();
            const std::uint64_t step = random() % 60;
            if (!eventually([&] { return stage.replace_dead(), stage.progress() > since + step || stage.is_over(); })) {
                chaos::hang("random deaths: nothing moves in round " + std::to_string(round));
            }
            stage.kill_one(random);
        }
        stage.finish("random deaths");
    }
}

struct Accounts {
    long left;
    long right;
};

// Moves money under the lock; a death in the middle leaves the sum wrong, which the next owner is told.
void transfer(multihull::Lock lock, multihull::Value<Accounts> accounts, multihull::BoundedSemaphore permits,
              multihull::Value<long> transfers) {
    for (;;) {
        const std::lock_guard permit(permits);
        if (lock.lock_checked() == multihull::LockState::owner_died) {
            accounts.value().right = -accounts.value().left;
            lock.mark_consistent();
        }
        if (accounts.value().left + accounts.value().right != 0) ::_exit(3);
        accounts.value().left += 1;
        accounts.value().right -= 1;
        lock.unlock();
        transfers.atomic().fetch_add(1);
    }
}

TEST_P(SharedObjectChaos, locks_and_permits_survive_deaths_at_random) {
    std::mt19937 random(chaos::seed());
    multihull::Lock lock;
    multihull::Value<Accounts> accounts({0, 0});
    multihull::BoundedSemaphore permits(2);
    multihull::Value<long> transfers(0);
    std::vector<Process> processes;
    const auto fresh = [&] {
        Process process(transfer, lock, accounts, permits, transfers);
        process.start();
        return process;
    };
    for (int i = 0; i < 4; ++i) processes.push_back(fresh());
    const int rounds = chaos::rounds(GetParam() == multihull::StartMethod::spawn ? 30 : 200);
    for (int round = 0; round < rounds; ++round) {
        const long since = transfers.atomic().load();
        const long step = static_cast<long>(random() % 200);
        if (!eventually([&] { return transfers.atomic().load() > since + step; })) chaos::hang("locks and permits");
        Process& victim = processes[random() % processes.size()];
        victim.kill();
        victim.join();
        ASSERT_EQ(victim.exitcode(), -SIGKILL);
        victim = fresh();
    }
    for (auto& process : processes) process.kill();
    for (auto& process : processes) process.join();
    EXPECT_EQ(permits.value(), 2U);
    EXPECT_NE(lock.lock_checked(), multihull::LockState::timed_out);
    lock.unlock();
}

TEST_P(SharedObjectChaos, permits_survive_a_death_at_each_point_of_their_protocol) {
    if (!multihull::os::kFailpoints) GTEST_SKIP() << "this build has no kill points";
    multihull::Lock lock;
    multihull::Value<Accounts> accounts({0, 0});
    multihull::BoundedSemaphore permits(2);
    multihull::Value<long> transfers(0);
    for (const KillPoint point : {KillPoint::permit_taken, KillPoint::permit_returned}) {
        for (int round = 0; round < 5; ++round) {
            std::vector<Process> processes;
            for (int i = 0; i < 3; ++i) processes.emplace_back(transfer, lock, accounts, permits, transfers).start();
            chaos::arm(point, 50);
            const auto somebody_died = [&] {
                return std::any_of(processes.begin(), processes.end(),
                                   [](const Process& process) { return process.exitcode() == -SIGKILL; });
            };
            if (!eventually(somebody_died)) chaos::hang(chaos::name_of(point));
            chaos::disarm();
            const long since = transfers.atomic().load();
            if (!eventually([&] { return transfers.atomic().load() > since + 100; }))
                chaos::hang(chaos::name_of(point));
            for (auto& process : processes) process.kill();
            for (auto& process : processes) process.join();
            ASSERT_EQ(permits.value(), 2U) << chaos::name_of(point);
        }
    }
}

void meet(multihull::Barrier barrier, multihull::Condition condition, multihull::Value<long> meetings) {
    for (;;) {
        try {
            barrier.wait();
            const std::lock_guard guard(condition);
            ++meetings.value();
            condition.notify_all();
        } catch (const multihull::BrokenBarrier&) {
            ::_exit(0);
        } catch (const multihull::OwnerDied& died) {
            died.mark_consistent();
        }
    }
}

TEST_P(SharedObjectChaos, nobody_waits_at_a_barrier_for_the_dead) {
    std::mt19937 random(chaos::seed());
    const int rounds = chaos::rounds(GetParam() == multihull::StartMethod::spawn ? 5 : 30);
    for (int round = 0; round < rounds; ++round) {
        multihull::Barrier barrier(3);
        multihull::Condition condition;
        multihull::Value<long> meetings(0);
        std::vector<Process> processes;
        for (int i = 0; i < 3; ++i) processes.emplace_back(meet, barrier, condition, meetings).start();
        const long wanted = static_cast<long>(random() % 50);
        {
            const std::lock_guard guard(condition);
            if (!condition.wait_for([&] { return meetings.value() > wanted; }, chaos::kForever))
                chaos::hang("a barrier");
        }
        processes[random() % 3].kill();
        for (auto& process : processes) {
            if (!process.join(chaos::kForever)) chaos::hang("a party of a dead one");
        }
    }
}

TEST_P(SharedObjectChaos, nobody_waits_at_a_barrier_for_one_who_died_at_a_point_of_its_protocol) {
    if (!multihull::os::kFailpoints) GTEST_SKIP() << "this build has no kill points";
    for (const KillPoint point : {KillPoint::barrier_arrived, KillPoint::barrier_tripped, KillPoint::waiter_enlisted,
                                  KillPoint::waiter_chosen, KillPoint::waiter_granted}) {
        for (std::uint32_t nth = 1; nth <= 4; ++nth) {
            multihull::Barrier barrier(3);
            multihull::Condition condition;
            multihull::Value<long> meetings(0);
            std::vector<Process> processes;
            for (int i = 0; i < 3; ++i) processes.emplace_back(meet, barrier, condition, meetings).start();
            chaos::arm(point, nth);
            for (auto& process : processes) {
                if (!process.join(chaos::kForever)) chaos::hang(chaos::name_of(point));
            }
            chaos::disarm();
            EXPECT_EQ(std::count_if(processes.begin(), processes.end(),
                                    [](const Process& process) { return process.exitcode() == -SIGKILL; }),
                      1)
                << chaos::name_of(point) << ", " << nth;
        }
    }
}

void make_and_end_objects() {
    for (;;) {
        const multihull::Lock small;
        const multihull::Semaphore large(1);
        const multihull::Array<int> with_extents(1 << 20);
    }
}

TEST_P(SharedObjectChaos, an_object_half_made_or_half_ended_is_nobodys) {
    if (!multihull::os::kFailpoints) GTEST_SKIP() << "this build has no kill points";
    for (const KillPoint point :
         {KillPoint::object_claimed, KillPoint::object_referred, KillPoint::object_ending, KillPoint::object_ended}) {
        for (std::uint32_t nth = 1; nth <= 6; ++nth) {
            chaos::arm(point, nth);
            Process process(make_and_end_objects);
            process.start();
            if (!process.join(chaos::kForever)) chaos::hang(chaos::name_of(point));
            chaos::disarm();
            ASSERT_EQ(process.exitcode(), -SIGKILL) << chaos::name_of(point);
            ASSERT_TRUE(eventually([&] { return multihull::shm::count_objects() == before_; }))
                << chaos::name_of(point) << ", " << nth;
        }
    }
}

}    // namespace
