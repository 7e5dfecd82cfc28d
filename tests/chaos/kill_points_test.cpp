// A worker, then a zygote, killed at each named place, under each kind of work: every future ends, with its value or with the
// account of exactly the task that was running; every task is run once; the pool works on; nothing is left.
#include "chaos/chaos.hpp"

#include <algorithm>
#include <numeric>
#include <ranges>
#include <set>

namespace chaos {
namespace {

constexpr std::uint32_t kTasks = 48;
constexpr std::uint32_t kElements = 400;

// Where a worker holds a task, or an element of a map, that its death is blamed on.
bool holds_task(KillPoint point) {
    switch (point) {
        case KillPoint::task_taken:
        case KillPoint::task_head_advanced:
        case KillPoint::task_before_run:
        case KillPoint::task_after_run:
        case KillPoint::task_result_written:
        case KillPoint::block_allocated:
        case KillPoint::extent_claimed:
        case KillPoint::trace_begun:
        case KillPoint::trace_written:
            return true;
        default:
            return false;
    }
}

bool may_hold_element(KillPoint point) {
    switch (point) {
        case KillPoint::element_started:
        case KillPoint::element_stored:
        case KillPoint::block_allocated:
        case KillPoint::extent_claimed:
        case KillPoint::trace_begun:
        case KillPoint::trace_written:
            return true;
        default:
            return false;
    }
}

struct Blame {
    std::set<std::uint32_t> crashed;

