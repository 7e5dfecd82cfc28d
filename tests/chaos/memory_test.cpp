// Many processes on one cache, killed at each named place and at any instant: what is there is whole, nobody waits for the dead,
// and what they leave is swept.
#include "chaos/chaos.hpp"
#include "memory/folders.hpp"

#include <multihull/memory.hpp>
#include <multihull/process.hpp>

#include <latch>

namespace chaos {
namespace {

/// A result that can't be mistaken for another's, and whose halves can't be mistaken for a whole.
std::string text_for(int x) { return text_of(static_cast<std::uint32_t>(x), static_cast<std::uint32_t>(x * 1000)); }

std::string slow_text(int x) { return text_for(x); }

// Asks again and again for the same few results, now and then by force, evicting meanwhile.
void use_cache(const mh::Memory& memory, int keys, int rounds_of_it) {
    const auto cached = memory.cache("text", slow_text);
    for (int i = 0; i < rounds_of_it; ++i) {
        const int x = i % keys;
        const std::string text = i % 3 == 0 ? cached.call(x) : cached(x);
        if (text != text_for(x)) std::abort();
        if (i % 50 == 49) memory.reduce_size({.items = 3});
        if (i % 70 == 69) memory.clear();
    }
}

void compute_one(const mh::Memory& memory, bool force) {
    const auto cached = memory.cache("text", slow_text);
    const std::string text = force ? cached.call(5) : cached(5);
    if (text != text_for(5)) std::abort();
}

// What can be read of every result, by a process that nobody kills.
void expect_whole(const mh::Memory& memory, int keys) {
    test::Log log;
    const auto cached = memory.cache("text", slow_text);
    for (int x = 0; x < keys; ++x) EXPECT_EQ(cached(x), text_for(x)) << "seed " << seed();
    const auto lines = log.lines();
    EXPECT_TRUE(lines.empty()) << lines[0] << " (seed " << seed() << ")";
}

class MemoryKills : public ::testing::TestWithParam<mh::StartMethod> {
protected:
    void TearDown() override { disarm(); }

    /// Runs a process that dies at its first pass of the point; false when it did not pass.
    bool die_at(KillPoint point, bool force, [[maybe_unused]] bool nameless) {
#ifdef MULTIHULL_FAILPOINTS
        if (!nameless) mh::os::fail_call(mh::os::Call::open_nameless, EOPNOTSUPP);
#endif
        arm(point, 1);
        mh::Process process({.start_method = GetParam()}, compute_one, memory, force);
        process.start();
        if (!process.join(kForever)) hang("a process that uses a cache");
        const bool passed = countdown(point).load() == 0;
        disarm();
#ifdef MULTIHULL_FAILPOINTS
        mh::os::clear_failures();
#endif
        EXPECT_EQ(process.exitcode(), passed ? -SIGKILL : 0) << name_of(point);
        return passed;
    }

    test::Folder folder;
    std::string path = folder.path() + "/cache";
    mh::Memory memory{path};
};

TEST_P(MemoryKills, AtEachPlace) {
    MULTIHULL_NEEDS_FAILPOINTS();
    for (const bool replace : {false, true}) {
        for (const auto point : {KillPoint::result_locked, KillPoint::file_written, KillPoint::file_named,
                                 KillPoint::file_replaced, KillPoint::file_sweeping}) {
            for (const bool nameless : {true, false}) {
                SCOPED_TRACE(std::string(name_of(point)) + (replace ? ", replacing" : "") +
                             (nameless ? "" : ", with names"));
                if (!nameless && GetParam() != mh::StartMethod::fork) continue;    // the failpoint is this process's
                memory.clear();
                if (replace) compute_one(memory, false);
                if (point == KillPoint::file_sweeping) {
                    // Something to sweep, left by one who died before.
                    compute_one(memory, false);
                    EXPECT_TRUE(die_at(KillPoint::file_named, true, nameless));
                    EXPECT_EQ(test::leftovers_in(path).size(), 1U);
                    EXPECT_TRUE(die_at(point, true, nameless));
                } else {
                    const bool passed = die_at(point, replace, nameless);
                    EXPECT_EQ(passed, point == KillPoint::file_named ? replace || !nameless
                                                                     : point != KillPoint::result_locked || !replace);
                }
                // Who comes next finds the old or the new, or computes; and waits for nobody.
                expect_whole(memory, 7);
                compute_one(memory, true);
                memory.reduce_size({});
                EXPECT_TRUE(test::leftovers_in(path).empty());
            }
        }
    }
}

TEST_P(MemoryKills, AtAnyInstant) {
    constexpr int kKeys = 8;
    std::mt19937 random(seed());
    for (int round = 0; round < rounds(5); ++round) {
        std::vector<std::unique_ptr<mh::Process>> processes;
        for (int i = 0; i < 6; ++i) {
            processes.push_back(std::make_unique<mh::Process>(mh::ProcessOptions{.start_method = GetParam()}, use_cache,
                                                              memory, kKeys, 1000));
            processes.back()->start();
        }
        // All but one are killed somewhere in their work.
        for (std::size_t i = 1; i < processes.size(); ++i) {
            std::this_thread::sleep_for(std::chrono::microseconds(random() % 20'000));
            processes[i]->kill();
        }
        for (auto& process : processes) {
            if (!process->join(kForever)) hang("a process that uses a cache that others died in");
        }
        EXPECT_EQ(processes[0]->exitcode(), 0) << "seed " << seed();
        expect_whole(memory, kKeys);
        memory.reduce_size({});
        EXPECT_TRUE(test::leftovers_in(path).empty()) << "seed " << seed();
    }
}

TEST_P(MemoryKills, WhoWaitedTakesOver) {
    MULTIHULL_NEEDS_FAILPOINTS();
    for (int round = 0; round < rounds(10); ++round) {
        memory.clear();
        // Of those that want the result the second to hold the lock is killed, while the others wait for it.
        arm(KillPoint::result_locked, 2);
        std::vector<std::unique_ptr<mh::Process>> processes;
        for (int i = 0; i < 4; ++i) {
            processes.push_back(std::make_unique<mh::Process>(mh::ProcessOptions{.start_method = GetParam()},
                                                              compute_one, memory, false));
            processes.back()->start();
        }
        int killed = 0;
        for (auto& process : processes) {
            if (!process->join(kForever)) hang("a process that waits for a dead one's result");
            killed += process->exitcode() == -SIGKILL ? 1 : 0;
        }
        EXPECT_LE(killed, 1);
        disarm();
        expect_whole(memory, 7);
    }
}

INSTANTIATE_TEST_SUITE_P(Each, MemoryKills,
                         ::testing::Values(mh::StartMethod::fork, mh::StartMethod::forkserver, mh::StartMethod::spawn),
                         [](const auto& each) { return std::string(name_of(each.param)); });

}    // namespace
}    // namespace chaos
