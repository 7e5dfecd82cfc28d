// A worker gone wild, which overwrites what it shares with the program. What must hold: the program reads and writes nothing
// outside of the region, decodes nothing without checking it, and does not loop or block on what it reads; every future ends, at
// the latest with its pool; a task or a whole pool may fail, and says so.
#include "chaos/chaos.hpp"

#include <algorithm>
#include <cstring>
#include <limits>

namespace chaos {
namespace {

// In a worker: the slot of the task that it runs.
mh::detail::TaskSlot& own_slot(const mh::detail::PoolHome& home) {
    const auto self = static_cast<std::uint32_t>(::getpid());
    for (std::uint32_t i = 0; i < home.worker_count; ++i) {
        if (home.workers[i].pid.load() == self) return home.slots[home.workers[i].current.load() - 1];
    }
    ::_exit(3);
}

struct Lie {
    std::uint64_t home = 0;
    std::uint64_t offset = 0;
    std::uint64_t size = 0;
    std::uint64_t block = 0;
    std::uint32_t phase = 0;
};

// Ends its own task with an outcome that it says lies anywhere.
int lie(Lie l) {
    const mh::detail::PoolHome home(l.home);
    auto& slot = own_slot(home);
    slot.result_offset = l.offset;
    slot.result_size = l.size;
    slot.result_block = l.block;
    const std::uint32_t state = slot.state.load();
    slot.state.store(mh::detail::task_state::with_phase(state, static_cast<mh::detail::task_state::Phase>(l.phase)));
    mh::os::futex_wake_all(slot.state);
    ::_exit(0);
}

TEST(WildWorker, ResultsThatLieAnywhereAreNotRead) {
    auto& region = mh::shm::Region::instance();
    const std::uint64_t top = std::numeric_limits<std::uint64_t>::max();
    const std::uint64_t begin = region.extents_begin();
    const std::uint64_t end = begin + std::uint64_t{region.header().extent_count} * mh::shm::kExtentSize;
    std::vector<std::uint64_t> extremes{0,        1,          8,         63,       64,
                                        65,       begin - 64, begin - 1, begin,    begin + 1,
                                        end - 64, end - 1,    end,       end + 64, region.header().size,
                                        top / 2,  top - 63,   top};
    mh::Pool pool({.processes = 2});
    const std::uint64_t home = only_home().offset;
    std::mt19937 random(seed());
    const auto any = [&] { return extremes[random() % extremes.size()]; };
    for (int round = 0; round < rounds(300); ++round) {
        Lie l{home, any(), any(), any(), static_cast<std::uint32_t>(4 + random() % 4)};
        if (l.phase == mh::detail::task_state::lost) l.phase = mh::detail::task_state::value;
        const auto future = pool.apply_async(lie, l);
        ended(future, "a task that lied about its result");
        try {
            future.get();
        } catch (const std::exception&) {
            // Whatever those bytes are taken for: an error says so.
        }
        EXPECT_EQ(pool.apply(mh::TaskOptions{.retries = 5}, ping, 1), 2);
    }
}

struct Scribble {
    std::uint64_t home = 0;
    std::uint64_t begin = 0;
    std::uint64_t size = 0;
    std::uint32_t seed = 0;
    bool crash = false;
};

int scribble(Scribble s) {
    auto* const bytes = mh::shm::Region::instance().at(s.home + s.begin);
    std::mt19937 random(s.seed);
    for (std::uint64_t i = 0; i < s.size; ++i) bytes[i] = static_cast<std::byte>(random());
    if (s.crash) ::raise(SIGSEGV);
    return 1;
}

// Sees that all ends within bounds, whatever was spoiled; the pool's end is part of it.
void expect_all_ends(std::uint64_t home_of_words,
                     const std::function<std::uint64_t(const mh::detail::PoolHome&)>& place, std::uint64_t size,
                     std::uint32_t seed_of_bytes, bool crash) {
    static_cast<void>(home_of_words);
    std::vector<mh::Future<int>> futures;
    {
        mh::Pool pool({.processes = 2, .task_timeout = 20s, .trace = true, .trace_capacity = 64});
        const auto home = only_home();
        try {
            for (int i = 0; i < 20; ++i) futures.push_back(pool.apply_async(ping, i));
            futures.push_back(pool.apply_async(scribble,
                                               Scribble{home.offset, place(home), size, seed_of_bytes, crash}));
            for (int i = 0; i < 20; ++i) futures.push_back(pool.apply_async(ping, i));
            futures.front().add_done_callback([](const auto&) {});
            futures.back().add_done_callback([](const auto&) {});
        } catch (const mh::BrokenPool& error) {
            EXPECT_NE(std::string(error.what()).find("overw"), std::string::npos) << error.what();
        }
        // What was overwritten without a trace may leave a future waiting; its pool's end ends it.
        for (const auto& future : futures) {
            if (!future.wait_for(30ms)) break;
        }
        // Of this it shows what it may, whatever it finds.
        static_cast<void>(pool.stats());
        static_cast<void>(pool.insights());
        static_cast<void>(pool.trace());
        if (size != 0) pool.terminate();
    }
    for (const auto& future : futures) {
        if (!future.ready()) hang("a future that outlived its pool");
        try {
            future.get();
        } catch (const std::exception&) {
            // An error of any kind is an outcome.
        }
    }
}

TEST(WildWorker, OverwritingTheHomeEndsNobodyElse) {
    std::mt19937 random(seed());
    using mh::detail::PoolHeader;
    using mh::detail::PoolHome;
    const std::function<std::uint64_t(const PoolHome&)> places[] = {
        [](const PoolHome&) { return std::uint64_t{0}; },
        [&](const PoolHome&) { return std::uint64_t{random() % sizeof(PoolHeader)}; },
        [](const PoolHome&) { return std::uint64_t{offsetof(PoolHeader, head)}; },
        [](const PoolHome&) { return std::uint64_t{offsetof(PoolHeader, tail)}; },
        [](const PoolHome&) { return std::uint64_t{offsetof(PoolHeader, epoch)}; },
        [](const PoolHome& home) { return home.header.workers_offset; },
        [](const PoolHome& home) { return home.header.ring_offset; },
        [&](const PoolHome& home) { return home.header.slots_offset + random() % 8192; },
    };
    const NothingLeft nothing_left;
    for (int round = 0; round < rounds(8); ++round) {
        for (const auto& place : places) {
            const std::uint64_t size = std::uint64_t{1} << random() % 13;
            SCOPED_TRACE("seed " + std::to_string(seed()));
            expect_all_ends(0, place, size, static_cast<std::uint32_t>(random()), random() % 2 == 0);
        }
    }
}

// A crash that follows is what lets the pool notice, and then all ends without the pool's end.
TEST(WildWorker, OverwritingIsNoticedAtTheNextCrash) {
    for (int round = 0; round < rounds(10); ++round) {
        mh::Pool pool({.processes = 2});
        const auto home = only_home();
        const auto held = pool.apply_async([](int) { return static_cast<int>(::pause()); }, 1);
        std::vector<mh::Future<int>> futures;
        try {
            futures.push_back(pool.apply_async(scribble,
                                               Scribble{home.offset, offsetof(mh::detail::PoolHeader, slot_capacity),
                                                        64, seed(), true}));
            for (int i = 0; i < 20; ++i) futures.push_back(pool.apply_async(ping, i));
        } catch (const mh::BrokenPool&) {
            // Quick enough to be noticed while tasks were still given.
        }
        ended(held, "a task of a pool that was overwritten");
        EXPECT_THROW(held.get(), mh::BrokenPool);
        for (const auto& future : futures) ended(future, "a task of a pool that was overwritten");
        EXPECT_THROW(pool.apply(ping, 1), mh::BrokenPool);
    }
}

// The words of a map.
TEST(WildWorker, OverwritingAMapsClaimsSpoilsThatMapOnly) {
    std::mt19937 random(seed());
    for (int round = 0; round < rounds(20); ++round) {
        mh::Pool pool({.processes = 2});
        const auto future = pool.map_async(
            [](std::uint32_t x) {
                if (x == 700) {
                    // The map's memory lies somewhere in the first extents of the parent's heap.
                    auto& region = mh::shm::Region::instance();
                    std::mt19937 bytes(x);
                    for (int n = 0; n < 4096; ++n) {
                        *region.at(region.extents_begin() + bytes() % (std::uint64_t{1} << 20)) =
                            static_cast<std::byte>(bytes());
                    }
                    ::raise(SIGKILL);
                }
                return std::string(x % 100, 'x');
            },
            std::views::iota(0U, 3000U));
        if (!future.wait_for(5s)) pool.terminate();
        ended(future, "a map whose memory was overwritten");
        try {
            future.get();
        } catch (const std::exception&) {
            // An error, not a crash of this program.
        }
    }
}

}    // namespace
}    // namespace chaos