    // The value where there is one; notes a crash.
    template <class Get>
    void look(std::uint32_t index, Get get) {
        try {
            get();
        } catch (const mh::WorkerCrashed& crash) {
            EXPECT_EQ(crash.signal(), SIGKILL);
            EXPECT_TRUE(crashed.insert(index).second);
        }
    }
    // Without retries everything runs once, except that what was held may not have been begun.
    void expect_run_once(const Counts& counts, std::uint32_t count) const {
        for (std::uint32_t i = 0; i < count; ++i) {
            if (crashed.contains(i)) {
                EXPECT_LE(counts[i], 1U) << i;
            } else {
                EXPECT_EQ(counts[i], 1U) << i;
            }
        }
    }
};

std::uint32_t size_of(std::uint32_t index) { return index % 3 == 0 ? 8 : 300 + index * 997; }

void singles(mh::Pool& pool, KillPoint point) {
    Counts counts(kTasks);
    std::vector<mh::Future<std::string>> futures;
    for (std::uint32_t i = 0; i < kTasks; ++i) {
        futures.push_back(pool.apply_async(run_big, Job{counts.offset(), i, size_of(i)}));
    }
    Blame blame;
    for (std::uint32_t i = 0; i < kTasks; ++i) {
        ended(futures[i], "a single task");
        blame.look(i, [&] { EXPECT_EQ(futures[i].get(), text_of(i, size_of(i))); });
    }
    blame.expect_run_once(counts, kTasks);
    EXPECT_LE(blame.crashed.size(), holds_task(point) ? 1U : 0U);
}

void callbacks(mh::Pool& pool, KillPoint point) {
    Counts counts(kTasks);
    std::atomic<std::uint32_t> called{0};
    std::vector<mh::Future<int>> futures;
    for (std::uint32_t i = 0; i < kTasks; ++i) {
        futures.push_back(pool.apply_async(run_small, Job{counts.offset(), i, 0}));
        futures.back().add_done_callback([&](const mh::Future<int>& future) {
            EXPECT_TRUE(future.ready());
            ++called;
        });
    }
    std::vector<mh::Future<int>> next;
    for (auto& future : futures) next.push_back(future.then([](int x) { return x * 2; }));
    Blame blame;
    for (std::uint32_t i = 0; i < kTasks; ++i) {
        ended(next[i], "a continuation");
        blame.look(i, [&] { EXPECT_EQ(next[i].get(), static_cast<int>(i * 3 + 1) * 2); });
    }
    blame.expect_run_once(counts, kTasks);
    EXPECT_LE(blame.crashed.size(), holds_task(point) ? 1U : 0U);
    if (!eventually([&] { return called.load() == kTasks; })) hang("a callback that is not called");
}

std::vector<Job> jobs(const Counts& counts, std::uint32_t count) {
    std::vector<Job> all;
    for (std::uint32_t i = 0; i < count; ++i) all.push_back({counts.offset(), i, size_of(i) % 2000});
    return all;
}

template <class Expected, class Function>
void map_of(mh::Pool& pool, KillPoint point, Function function, Expected expected, const mh::TaskOptions& options) {
    Counts counts(kElements);
    const auto future = pool.map_async(function, jobs(counts, kElements), options);
    ended(future, "a map");
    Blame blame;
    try {
        const auto values = future.get();
        ASSERT_EQ(values.size(), kElements);
        for (std::uint32_t i = 0; i < kElements; ++i) EXPECT_EQ(values[i], expected(i));
    } catch (const mh::WorkerCrashed& crash) {
        EXPECT_EQ(crash.signal(), SIGKILL);
        EXPECT_TRUE(may_hold_element(point));
        ASSERT_TRUE(crash.report().map_index.has_value());
        blame.crashed.insert(static_cast<std::uint32_t>(*crash.report().map_index));
    }
    blame.expect_run_once(counts, kElements);
}

int expected_small(std::uint32_t i) { return static_cast<int>(i) * 3 + 1; }
std::string expected_big(std::uint32_t i) { return text_of(i, size_of(i) % 2000); }

void plain_map(mh::Pool& pool, KillPoint point) { map_of(pool, point, run_small, expected_small, {}); }
void cell_map(mh::Pool& pool, KillPoint point) { map_of(pool, point, run_big, expected_big, {.chunksize = 7}); }
void timed_map(mh::Pool& pool, KillPoint point) {
    map_of(pool, point, run_small, expected_small, {.timeout = 300s, .cpu_time = 300s});
}
void timed_cell_map(mh::Pool& pool, KillPoint point) { map_of(pool, point, run_big, expected_big, {.timeout = 300s}); }

template <class Range>
void lazily(Range results, const Counts& counts, bool ordered, bool one_by_one, KillPoint point) {
    std::set<std::string> seen;
    std::uint32_t crashed = 0;
    std::uint32_t position = 0;
    for (auto it = results.begin(); it != results.end(); ++it, ++position) {
        try {
            if (ordered) {
                EXPECT_EQ(*it, expected_big(position));
            }
            EXPECT_TRUE(seen.insert(*it).second);
        } catch (const mh::WorkerCrashed&) {
            ++crashed;
        }
    }
    EXPECT_EQ(position, kTasks);
    EXPECT_LE(crashed, (one_by_one ? holds_task(point) : may_hold_element(point)) ? 1U : 0U);
    std::uint32_t runs = 0;
    for (std::uint32_t i = 0; i < kTasks; ++i) {
        EXPECT_LE(counts[i], 1U);
        EXPECT_TRUE(counts[i] == 1 || !seen.contains(expected_big(i)));
        runs += counts[i];
    }
    EXPECT_GE(runs, kTasks - crashed);
}

void imap(mh::Pool& pool, KillPoint point) {
    Counts counts(kTasks);
    lazily(pool.imap(run_big, jobs(counts, kTasks)), counts, true, true, point);
}
void imap_in_chunks(mh::Pool& pool, KillPoint point) {
    Counts counts(kTasks);
    lazily(pool.imap(run_big, jobs(counts, kTasks), {.chunksize = 5}), counts, true, false, point);
}
void imap_unordered(mh::Pool& pool, KillPoint point) {
    Counts counts(kTasks);
    lazily(pool.imap_unordered(run_big, jobs(counts, kTasks)), counts, false, true, point);
}

// With retries nothing is lost; what was held may have run twice.
void retried(mh::Pool& pool, KillPoint) {
    Counts counts(kTasks + kElements);
    const mh::TaskOptions options{.retries = 3};
    std::vector<mh::Future<std::string>> futures;
    for (std::uint32_t i = 0; i < kTasks; ++i) {
        futures.push_back(pool.apply_async(options, run_big, Job{counts.offset(), i, size_of(i)}));
    }
    auto inputs = jobs(counts, kTasks + kElements);
    inputs.erase(inputs.begin(), inputs.begin() + kTasks);
    const auto map = pool.map_async(run_small, inputs, options);
    for (std::uint32_t i = 0; i < kTasks; ++i) {
        ended(futures[i], "a retried task");
        EXPECT_EQ(futures[i].get(), text_of(i, size_of(i)));
    }
    ended(map, "a retried map");
    const auto values = map.get();
    for (std::uint32_t i = 0; i < kElements; ++i) EXPECT_EQ(values[i], expected_small(i + kTasks));
    std::uint32_t runs = 0;
    for (std::uint32_t i = 0; i < counts.size(); ++i) {
        EXPECT_GE(counts[i], 1U);
        runs += counts[i];
    }
    EXPECT_LE(runs, counts.size() + 1);
}

struct Work {
    const char* name;
    void (*run)(mh::Pool&, KillPoint);
    std::uint32_t tasks;    // inputs of maps included
    bool map = false;
};
constexpr Work kWorks[] = {{"singles", singles, kTasks},
                           {"callbacks", callbacks, kTasks},
                           {"plain_map", plain_map, kElements, true},
                           {"cell_map", cell_map, kElements, true},
                           {"timed_map", timed_map, kElements, true},
                           {"timed_cell_map", timed_cell_map, kElements, true},
                           {"imap", imap, kTasks},
                           {"imap_in_chunks", imap_in_chunks, kTasks, true},
                           {"imap_unordered", imap_unordered, kTasks},
                           {"retried", retried, kTasks + kElements, true}};

// What the pool says of itself agrees with what came of its tasks, wherever the worker died.
void expect_counted(const mh::Pool& pool, std::uint32_t tasks, bool map, bool traced) {
    const mh::PoolStats stats = pool.stats();
    EXPECT_EQ(stats.done + stats.crashed, tasks);
    EXPECT_EQ(stats.failed + stats.timed_out + stats.cancelled + stats.queued + stats.running, 0U);
    if (!traced) return;
    const mh::Trace trace = pool.trace();
    std::uint64_t values = 0;
    std::uint64_t crashes = 0;
    for (const auto& event : trace.events) {
        EXPECT_LE(event.submitted, event.started);
        EXPECT_LE(event.started, event.ended);
        if (event.outcome == mh::TaskOutcome::value) values += std::max<std::size_t>(event.inputs, 1);
        if (event.outcome == mh::TaskOutcome::crashed) ++crashes;
    }
    // A worker that dies takes along what it would have told of the range that it was at.
    EXPECT_LE(values, stats.done);
    if (!map) {
        EXPECT_EQ(values, stats.done);
    }
    EXPECT_LE(stats.crashed, crashes);    // less where it was tried again
    EXPECT_LE(crashes, 1U);
}

std::vector<KillPoint> worker_points() {
    std::vector<KillPoint> points;
    for (std::uint32_t p = 0; p <= static_cast<std::uint32_t>(KillPoint::extent_claimed); ++p) {
        const auto point = static_cast<KillPoint>(p);
        // No result here holds a handle: see unread_handles_test.cpp.
        if (point != KillPoint::pins_published) points.push_back(point);
    }
    points.insert(points.end(), {KillPoint::trace_begun, KillPoint::trace_written});
    return points;
}

class KillPoints : public ::testing::TestWithParam<mh::StartMethod> {
protected:
    void SetUp() override {
        MULTIHULL_NEEDS_FAILPOINTS();
        // This process claims no extent once it has one: the kill would be its own.
        for (int i = 0; i < 2; ++i)
            mh::shm::Heap::instance().free(mh::shm::Heap::instance().allocate(4 << 20), 4 << 20);
    }
    void TearDown() override {
        if (mh::os::kFailpoints) disarm();
    }
};

TEST_P(KillPoints, WorkerDiesAtEachOfThem) {
    const NothingLeft nothing_left;
    std::mt19937 random(seed());
    std::map<std::string, int> fired;
    for (int round = 0; round < rounds(2); ++round) {
        for (const KillPoint point : worker_points()) {
            for (const Work& work : kWorks) {
                SCOPED_TRACE(std::string(work.name) + " killed at " + name_of(point) + ", seed " +
                             std::to_string(seed()));
                const bool traced =
                    point == KillPoint::trace_begun || point == KillPoint::trace_written || random() % 2 == 0;
                mh::PoolOptions options{.processes = 1 + random() % 3,
                                        .start_method = GetParam(),
                                        .trace = traced,
                                        .trace_capacity = 1024};
                if (point == KillPoint::worker_leaving) options.max_tasks_per_child = 1 + random() % 5;
                const bool at_birth = point == KillPoint::worker_born || point == KillPoint::worker_ready;
                // A worker seldom needs a second extent.
                const std::size_t most = at_birth ? options.processes : point == KillPoint::extent_claimed ? 1 : 6;
                const auto nth = static_cast<std::uint32_t>(1 + random() % most);
                if (at_birth) arm(point, nth);
                mh::Pool pool(options);
                if (!at_birth) arm(point, nth);
                work.run(pool, point);
                std::uint32_t pings = 1;
                // Whether a worker found time to sleep meanwhile is chance; here it has all it needs.
                if (point == KillPoint::worker_before_sleep || point == KillPoint::worker_woken) {
                    eventually([&] { return ++pings, pool.apply(ping, 1) == 2 && countdown(point).load() == 0; });
                }
                fired[name_of(point)] += countdown(point).load() == 0 ? 1 : 0;
                disarm();
                const auto last = pool.apply_async(ping, 4);
                ended(last, "the task after all");
                EXPECT_EQ(last.get(), 5);
                expect_counted(pool, work.tasks + pings, work.map, traced);
            }
        }
    }
    for (const KillPoint point : worker_points()) EXPECT_GT(fired[name_of(point)], 0) << name_of(point);
}

// The process that starts workers dies at each place of starting or reaping one. A snapshot may be gone for good; the others begin
// again, and in any case everything ends.
TEST_P(KillPoints, ZygoteDiesAtEachOfThem) {
    const bool snapshot = GetParam() == mh::StartMethod::fork;
    std::mt19937 random(seed());
    for (int round = 0; round < rounds(3); ++round) {
        for (const KillPoint point : {KillPoint::zygote_request, KillPoint::zygote_forked, KillPoint::zygote_reaped}) {
            SCOPED_TRACE(std::string("killed at ") + name_of(point) + ", seed " + std::to_string(seed()));
            Counts counts(kTasks);
            arm(point, static_cast<std::uint32_t>(1 + random() % 4));
            bool broken = false;
            {
                mh::Pool pool({.processes = 2, .max_tasks_per_child = 3, .start_method = GetParam()});
                std::vector<mh::Future<int>> futures;
                try {
                    for (std::uint32_t i = 0; i < kTasks; ++i) {
                        futures.push_back(pool.apply_async(run_small, Job{counts.offset(), i, 0}));
                    }
                } catch (const mh::BrokenPool& error) {
                    broken = true;
                    EXPECT_GT(std::string(error.what()).size(), 30U);
                }
                for (std::uint32_t i = 0; i < futures.size(); ++i) {
                    ended(futures[i], "a task whose zygote was killed");
                    try {
                        EXPECT_EQ(futures[i].get(), expected_small(i));
                        EXPECT_EQ(counts[i], 1U);
                    } catch (const mh::WorkerCrashed&) {
                        EXPECT_LE(counts[i], 1U);
                    } catch (const mh::BrokenPool&) {
                        // What another worker was at when the pool broke ends with the pool.
                        broken = true;
                        EXPECT_LE(counts[i], 1U);
                    }
                }
                EXPECT_TRUE(snapshot || !broken);
                disarm();
                if (!broken) {
                    try {
                        const auto last = pool.apply_async(ping, 4);
                        ended(last, "the task after all");
                        EXPECT_EQ(last.get(), 5);
                    } catch (const mh::BrokenPool&) {
                        EXPECT_TRUE(snapshot);
                    } catch (const mh::WorkerCrashed&) {
                        // The zygote's death may come as late as this.
                    }
                }
            }
        }
    }
}

INSTANTIATE_TEST_SUITE_P(By, KillPoints,
                         ::testing::Values(mh::StartMethod::fork, mh::StartMethod::forkserver, mh::StartMethod::spawn),
                         [](const auto& param) { return name_of(param.param); });

}    // namespace
}    // namespace chaos
