// Descriptors on their way through shared memory: into tasks of pools and back, and through bytes that anybody may read.
#include <multihull/pipe.hpp>
#include <multihull/pool.hpp>
#include <multihull/process.hpp>

#include "os/fault.hpp"
#include "os/fd.hpp"
#include "process/exchange.hpp"
#include "shm/region.hpp"
#include "support/board.hpp"
#include "support/descriptors.hpp"
#include "support/start_methods.hpp"

#include <gtest/gtest.h>

#include <csignal>
#include <fcntl.h>
#include <sys/wait.h>
#include <thread>
#include <unistd.h>
#include <utility>
#include <vector>

namespace {

using multihull::Connection;
using multihull::EndOfFile;
using multihull::FileDescriptor;
using multihull::Pipe;
using multihull::detail::kept_descriptors;
namespace mh = multihull;

class DescriptorsOfTasks : public test::StartMethodTest {
protected:
    const std::size_t kept_before_ = kept_descriptors();
};
INSTANTIATE_TEST_SUITE_P(EachStartMethod, DescriptorsOfTasks, test::each_start_method(), test::start_method_name);

std::string answer(Connection connection) {
    connection.send("from the task");
    return connection.recv<std::string>();
}

Connection make_connection(Connection out) {
    auto [a, b] = Pipe();
    b.send("sent before it left");
    out.send(std::move(a));
    return std::move(b);
}

TEST_P(DescriptorsOfTasks, GoInAndComeOut) {
    mh::Pool pool(2);
    for (int i = 0; i < 20; ++i) {
        auto [ours, theirs] = Pipe();
        auto future = pool.apply_async(answer, std::move(theirs));
        EXPECT_EQ(ours.recv<std::string>(), "from the task");
        ours.send("back");
        EXPECT_EQ(future.get(), "back");
        EXPECT_THROW(ours.recv<int>(), EndOfFile);    // nobody holds the other end any more
    }
    for (int i = 0; i < 20; ++i) {
        auto [ours, theirs] = Pipe();
        Connection end = pool.apply(make_connection, std::move(theirs));
        auto other = ours.recv<Connection>();
        EXPECT_EQ(other.recv<std::string>(), "sent before it left");
        other.send(i);
        EXPECT_EQ(end.recv<int>(), i);
    }
    EXPECT_EQ(kept_descriptors() - kept_before_, 0U);
}

TEST_P(DescriptorsOfTasks, AsManyAsAProcessCanBeGivenAndNoMore) {
    const int null = ::open("/dev/null", O_RDWR | O_CLOEXEC);
    for (const std::size_t count : {251u, 252u, 253u}) {
        std::vector<FileDescriptor> many;
        for (std::size_t i = 0; i < count; ++i) many.push_back(FileDescriptor::duplicate(null));
        mh::Process process([](const std::vector<FileDescriptor>& all) { ::_exit(static_cast<int>(all.size() % 100)); },
                            std::move(many));
        // Beside them go the child's stdout and stderr, and one message holds 253.
        if (GetParam() != mh::StartMethod::fork && count > 251) {
            EXPECT_THROW(process.start(), mh::CodecError);
            continue;
        }
        process.start();
        process.join();
        EXPECT_EQ(process.exitcode(), static_cast<int>(count % 100));
    }
    ::close(null);
}

TEST_P(DescriptorsOfTasks, AreReadOnceFromAFuture) {
    mh::Pool pool(1);
    auto [ours, theirs] = Pipe();
    auto future = pool.apply_async(make_connection, std::move(theirs));
    EXPECT_NO_THROW(future.get());
    EXPECT_THROW(future.get(), mh::CodecError);
}

TEST_P(DescriptorsOfTasks, OfAResultThatNobodyReadsAreClosed) {
    mh::Pool pool(1);
    auto [ours, theirs] = Pipe();
    {
        auto future = pool.apply_async(make_connection, std::move(theirs));
        future.wait();
        EXPECT_EQ(kept_descriptors() - kept_before_, 1U);
    }
    auto end = ours.recv<Connection>();
    EXPECT_EQ(end.recv<std::string>(), "sent before it left");
    EXPECT_THROW(end.recv<int>(), EndOfFile);
    EXPECT_EQ(kept_descriptors() - kept_before_, 0U);
}

void crash_with(Connection) { ::raise(SIGKILL); }
void ignore(Connection) {}

TEST_P(DescriptorsOfTasks, OfATaskThatNeverRunsAreClosed) {
    test::Board board;
    mh::Pool pool(1);
    auto holding = pool.apply_async(test::hold, board.path(), 1);
    auto [ours, theirs] = Pipe();
    auto waiting = pool.apply_async(ignore, std::move(theirs));
    EXPECT_EQ(kept_descriptors() - kept_before_, 1U);
    EXPECT_TRUE(waiting.cancel());
    EXPECT_THROW(ours.recv<int>(), EndOfFile);
    board[test::kLetGo] = 1;
    EXPECT_EQ(holding.get(), 1);
    EXPECT_EQ(kept_descriptors() - kept_before_, 0U);
}

TEST_P(DescriptorsOfTasks, OfAPoolThatIsTerminatedAreClosed) {
    test::Board board;
    auto [ours, theirs] = Pipe();
    {
        mh::Pool pool(1);
        auto holding = pool.apply_async(test::hold, board.path(), 1);
        auto waiting = pool.apply_async(ignore, std::move(theirs));
        pool.terminate();
        pool.join();
    }
    EXPECT_THROW(ours.recv<int>(), EndOfFile);
    EXPECT_EQ(kept_descriptors() - kept_before_, 0U);
}

TEST_P(DescriptorsOfTasks, AreNotSentASecondTime) {
    mh::Pool pool({.processes = 1, .retries = 3});
    auto [ours, theirs] = Pipe();
    auto future = pool.apply_async(crash_with, std::move(theirs));
    EXPECT_THROW(future.get(), mh::WorkerCrashed);    // not an error about a descriptor that a first attempt took
    EXPECT_THROW(ours.recv<int>(), EndOfFile);
}

TEST(DescriptorsOfPools, AreRefusedWhereEveryWorkerWouldNeedOne) {
    auto [a, b] = Pipe();
    EXPECT_THROW(mh::Pool({.processes = 2, .initializer = mh::Call(ignore, std::move(a))}), mh::CodecError);
}

// By bytes alone.

std::vector<std::byte> bytes_of(Connection connection) {
    mh::detail::VectorGrowth growth;
    mh::detail::Writer writer({}, growth);
    mh::detail::encode(writer, connection);
    return {writer.bytes().begin(), writer.bytes().end()};
}

Connection from(const std::vector<std::byte>& bytes) {
    mh::detail::Reader reader(bytes);
    return mh::detail::decode<Connection>(reader);
}

class DescriptorsInBytes : public test::StartMethodTest {};
INSTANTIATE_TEST_SUITE_P(EachStartMethod, DescriptorsInBytes, test::each_start_method(), test::start_method_name);

void read_bytes(std::vector<std::byte> bytes) { from(bytes).send("taken"); }
void write_bytes(Connection out) {
    auto [a, b] = Pipe();
    b.send("kept");
    out.send(bytes_of(std::move(a)));
    out.send(bytes_of(std::move(b)));
    auto [c, d] = Pipe();
    out.send(bytes_of(std::move(c)));
    d.send("the process is gone");
}

TEST_P(DescriptorsInBytes, AreTakenByAnyProcessOfTheFamily) {
    auto [ours, theirs] = Pipe();
    mh::Process process(read_bytes, bytes_of(std::move(theirs)));
    process.start();
    EXPECT_EQ(ours.recv<std::string>(), "taken");
    EXPECT_THROW(ours.recv<int>(), EndOfFile);
    process.join();
    EXPECT_EQ(process.exitcode(), 0);
}

TEST_P(DescriptorsInBytes, OutliveTheProcessThatSentThem) {
    const std::size_t before = kept_descriptors();
    auto [ours, theirs] = Pipe();
    mh::Process process(write_bytes, std::move(theirs));
    process.start();
    const auto a = ours.recv<std::vector<std::byte>>();
    const auto b = ours.recv<std::vector<std::byte>>();
    const auto c = ours.recv<std::vector<std::byte>>();
    process.join();
    EXPECT_EQ(process.exitcode(), 0);
    Connection first = from(a);
    EXPECT_EQ(first.recv<std::string>(), "kept");
    EXPECT_THROW(from(a), mh::CodecError);
    Connection second = from(b);
    second.send(4);
    EXPECT_EQ(first.recv<int>(), 4);
    Connection third = from(c);
    EXPECT_EQ(third.recv<std::string>(), "the process is gone");
    EXPECT_THROW(third.recv<int>(), EndOfFile);
    EXPECT_EQ(kept_descriptors(), before);
}

TEST(DescriptorsInBytes, AreNotGivenToOneWhoGuesses) {
    auto [ours, theirs] = Pipe();
    auto bytes = bytes_of(std::move(theirs));
    auto wrong = bytes;
    wrong.back() ^= std::byte{1};
    EXPECT_THROW(from(wrong), mh::CodecError);
    EXPECT_NO_THROW(from(bytes));
}

TEST(DescriptorsInBytes, AreNotHeldByAForkedChild) {
    auto [ours, theirs] = Pipe();
    const auto bytes = bytes_of(std::move(theirs));
    auto [stop, child_stop] = Pipe();
    const pid_t child = ::fork();
    ASSERT_GE(child, 0);
    if (child == 0) {
        stop.close();
        ours.close();
        try {
            child_stop.send(kept_descriptors());
            static_cast<void>(child_stop.recv<int>());
        } catch (...) {
            ::_exit(0);
        }
        ::_exit(1);
    }
    child_stop.close();
    EXPECT_EQ(stop.recv<std::size_t>(), 0U);
    from(bytes).close();
    EXPECT_THROW(ours.recv<int>(), EndOfFile);    // while the child lives
    stop.close();
    int status = 0;
    ::waitpid(child, &status, 0);
    EXPECT_EQ(status, 0);
}

// Kill points.

#ifdef MULTIHULL_FAILPOINTS

using mh::os::KillPoint;

void arm(KillPoint point) {
    mh::shm::Region::instance().header().kill_points.countdown[static_cast<std::uint32_t>(point)].store(1);
}

void leave_in_bytes(Connection out) {
    auto [a, b] = Pipe();
    out.send(bytes_of(std::move(a)));
    b.send("left");
}

// A process that is killed in the middle of asking holds up nobody, and what it asked for is closed with it.
TEST_P(DescriptorsInBytes, AreLostWithTheProcessThatWasTakingThem) {
    const std::size_t before = kept_descriptors();
    auto [ours, theirs] = Pipe();
    auto bytes = bytes_of(std::move(theirs));
    mh::Process process(read_bytes, bytes);
    arm(KillPoint::descriptor_asked);
    process.start();
    process.join();
    EXPECT_EQ(process.exitcode(), -SIGKILL);
    EXPECT_THROW(ours.recv<int>(), EndOfFile);
    EXPECT_TRUE(test::eventually([&] { return kept_descriptors() == before; }));
}

TEST_P(DescriptorsInBytes, AreKeptForTheFamilyWhenTheirSenderIsKilledBeforeItSaysSo) {
    const std::size_t before = kept_descriptors();
    auto [ours, theirs] = Pipe();
    mh::Process process(leave_in_bytes, std::move(theirs));
    arm(KillPoint::descriptor_asked);
    process.start();
    EXPECT_THROW(ours.recv<std::vector<std::byte>>(), EndOfFile);
    process.join();
    EXPECT_EQ(process.exitcode(), -SIGKILL);
    // One that nobody will ever ask for, or none, if its request had not been read yet when it died.
    EXPECT_LE(kept_descriptors(), before + 1);
    // And nothing is held up.
    auto [again, their_end] = Pipe();
    mh::Process next(leave_in_bytes, std::move(their_end));
    next.start();
    EXPECT_EQ(from(again.recv<std::vector<std::byte>>()).recv<std::string>(), "left");
    next.join();
}

// A keeper that is killed: here a child with a family of its own to keep for. Its own child waits for its end, needs a keeper, and
// becomes it.
[[noreturn]] void keep_and_die(Connection report) {
    ::alarm(60);
    mh::shm::Region::instance().header().fd_keeper.store(0);
    mh::detail::keep_descriptors_of_family();
    auto [ours, theirs] = Pipe();
    const auto bytes = bytes_of(std::move(theirs));
    const pid_t keeper = ::getpid();
    const pid_t grandchild = ::fork();
    if (grandchild == 0) {
        ::alarm(60);
        arm(KillPoint::descriptor_given);
        bool taken = false;
        try {
            from(bytes).send("got it");
            taken = true;
        } catch (const mh::CodecError&) {
            // The answer was lost with the keeper: said, and not waited for.
        }
        while (::getppid() == keeper) ::sched_yield();
        EXPECT_THROW(from(bytes), mh::CodecError);
        auto [a, b] = Pipe();
        Connection again = from(bytes_of(std::move(b)));
        a.send(taken);
        report.send(again.recv<bool>() == taken);
        ::_exit(0);
    }
    int status = 0;
    ::waitpid(grandchild, &status, 0);
    ::_exit(1);
}

// The same, killed when it has the descriptor and has not yet said so.
[[noreturn]] void keep_and_die_unheard(Connection report) {
    ::alarm(60);
    mh::shm::Region::instance().header().fd_keeper.store(0);
    mh::detail::keep_descriptors_of_family();
    const pid_t keeper = ::getpid();
    const pid_t grandchild = ::fork();
    if (grandchild == 0) {
        ::alarm(60);
        arm(KillPoint::descriptor_kept);
        auto [ours, theirs] = Pipe();
        bool said = false;
        try {
            bytes_of(std::move(theirs));
        } catch (const mh::Error&) {
            said = true;
        }
        while (::getppid() == keeper) ::sched_yield();
        bool closed = false;
        try {
            ours.recv<bool>();
        } catch (const EndOfFile&) {
            closed = true;
        }
        auto [a, b] = Pipe();
        Connection again = from(bytes_of(std::move(b)));
        a.send(true);
        report.send(said && closed && again.recv<bool>());
        ::_exit(0);
    }
    int status = 0;
    ::waitpid(grandchild, &status, 0);
    ::_exit(1);
}

class KeeperKilled : public testing::TestWithParam<void (*)(Connection)> {};
INSTANTIATE_TEST_SUITE_P(DescriptorsInBytes, KeeperKilled, testing::Values(&keep_and_die, &keep_and_die_unheard));

TEST_P(KeeperKilled, IsFollowedByAnother) {
    const auto before = mh::shm::Region::instance().header().fd_keeper.load();
    auto [ours, theirs] = Pipe();
    const pid_t child = ::fork();
    ASSERT_GE(child, 0);
    if (child == 0) {
        ours.close();
        GetParam()(std::move(theirs));
    }
    theirs.close();
    EXPECT_TRUE(ours.recv<bool>());
    int status = 0;
    ::waitpid(child, &status, 0);
    EXPECT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL) << status;
    EXPECT_THROW(ours.recv<bool>(), EndOfFile);    // the last of them has ended
    mh::shm::Region::instance().header().fd_keeper.store(before);
}

#endif

}    // namespace
