// What goes wrong around a pool: its zygote killed, the system out of processes, descriptors or memory, a standard error that nobody
// reads, tasks that fork, programs that fork, pools that end in the wrong place. Each has a defined outcome, and nothing hangs.
#include "chaos/chaos.hpp"
#include "support/sanitizer.hpp"

#include "os/fd.hpp"
#include "os/process.hpp"

#include <multihull/log.hpp>
#include <multihull/process.hpp>

#include <algorithm>
#include <cerrno>
#include <fcntl.h>
#include <sys/resource.h>
#include <sys/wait.h>

namespace chaos {
namespace {

using mh::os::Call;

constexpr mh::StartMethod kMethods[] = {mh::StartMethod::fork, mh::StartMethod::forkserver, mh::StartMethod::spawn};

int wait_for_the_end(int) {
    for (;;) ::pause();
}

pid_t zygote_of_new_pool(const std::vector<pid_t>& before) {
    pid_t found = 0;
    eventually([&] {
        for (const pid_t pid : zygotes_of(::getpid())) {
            if (std::find(before.begin(), before.end(), pid) == before.end()) found = pid;
        }
        return found != 0;
    });
    return found;
}

// Killed before a twin stands by: a snapshot is gone, which the pool says; the other methods begin again.
TEST(ZygoteKilled, EndsASnapshotsPoolAndNoOther) {
    for (int round = 0; round < rounds(3); ++round) {
        for (const auto method : kMethods) {
            SCOPED_TRACE(name_of(method));
            const auto before = zygotes_of(::getpid());
            mh::Pool pool({.processes = 3, .start_method = method});
            const auto running = pool.apply_async(wait_for_the_end, 1);
            const pid_t zygote = method == mh::StartMethod::forkserver ? mh::detail::Zygote::forkserver()->pid()
                                                                       : zygote_of_new_pool(before);
            ASSERT_GT(zygote, 0);
            const auto home = only_home();
            ASSERT_TRUE(eventually([&] { return home.slots[0].state.load() % 8 == mh::detail::task_state::taken; }));
            ASSERT_EQ(::kill(zygote, SIGKILL), 0);
            ended(running, "a task whose zygote was killed");
            try {
                running.get();
                ADD_FAILURE() << "its worker died";
            } catch (const mh::WorkerCrashed&) {
            } catch (const mh::BrokenPool&) {
                EXPECT_EQ(method, mh::StartMethod::fork);    // another worker was found dead first
            }
            try {
                const auto next = pool.apply_async(mh::TaskOptions{.retries = 5}, ping, 1);
                ended(next, "a task after its pool's zygote was killed");
                EXPECT_EQ(next.get(), 2);
            } catch (const mh::BrokenPool& error) {
                EXPECT_EQ(method, mh::StartMethod::fork);
                EXPECT_NE(std::string(error.what()).find("forkserver"), std::string::npos) << error.what();
            }
        }
    }
}

// Many requests on their way when it dies, with and without a twin: each place of the pool is filled once.
TEST(ZygoteKilled, InTheMiddleOfManyBirths) {
    std::mt19937 random(seed());
    for (int round = 0; round < rounds(20); ++round) {
        Counts counts(200);
        mh::Pool pool({.processes = 16, .max_tasks_per_child = 2});
        std::vector<mh::Future<int>> futures;
        for (std::uint32_t i = 0; i < counts.size(); ++i) {
            futures.push_back(pool.apply_async(mh::TaskOptions{.retries = 0}, run_small, Job{counts.offset(), i, 0}));
        }
        if (random() % 2 == 0) std::this_thread::sleep_for(std::chrono::microseconds(random() % 20000));
        ::kill(mh::detail::Zygote::forkserver()->pid(), SIGKILL);
        for (std::uint32_t i = 0; i < counts.size(); ++i) {
            ended(futures[i], "a task of a pool whose zygote was killed");
            try {
                EXPECT_EQ(futures[i].get(), static_cast<int>(i) * 3 + 1);
                EXPECT_EQ(counts[i], 1U);
            } catch (const mh::WorkerCrashed&) {
                EXPECT_LE(counts[i], 1U);
            }
        }
    }
}

class Shortage : public ::testing::Test {
protected:
    void SetUp() override { MULTIHULL_NEEDS_FAILPOINTS(); }
    void TearDown() override {
#ifdef MULTIHULL_FAILPOINTS
        mh::os::clear_failures();
#endif
    }
};

#ifdef MULTIHULL_FAILPOINTS

// Every call that making a pool and its first tasks needs fails, the n-th time: either a sentence, or a pool that works.
TEST_F(Shortage, OfAnythingIsASentenceOrAPoolThatWorks) {
    const struct {
        Call call;
        int error;
    } failing[] = {{Call::fork, EAGAIN}, {Call::pidfd_open, EMFILE}, {Call::socketpair, EMFILE},
                   {Call::pipe, EMFILE}, {Call::sendmsg, ENOMEM},    {Call::sendmsg, ETOOMANYREFS},
                   {Call::exec, EAGAIN}, {Call::setrlimit, EPERM}};
    const NothingLeft nothing_left;
    for (int round = 0; round < rounds(1); ++round) {
        for (const auto method : kMethods) {
            for (const auto& [call, error] : failing) {
                for (std::uint32_t nth = 1; nth <= 6; ++nth) {
                    SCOPED_TRACE(std::string(name_of(method)) + ", call " + std::to_string(static_cast<int>(call)) +
                                 ", use " + std::to_string(nth));
                    mh::os::fail_call(call, error, nth);
                    try {
                        mh::Pool pool({.processes = 3, .start_method = method});
                        const auto future = pool.apply_async(ping, 1);
                        ended(future, "a task of a pool in a shortage");
                        EXPECT_EQ(future.get(), 2);
                    } catch (const mh::StartError& failure) {
                        EXPECT_GT(std::string(failure.what()).size(), 40U) << failure.what();
                    }
                    mh::os::clear_failures();
                }
            }
        }
    }
}

#endif

// So few descriptors that a worker's pidfd can't come in: that worker is ended, and the pool goes on with those it has.
TEST(DescriptorsRunOut, WhileWorkersAreBorn) {
    rlimit before{};
    ::getrlimit(RLIMIT_NOFILE, &before);
    std::vector<mh::os::Fd> taken;
    for (int room = 0; room < 14; ++room) {
        mh::Pool* made = nullptr;
        const auto lowest = entries("/proc/self/fd");
        rlimit tight{lowest + static_cast<rlim_t>(room), before.rlim_max};
        ::setrlimit(RLIMIT_NOFILE, &tight);
        try {
            mh::Pool pool({.processes = 3});
            made = &pool;
            const auto future = pool.apply_async(mh::TaskOptions{.retries = 10}, ping, 1);
            ended(future, "a task of a pool without descriptors");
            EXPECT_EQ(future.get(), 2);
        } catch (const mh::StartError&) {
            // Not even enough to begin.
        } catch (const mh::BrokenPool& error) {
            EXPECT_NE(std::string(error.what()).find("pool"), std::string::npos);
        } catch (const mh::WorkerCrashed&) {
            // Ended because it could not be watched.
        }
        static_cast<void>(made);
        ::setrlimit(RLIMIT_NOFILE, &before);
    }
}

// The program's stderr is a pipe that nobody reads: the supervisor neither waits on it nor forgets its work.
TEST(BlockedStderr, DoesNotStopTheSupervisor) {
    int ends[2];
    ASSERT_EQ(::pipe2(ends, O_CLOEXEC), 0);
    const int saved = ::fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, 0);
    ::fcntl(ends[1], F_SETFL, O_NONBLOCK);
    const std::string page(4096, '.');
    while (::write(ends[1], page.data(), page.size()) > 0) {}
    ::fcntl(ends[1], F_SETFL, 0);
    ::dup2(ends[1], STDERR_FILENO);
    {
        mh::Pool pool({.processes = 3});
        const auto talk = [](int n) {
            for (int i = 0; i < n; ++i) std::fprintf(stderr, "%0512d\n", i);
            return n;
        };
        const auto stuck = pool.apply_async(mh::TaskOptions{.timeout = 300ms}, talk, 1 << 20);
        const auto little = pool.apply_async(talk, 3);
        const auto slow = pool.apply_async(mh::TaskOptions{.timeout = 100ms}, wait_for_the_end, 1);
        const auto crash =
            pool.apply_async([](int) { return std::fprintf(stderr, "last words\n"), ::raise(SIGKILL); }, 1);
        ended(stuck, "a task that waits on stderr");
        EXPECT_THROW(stuck.get(), mh::TaskTimeout);
        ended(slow, "a task over its time beside it");
        EXPECT_THROW(slow.get(), mh::TaskTimeout);
        ended(crash, "a crash beside it");
        try {
            crash.get();
            ADD_FAILURE() << "it crashed";
        } catch (const mh::WorkerCrashed& error) {
            EXPECT_NE(error.last_stderr().find("last words"), std::string::npos);
        }
        EXPECT_EQ(ended(little, "a task that said little").get(), 3);
        // Somebody reads again: what was said goes on coming through, and the pool works.
        std::atomic<bool> done{false};
        std::string read_back;
        std::thread reader([&] {
            char buffer[65536];
            ::fcntl(ends[0], F_SETFL, O_NONBLOCK);
            while (!done) {
                const ssize_t n = ::read(ends[0], buffer, sizeof buffer);
                if (n > 0)
                    read_back.append(buffer, static_cast<std::size_t>(n));
                else
                    std::this_thread::sleep_for(100us);
            }
        });
        EXPECT_EQ(ended(pool.apply_async(talk, 1000), "a task whose stderr is read again").get(), 1000);
        EXPECT_EQ(ended(pool.apply_async(ping, 1), "the task after").get(), 2);
        done = true;
        reader.join();
    }
    ::dup2(saved, STDERR_FILENO);
    ::close(saved);
    ::close(ends[0]);
    ::close(ends[1]);
}

// A task forks, and the copy comes back: by returning, by throwing, in a map. The task's outcome is its own.
int fork_and_return(int x) {
    const pid_t pid = ::fork();
    if (pid == 0) {
        if (x % 3 == 0) throw std::runtime_error("from the copy");
        return -1;
    }
    if (x % 2 == 0) ::waitpid(pid, nullptr, 0);
    return x;
}

TEST(ForkingTasks, KeepTheirOwnOutcome) {
    const NothingLeft nothing_left;
    for (int round = 0; round < rounds(3); ++round) {
        mh::Pool pool(2);
        std::vector<mh::Future<int>> futures;
        for (int i = 0; i < 20; ++i) futures.push_back(pool.apply_async(fork_and_return, i));
        for (int i = 0; i < 20; ++i)
            EXPECT_EQ(ended(futures[static_cast<std::size_t>(i)], "a task that forks").get(), i);
        const auto map = pool.map_async(fork_and_return, std::views::iota(0, 60));
        const auto values = ended(map, "a map that forks").get();
        for (int i = 0; i < 60; ++i) EXPECT_EQ(values[static_cast<std::size_t>(i)], i);
        const auto texts =
            pool.map_async([](int x) { return std::to_string(fork_and_return(x)); }, std::views::iota(0, 60));
        const auto strings = ended(texts, "a map of texts that forks").get();
        for (int i = 0; i < 60; ++i) EXPECT_EQ(strings[static_cast<std::size_t>(i)], std::to_string(i));
    }
}

// The program forks while it has a pool, futures, maps and callbacks: the child drops its copies, makes a pool of its own, and the
// parent's work is not touched.
TEST(ForkingProgram, LeavesTheParentsPoolAlone) {
    if (test::kTsan) GTEST_SKIP() << "it can't start threads in a forked child";
    if (test::kAsan) GTEST_SKIP() << "a forked child may find its allocator locked by a thread that it does not have";
    Counts counts(1);
    mh::Pool pool(2);
    auto made = std::make_unique<mh::Pool>(1);
    auto big = made->apply_async(run_big, Job{counts.offset(), 0, 100000});
    auto map = made->map_async([](int x) { return std::string(1000, static_cast<char>('a' + x % 26)); },
                               std::views::iota(0, 300));
    big.wait();
    map.wait();
    std::atomic<int> called{0};
    big.add_done_callback([&](const auto&) { ++called; });
    auto later = made->apply_async(ping, 1);
    later.add_done_callback([&](const auto&) { ++called; });
    const pid_t child = ::fork();
    if (child == 0) {
        big = {};
        map = {};
        later = {};
        made.reset();
        std::vector<std::string> own;
        {
            mh::Pool mine({.processes = 2, .start_method = mh::StartMethod::fork});
            own = mine.map([](int x) { return std::string(1000, static_cast<char>('A' + x % 26)); },
                           std::views::iota(0, 300));
        }
        bool right = own.size() == 300;
        for (std::size_t i = 0; i < own.size(); ++i)
            right = right && own[i] == std::string(1000, static_cast<char>('A' + i % 26));
        ::_exit(right ? 0 : 9);
    }
    int status = 0;
    if (!eventually([&] { return ::waitpid(child, &status, WNOHANG) == child; })) hang("a forked child with a pool");
    EXPECT_EQ(status, 0);
    EXPECT_EQ(big.get(), text_of(0, 100000));
    const auto texts = map.get();
    for (std::size_t i = 0; i < texts.size(); ++i)
        EXPECT_EQ(texts[i], std::string(1000, static_cast<char>('a' + i % 26)));
    EXPECT_EQ(made->apply(ping, 1), 2);
    EXPECT_EQ(pool.apply(ping, 1), 2);
    EXPECT_TRUE(eventually([&] { return called == 2; }));
}

// The last owner of a pool is its own callback.
TEST(Endings, APoolMayEndInItsOwnCallback) {
    const NothingLeft nothing_left;
    for (int round = 0; round < rounds(20); ++round) {
        std::atomic<bool> gone{false};
        auto pool = std::make_shared<mh::Pool>(1);
        mh::Future<int> future = pool->apply_async(ping, 1);
        mh::Pool* const raw = pool.get();
        static_cast<void>(raw);
        future.add_done_callback([&gone, owner = std::move(pool)](const auto&) mutable {
            owner.reset();
            gone = true;
        });
        future = {};
        if (!eventually([&] { return gone.load(); })) hang("a pool that ends in its own callback");
    }
}

// What waits in the queue of a terminated or broken pool ends without join().
TEST(Endings, NobodyNeedsToJoin) {
    for (int round = 0; round < rounds(10); ++round) {
        mh::Pool pool(1);
        const auto held = pool.apply_async(wait_for_the_end, 1);
        std::vector<mh::Future<int>> futures;
        for (int i = 0; i < 20; ++i) futures.push_back(pool.apply_async(ping, i));
        std::atomic<int> called{0};
        futures.back().add_done_callback([&](const auto&) { ++called; });
        pool.terminate();
        for (const auto& future : futures)
            EXPECT_THROW(ended(future, "a task of a terminated pool").get(), mh::Cancelled);
        EXPECT_THROW(ended(held, "the running one").get(), mh::Cancelled);
        if (!eventually([&] { return called == 1; })) hang("a callback of a terminated pool");
    }
}

// A map that is cancelled has a failure or all of its values, never values of inputs that were not run.
TEST(Endings, ACancelledMapIsWholeOrFails) {
    mh::Pool pool(1);
    std::mt19937 random(seed());
    int cancelled = 0;
    // On a busy machine most maps may have ended before they are cancelled: then more are tried.
    for (int round = 0; round < rounds(400) || (cancelled == 0 && round < rounds(40000)); ++round) {
        const auto future = pool.map_async([](int x) { return x + 1; }, std::views::iota(0, 20000), {.chunksize = 16});
        if (round % 4 != 0) std::this_thread::sleep_for(std::chrono::microseconds(random() % 600));
        future.cancel();
        ended(future, "a cancelled map");
        try {
            const auto values = future.get();
            for (std::size_t i = 0; i < values.size(); ++i) ASSERT_EQ(values[i], static_cast<int>(i) + 1);
        } catch (const mh::Cancelled&) {
            ++cancelled;
        }
    }
    EXPECT_GT(cancelled, 0);
}

// Callbacks that pile up behind a slow one are called although the workers that told of them are replaced meanwhile.
TEST(Callbacks, OutliveTheirWorkers) {
    for (int round = 0; round < rounds(3); ++round) {
        mh::Pool pool({.processes = 2, .max_tasks_per_child = 7});
        std::atomic<bool> go{false};
        std::atomic<int> called{0};
        std::vector<mh::Future<int>> futures;
        constexpr int kMany = 400;
        for (int i = 0; i < kMany; ++i) {
            futures.push_back(pool.apply_async(ping, i));
            futures.back().add_done_callback([&](const auto&) {
                eventually([&] { return go.load(); });
                ++called;
            });
        }
        for (const auto& future : futures) ended(future, "a task with a callback");
        go = true;
        if (!eventually([&] { return called == kMany; })) {
            hang("callbacks: " + std::to_string(called) + " of " + std::to_string(kMany));
        }
    }
}

TEST(Callbacks, OfADroppedRangeLeaveNothingToWaitFor) {
    for (int round = 0; round < rounds(30); ++round) {
        mh::Pool pool(2);
        for (int i = 0; i < 5; ++i) {
            auto results = pool.imap_unordered(ping, std::views::iota(0, 1000));
            static_cast<void>(results.next());
        }
        for (int i = 0; i < 50; ++i) pool.apply_async(ping, i);
    }
}

// A map whose function can't even be decoded takes its workers down one after the other, but not for ever.
struct Poison {
    int x = 0;
    int operator()(int y) const { return x + y; }
    template <class Archive>
    void save(Archive& archive) const {
        archive(x);
    }
    template <class Archive>
    void load(Archive& archive) {
        archive(x);
        ::raise(SIGSEGV);
    }
};

TEST(Maps, WhoseFunctionKillsEndToo) {
    mh::Pool pool(2);
    const auto future = pool.map_async(Poison{1}, std::views::iota(0, 100));
    ended(future, "a map whose function kills its worker");
    EXPECT_THROW(future.get(), mh::WorkerCrashed);
    EXPECT_EQ(pool.apply(ping, 1), 2);
}

TEST(Heap, GivesArraysBiggerThanItKeeps) {
    auto& heap = mh::shm::Heap::instance();
    const std::size_t used = heap.used();
    const std::size_t size = mh::shm::Heap::kKeep * 2;
    const auto block = heap.allocate(size);
    ASSERT_NE(block, 0U);
    *mh::shm::Region::instance().at(block + size - 1) = std::byte{1};
    heap.free(block, size);
    EXPECT_EQ(heap.used(), used);
    EXPECT_LE(heap.held(), mh::shm::Heap::kKeep + mh::shm::kExtentSize);
}

// One future that is kept does not keep the memory of every worker that has died since.
TEST(Legacies, OfUnreadResultsOnlyAreKept) {
    const NothingLeft nothing_left;
    Counts counts(1);
    mh::Pool pool({.processes = 1, .max_tasks_per_child = 1});
    const auto kept = pool.apply_async(run_big, Job{counts.offset(), 0, 5000});
    ended(kept, "the one that is kept");
    for (int i = 0; i < 300; ++i) {
        EXPECT_EQ(ended(pool.apply_async(run_big, Job{counts.offset(), 0, 5000}), "one of many").get(),
                  text_of(0, 5000));
    }
    EXPECT_LT(take_census().numbers["extents of others"], 100U);
    EXPECT_EQ(kept.get(), text_of(0, 5000));
}

// A region as small as `ulimit -v` leaves it: run in this program started again under such a limit.
TEST(SmallRegion, DISABLED_Inside) {
    ASSERT_LE(mh::shm::Region::instance().header().size, std::uint64_t{1} << 30);
    EXPECT_THROW(mh::Pool(4096), mh::StartError);
    mh::Pool pool(2);
    const auto capacity = only_home().slot_capacity;
    // The queue's ring goes round and round, with names of cancelled tasks in it.
    for (int round = 0; round < 30; ++round) {
        const auto first = pool.apply_async([](int) { return static_cast<int>(::usleep(20000)); }, 0);
        const auto second = pool.apply_async([](int) { return static_cast<int>(::usleep(20000)); }, 0);
        std::vector<mh::Future<int>> kept;
        for (std::uint64_t i = 0; i < capacity / 4; ++i) kept.push_back(pool.apply_async(ping, static_cast<int>(i)));
        for (int again = 0; again < 8; ++again) {
            std::vector<mh::Future<int>> dropped;
            for (std::uint64_t i = 0; i < capacity / 4; ++i) dropped.push_back(pool.apply_async(ping, 0));
            for (const auto& future : dropped) future.cancel();
        }
        for (std::size_t i = 0; i < kept.size(); ++i) {
            ASSERT_EQ(ended(kept[i], "a task in a full ring").get(), static_cast<int>(i) + 1);
        }
    }
    std::vector<mh::Future<int>> futures;
    for (int i = 0; i < 600'000; ++i) {
        futures.push_back(pool.apply_async(ping, i));
        if (futures.size() == 1000) {
            for (const auto& future : futures) ended(future, "one of very many tasks");
            futures.clear();
        }
    }
}

TEST(SmallRegion, LosesNothingEither) {
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
    GTEST_SKIP() << "sanitizers need more address space";
#endif
    const pid_t child = ::fork();
    if (child == 0) {
        const rlimit limit{std::uint64_t{2} << 30, std::uint64_t{2} << 30};
        ::setrlimit(RLIMIT_AS, &limit);
        const int null = ::open("/dev/null", O_WRONLY);
        if (std::getenv("MULTIHULL_CHAOS_LOUD") == nullptr) ::dup2(null, STDOUT_FILENO);
        ::execl("/proc/self/exe", "hard_times", "--gtest_filter=SmallRegion.DISABLED_Inside",
                "--gtest_also_run_disabled_tests", nullptr);
        ::_exit(127);
    }
    int status = 0;
    if (!eventually([&] { return ::waitpid(child, &status, WNOHANG) == child; }, 200s)) {
        ::kill(child, SIGKILL);
        hang("pools in a small region");
    }
    EXPECT_EQ(status, 0);
}

}    // namespace
}    // namespace chaos
