// Workers killed at random instants, thousands of them, while several threads give every kind of work: nothing hangs, and no task
// is lost, run twice, or given another's outcome.
#include "chaos/chaos.hpp"

#include <algorithm>
#include <mutex>
#include <set>

namespace chaos {
namespace {

constexpr std::uint32_t kBatch = 24;

// Kills workers of the only pool until it is told to stop.
class Killer {
public:
    explicit Killer(std::size_t workers, std::chrono::microseconds longest_pause)
        : workers_(workers), pause_(longest_pause), thread_([this] { run(); }) {}
    ~Killer() {
        stop_ = true;
        thread_.join();
    }
    int kills() const { return kills_; }

private:
    void run() {
        std::mt19937 random(seed());
        const auto home = only_home();
        while (!stop_) {
            std::this_thread::sleep_for(std::chrono::microseconds(random() % static_cast<unsigned>(pause_.count())));
            auto& victim = home.workers[random() % workers_];
            const auto pid = static_cast<pid_t>(victim.pid.load());
            // One that has begun its work: five in a row that never do would rightly break the pool.
            if (victim.phase.load() != mh::detail::WorkerSlot::ready || !is_worker(pid)) continue;
            if (::kill(pid, SIGKILL) == 0) ++kills_;
        }
    }

    const std::size_t workers_;
    const std::chrono::microseconds pause_;
    std::atomic<bool> stop_{false};
    std::atomic<int> kills_{0};
    std::thread thread_;
};

struct Tally {
    std::atomic<int> values{0};
    std::atomic<int> crashes{0};
};

// 0 where it was killed before it began, else 1; with a value always 1.
void check_count(const Counts& counts, std::uint32_t i, bool has_value) {
    if (has_value) {
        EXPECT_EQ(counts[i], 1U) << "input " << i << ", seed " << seed();
    } else {
        EXPECT_LE(counts[i], 1U) << "input " << i << ", seed " << seed();
    }
}

template <class T, class Expected>
void expect_outcome(const mh::Future<T>& future, const Counts& counts, std::uint32_t i, const Expected& expected,
                    Tally& tally) {
    ended(future, "a task under random kills");
    bool has_value = true;
    try {
        EXPECT_EQ(future.get(), expected);
        ++tally.values;
    } catch (const mh::WorkerCrashed& crash) {
        EXPECT_EQ(crash.signal(), SIGKILL);
        has_value = false;
        ++tally.crashes;
    }
    check_count(counts, i, has_value);
}

void singles(mh::Pool& pool, std::mt19937& random, Tally& tally) {
    Counts counts(kBatch);
    std::vector<mh::Future<std::string>> futures;
    std::vector<std::uint32_t> sizes;
    for (std::uint32_t i = 0; i < kBatch; ++i) {
        sizes.push_back(static_cast<std::uint32_t>(random() % 4 == 0 ? random() % 100000 : random() % 40));
        futures.push_back(pool.apply_async(run_big, Job{counts.offset(), i, sizes.back()}));
    }
    for (std::uint32_t i = 0; i < kBatch; ++i) expect_outcome(futures[i], counts, i, text_of(i, sizes[i]), tally);
}

void continuations(mh::Pool& pool, std::mt19937&, Tally& tally) {
    Counts counts(kBatch);
    std::atomic<std::uint32_t> called{0};
    std::vector<mh::Future<int>> futures;
    for (std::uint32_t i = 0; i < kBatch; ++i) {
        const auto task = pool.apply_async(run_small, Job{counts.offset(), i, 0});
        task.add_done_callback([&called](const auto&) { ++called; });
        futures.push_back(task.then([](int x) { return -x; }));
    }
    for (std::uint32_t i = 0; i < kBatch; ++i) {
        expect_outcome(futures[i], counts, i, -static_cast<int>(i * 3 + 1), tally);
    }
    if (!eventually([&] { return called.load() == kBatch; })) hang("a callback under random kills");
}

void map(mh::Pool& pool, std::mt19937& random, Tally& tally) {
    const auto count = static_cast<std::uint32_t>(1 + random() % 600);
    Counts counts(count);
    std::vector<Job> inputs;
    for (std::uint32_t i = 0; i < count; ++i) inputs.push_back({counts.offset(), i, i % 300});
    mh::TaskOptions options{.chunksize = random() % 3 == 0 ? 1 + random() % 50 : 0};
    if (random() % 2 == 0) options.timeout = 300s;
    std::set<std::uint32_t> crashed;
    if (random() % 2 == 0) {
        const auto future = pool.map_async(run_small, inputs, options);
        ended(future, "a map under random kills");
        try {
            const auto values = future.get();
            for (std::uint32_t i = 0; i < count; ++i) EXPECT_EQ(values[i], static_cast<int>(i) * 3 + 1);
            ++tally.values;
        } catch (const mh::WorkerCrashed& crash) {
            // Only the first element that was lost is named; others may have been killed before they began.
            EXPECT_TRUE(crash.report().map_index.has_value());
            ++tally.crashes;
            for (std::uint32_t i = 0; i < count; ++i) {
                if (counts[i] == 0) crashed.insert(i);
            }
            EXPECT_LE(crashed.size(), 50U);
        }
    } else {
        std::uint32_t index = 0;
        options.chunksize = std::max<std::size_t>(options.chunksize, 1);
        auto results = pool.imap(run_big, inputs, options);
        for (auto it = results.begin(); it != results.end(); ++it, ++index) {
            try {
                EXPECT_EQ(*it, text_of(index, index % 300));
                ++tally.values;
            } catch (const mh::WorkerCrashed&) {
                crashed.insert(index);
                ++tally.crashes;
            }
        }
        EXPECT_EQ(index, count);
    }
    for (std::uint32_t i = 0; i < count; ++i) check_count(counts, i, !crashed.contains(i));
}

// With enough attempts every task has its value, whoever died on the way.
void retried(mh::Pool& pool, std::mt19937&, Tally& tally) {
    Counts counts(kBatch);
    std::vector<mh::Future<int>> futures;
    const mh::TaskOptions options{.retries = 1000};
    for (std::uint32_t i = 0; i < kBatch; ++i) {
        futures.push_back(pool.apply_async(options, run_small, Job{counts.offset(), i, 0}));
    }
    for (std::uint32_t i = 0; i < kBatch; ++i) {
        ended(futures[i], "a retried task under random kills");
        EXPECT_EQ(futures[i].get(), static_cast<int>(i) * 3 + 1);
        EXPECT_GE(counts[i], 1U);
        ++tally.values;
    }
}

// Futures that are dropped or cancelled end without anybody looking; what was not cancelled runs at most once.
void abandoned(mh::Pool& pool, std::mt19937& random, Tally&) {
    Counts counts(kBatch);
    std::vector<mh::Future<std::string>> kept;
    for (std::uint32_t i = 0; i < kBatch; ++i) {
        auto future = pool.apply_async(run_big, Job{counts.offset(), i, static_cast<std::uint32_t>(random() % 9000)});
        if (random() % 3 == 0) future.cancel();
        if (random() % 2 == 0) future.add_done_callback([](const auto&) {});
        kept.push_back(std::move(future));
        if (random() % 2 == 0) {
            // Looked at by nobody, but `counts` must outlive the task.
            auto other = pool.apply_async(ping, 1);
        }
    }
    std::size_t n = 0;
    for (auto& result : pool.imap_unordered(ping, std::vector<int>(40, 7), {.retries = 1000})) {
        EXPECT_EQ(result, 8);
        if (++n == 9) break;
    }
    for (std::uint32_t i = 0; i < kBatch; ++i) {
        ended(kept[i], "a cancelled task under random kills");
        EXPECT_LE(counts[i], 1U);
    }
}

class RandomKills : public ::testing::TestWithParam<mh::StartMethod> {};

TEST_P(RandomKills, LoseOnlyWhatWasRunning) {
    const NothingLeft nothing_left;
    Tally tally;
    const int wanted = rounds(500);
    {
        constexpr std::size_t kWorkers = 3;
        mh::Pool pool({.processes = kWorkers,
                       .max_tasks_per_child = seed() % 2 == 0 ? 0U : 50U,
                       .start_method = GetParam(),
                       .trace = true,
                       .trace_capacity = 1024});
        pool.apply(mh::TaskOptions{.retries = 100}, ping, 1);
        Killer killer(kWorkers, 4000us);
        std::vector<std::thread> threads;
        std::atomic<bool> stop{false};
        std::mutex failure_mutex;
        std::string failure;
        for (unsigned t = 0; t < 3; ++t) {
            threads.emplace_back([&, t] {
                std::mt19937 random(seed() + t);
                try {
                    while (!stop) {
                        switch (random() % 6) {
                            case 0:
                                continuations(pool, random, tally);
                                break;
                            case 1:
                                retried(pool, random, tally);
                                break;
                            case 2:
                                abandoned(pool, random, tally);
                                break;
                            case 3:
                            case 4:
                                map(pool, random, tally);
                                break;
                            default:
                                singles(pool, random, tally);
                        }
                    }
                } catch (const std::exception& error) {
                    const std::lock_guard guard(failure_mutex);
                    failure = error.what();
                    stop = true;
                }
            });
        }
        const auto end = std::chrono::steady_clock::now() + kForever + std::chrono::milliseconds(wanted * 20);
        while (!stop && killer.kills() < wanted && std::chrono::steady_clock::now() < end)
            std::this_thread::sleep_for(1ms);
        for (const auto& event : pool.trace().events) EXPECT_LE(event.started, event.ended);
        stop = true;
        for (auto& thread : threads) thread.join();
        EXPECT_EQ(failure, "") << "seed " << seed();
        EXPECT_GE(killer.kills(), wanted);
    }
    EXPECT_GT(tally.values.load(), 0);
    EXPECT_GT(tally.crashes.load(), 0);
    ::testing::Test::RecordProperty("values", tally.values.load());
    ::testing::Test::RecordProperty("crashes", tally.crashes.load());
}

// Pools that end in every way while their workers are born, work and die.
TEST_P(RandomKills, PoolsEndAtAnyInstant) {
    const NothingLeft nothing_left;
    std::mt19937 random(seed());
    for (int round = 0; round < rounds(120); ++round) {
        std::vector<mh::Future<int>> futures;
        mh::Future<std::vector<int>> mapped;
        try {
            mh::Pool pool({.processes = 1 + random() % 4,
                           .max_tasks_per_child = random() % 3,
                           .start_method = GetParam()});
            for (int i = 0; i < 10; ++i) futures.push_back(pool.apply_async(ping, i));
            for (int i = 0; i < 5; ++i) futures[static_cast<std::size_t>(i)].add_done_callback([](const auto&) {});
            if (random() % 2 == 0) mapped = pool.map_async(ping, std::views::iota(0, 3000));
            if (random() % 2 == 0) std::this_thread::sleep_for(std::chrono::microseconds(random() % 5000));
            const auto home = only_home();
            if (random() % 2 == 0) {
                const auto pid = static_cast<pid_t>(home.workers[0].pid.load());
                if (is_worker(pid)) ::kill(pid, SIGKILL);
            }
            switch (random() % 4) {
                case 0:
                    pool.terminate();
                    // Ended without join().
                    for (const auto& future : futures) ended(future, "a task of a terminated pool");
                    break;
                case 1:
                    throw std::runtime_error("leave by an exception");
                case 2:
                    if (mapped.valid()) mapped.cancel();
                    break;
                default:
                    break;
            }
        } catch (const std::runtime_error& error) {
            EXPECT_EQ(std::string(error.what()), "leave by an exception");
        }
        for (std::size_t i = 0; i < futures.size(); ++i) {
            ASSERT_TRUE(futures[i].ready());
            try {
                EXPECT_EQ(futures[i].get(), static_cast<int>(i) + 1);
            } catch (const mh::WorkerCrashed&) {
            } catch (const mh::Cancelled&) {}
        }
        if (!mapped.valid()) continue;
        ASSERT_TRUE(mapped.ready());
        try {
            const auto values = mapped.get();
            for (std::size_t i = 0; i < values.size(); ++i) ASSERT_EQ(values[i], static_cast<int>(i) + 1);
        } catch (const mh::WorkerCrashed&) {
        } catch (const mh::Cancelled&) {}
    }
}

INSTANTIATE_TEST_SUITE_P(By, RandomKills,
                         ::testing::Values(mh::StartMethod::fork, mh::StartMethod::forkserver, mh::StartMethod::spawn),
                         [](const auto& param) { return name_of(param.param); });

}    // namespace
}    // namespace chaos
