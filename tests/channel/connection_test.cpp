#include <multihull/object.hpp>
#include <multihull/pipe.hpp>
#include <multihull/process.hpp>

#include "support/board.hpp"
#include "support/descriptors.hpp"
#include "support/python.hpp"
#include "support/start_methods.hpp"

#include <gtest/gtest.h>

#include <csignal>
#include <map>
#include <random>
#include <sys/socket.h>
#include <thread>
#include <unistd.h>

namespace {

using multihull::Connection;
using multihull::EndOfFile;
using multihull::Object;
using multihull::Pipe;
using namespace std::chrono_literals;

std::string text_of(const std::vector<std::byte>& bytes) {
    return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

// A socket of the test's own at the other end, to write what no Connection would.
struct RawPair {
    RawPair() {
        int ends[2];
        EXPECT_EQ(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends), 0);
        connection = Connection(multihull::FileDescriptor(ends[0]));
        raw = multihull::FileDescriptor(ends[1]);
    }
    void write(std::string_view bytes) const {
        ASSERT_EQ(::write(raw.fileno(), bytes.data(), bytes.size()), static_cast<ssize_t>(bytes.size()));
    }
    Connection connection;
    multihull::FileDescriptor raw;
};

TEST(Connection, BringsValuesOfAnyType) {
    auto [a, b] = Pipe();
    a.send(42);
    a.send("text");
    a.send(std::string_view("view"));
    a.send(std::map<std::string, std::vector<int>>{{"x", {1, 2}}});
    a.send(Object{42, nullptr, "hello"});
    EXPECT_EQ(b.recv<int>(), 42);
    EXPECT_EQ(b.recv<std::string>(), "text");
    EXPECT_EQ(b.recv<std::string>(), "view");
    EXPECT_EQ((b.recv<std::map<std::string, std::vector<int>>>().at("x")), (std::vector{1, 2}));
    EXPECT_EQ(b.recv<Object>().repr(), "[42, None, 'hello']");
    b.send(1.5);
    EXPECT_EQ(a.recv<double>(), 1.5);
}

TEST(Connection, SaysWhenAnotherTypeCame) {
    auto [a, b] = Pipe();
    a.send(std::string("a text of some length"));
    a.send(7);
    EXPECT_THROW(b.recv<double>(), multihull::CodecError);
    EXPECT_EQ(b.recv<int>(), 7);    // the next message is untouched
}

TEST(Connection, BringsBytesOfAnySize) {
    auto [a, b] = Pipe();
    std::mt19937 random(3);
    for (const std::size_t size : {0UL, 1UL, 3UL, 4096UL, 65536UL, 65537UL, 1000003UL, 33UL << 20}) {
        std::vector<std::byte> sent(size);
        for (std::size_t i = 0; i < size; i += 97) sent[i] = static_cast<std::byte>(random());
        std::thread sender([&] { a.send_bytes(sent); });
        EXPECT_EQ(b.recv_bytes(), sent);
        sender.join();
    }
}

TEST(Connection, ReceivesIntoMemoryOfTheCaller) {
    auto [a, b] = Pipe();
    std::array<std::byte, 8> room{};
    a.send_bytes("12345678");
    a.send_bytes("");
    a.send_bytes("too long a message");
    a.send_bytes("next");
    EXPECT_EQ(b.recv_bytes_into(room), 8U);
    EXPECT_EQ(b.recv_bytes_into(room), 0U);
    const auto error = test::thrown_by<multihull::BufferTooShort>([&] { b.recv_bytes_into(room); });
    EXPECT_EQ(text_of(error.message()), "too long a message");
    EXPECT_EQ(text_of(b.recv_bytes()), "next");
}

TEST(Connection, TakesNoLongerMessagesThanAllowed) {
    auto [a, b] = Pipe();
    a.send_bytes("1234");
    a.send_bytes("12345");
    EXPECT_EQ(text_of(b.recv_bytes(4)), "1234");
    EXPECT_THROW(b.recv_bytes(4), multihull::Error);
    EXPECT_TRUE(b.closed());
}

TEST(Connection, EndsWhereTheOtherEndDoes) {
    auto [a, b] = Pipe();
    a.send(1);
    a.close();
    EXPECT_TRUE(a.closed());
    EXPECT_TRUE(b.poll());
    EXPECT_EQ(b.recv<int>(), 1);
    EXPECT_TRUE(b.poll());
    EXPECT_THROW(b.recv<int>(), EndOfFile);
    EXPECT_THROW(b.recv_bytes(), EndOfFile);
    EXPECT_THROW(b.send(1), EndOfFile);    // and no SIGPIPE
    EXPECT_THROW(a.send(1), multihull::Error);
    EXPECT_THROW(a.poll(), multihull::Error);
    EXPECT_THROW(a.fileno(), multihull::Error);
}

TEST(Connection, GoesOneWayWhereAsked) {
    auto [receiver, sender] = Pipe(false);
    EXPECT_TRUE(receiver.readable());
    EXPECT_FALSE(receiver.writable());
    EXPECT_FALSE(sender.readable());
    EXPECT_TRUE(sender.writable());
    sender.send(5);
    EXPECT_EQ(receiver.recv<int>(), 5);
    EXPECT_THROW(receiver.send(1), multihull::Error);
    EXPECT_THROW(sender.recv<int>(), multihull::Error);
    EXPECT_THROW(sender.poll(), multihull::Error);
    sender.close();
    EXPECT_THROW(receiver.recv<int>(), EndOfFile);
}

TEST(Connection, WaitsNoLongerThanItIsTold) {
    auto [a, b] = Pipe();
    EXPECT_FALSE(b.poll());
    EXPECT_FALSE(b.poll(1ms));
    b.set_timeout(1ms);
    EXPECT_THROW(b.recv<int>(), multihull::WaitTimeout);
    EXPECT_FALSE(b.closed());
    a.send(1);
    EXPECT_EQ(b.recv<int>(), 1);
    // Nobody reads: what was cut short is never continued by another message.
    a.set_timeout(20ms);
    EXPECT_THROW(a.send_bytes(std::vector<std::byte>(8 << 20)), multihull::WaitTimeout);
    EXPECT_TRUE(a.closed());
    EXPECT_THROW(b.recv_bytes(), EndOfFile);
    EXPECT_TRUE(b.closed());
}

TEST(Connection, IsMadeOfStreamSocketsOnly) {
    int ends[2];
    ASSERT_EQ(::pipe(ends), 0);
    EXPECT_THROW(Connection(multihull::FileDescriptor(ends[0])), multihull::Error);
    EXPECT_THROW(Connection(multihull::FileDescriptor(ends[1])), multihull::Error);
    ASSERT_EQ(::socketpair(AF_UNIX, SOCK_DGRAM, 0, ends), 0);
    EXPECT_THROW(Connection(multihull::FileDescriptor(ends[0])), multihull::Error);
    EXPECT_THROW(Connection(multihull::FileDescriptor(ends[1])), multihull::Error);
    EXPECT_THROW(Connection(multihull::FileDescriptor(-1)), multihull::Error);
}

// Hostile peers.

TEST(HostilePeer, CannotMakeUsTakeMemoryByALength) {
    for (const std::string_view header :
         {std::string_view("\x7f\xff\xff\xff", 4), std::string_view("\xff\xff\xff\xff\x40\0\0\0\0\0\0\0", 12),
          std::string_view("\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", 12)}) {
        for (int way = 0; way < 3; ++way) {
            RawPair pair;
            pair.write(header);
            pair.write("a few bytes");
            pair.raw.close();
            std::vector<std::byte> room(64);
            const auto receive = [&] {
                if (way == 0) pair.connection.recv_bytes();
                if (way == 1) pair.connection.recv<std::string>();
                if (way == 2) pair.connection.recv_bytes_into(room);
            };
            EXPECT_THROW(receive(), EndOfFile);
            EXPECT_TRUE(pair.connection.closed());
        }
        RawPair pair;
        pair.write(header);
        EXPECT_THROW(pair.connection.recv_bytes(1 << 20), multihull::Error);
        EXPECT_TRUE(pair.connection.closed());
    }
}

TEST(HostilePeer, IsNotUnderstoodWhereItSpeaksNonsense) {
    RawPair pair;
    pair.write("\x80garbage");
    EXPECT_THROW(pair.connection.recv_bytes(), multihull::Error);
    EXPECT_TRUE(pair.connection.closed());
}

TEST(HostilePeer, WhoEndsInTheMiddleEndsTheConnection) {
    for (const std::string_view part :
         {std::string_view("\0", 1), std::string_view("\0\0\0\4", 4), std::string_view("\0\0\0\4abc", 7),
          std::string_view("\xff\xff\xff\xff\0\0", 6)}) {
        RawPair pair;
        pair.write(part);
        pair.raw.close();
        EXPECT_THROW(pair.connection.recv_bytes(), EndOfFile);
        EXPECT_TRUE(pair.connection.closed());
    }
}

TEST(HostilePeer, MaySendByteByByte) {
    RawPair pair;
    std::thread writer([&] {
        for (const char c : std::string_view("\0\0\0\5hello\xff\xff\xff\xff\0\0\0\0\0\0\0\2ok", 23)) {
            pair.write(std::string_view(&c, 1));
            std::this_thread::yield();
        }
    });
    EXPECT_EQ(text_of(pair.connection.recv_bytes()), "hello");
    EXPECT_EQ(text_of(pair.connection.recv_bytes()), "ok");
    writer.join();
}

TEST(HostilePeer, WhoStallsInTheMiddleRunsIntoTheTimeOut) {
    RawPair pair;
    pair.connection.set_timeout(5ms);
    pair.write(std::string_view("\0\0\1\0some", 8));
    EXPECT_THROW(pair.connection.recv_bytes(), multihull::WaitTimeout);
    EXPECT_TRUE(pair.connection.closed());
}

TEST(HostilePeer, SendsRandomBytesToNoEffect) {
    std::mt19937 random(17);
    for (int i = 0; i < 400; ++i) {
        RawPair pair;
        std::string bytes(1 + random() % 300, '\0');
        for (char& c : bytes) c = static_cast<char>(random());
        if (i % 2 == 0) bytes.replace(0, 4, std::string_view("\0\0\0\x20", 4));
        pair.write(bytes);
        pair.raw.close();
        for (;;) {
            try {
                static_cast<void>(pair.connection.recv<std::map<std::string, std::vector<std::string>>>());
            } catch (const multihull::CodecError&) {
                continue;    // that message was nothing; another may follow
            } catch (const multihull::Error&) {
                break;
            }
        }
    }
}

TEST(HostilePeer, CannotMakeUsKeepDescriptors) {
    const std::size_t before = test::open_descriptors();
    {
        auto [a, b] = Pipe();
        for (int i = 0; i < 50; ++i) {
            a.send(multihull::FileDescriptor::duplicate(0));
            EXPECT_THROW(b.recv<std::string>(), multihull::CodecError);
            a.send(multihull::FileDescriptor::duplicate(0));
            static_cast<void>(b.recv_bytes());
        }
        EXPECT_EQ(test::open_descriptors(), before + 2);
    }
    EXPECT_EQ(test::open_descriptors(), before);
}

// Descriptors.

TEST(Descriptors, TravelInMessages) {
    const std::size_t before = test::open_descriptors();
    {
        auto [a, b] = Pipe();
        auto [inner, travels] = Pipe();
        a.send(std::move(travels));
        EXPECT_TRUE(travels.closed());    // NOLINT(bugprone-use-after-move): that is what is asked
        auto arrived = b.recv<Connection>();
        inner.send("hello");
        EXPECT_EQ(arrived.recv<std::string>(), "hello");
        arrived.close();
        EXPECT_THROW(inner.recv<int>(), EndOfFile);

        std::vector<Connection> many;
        std::vector<Connection> ends;
        for (int i = 0; i < 100; ++i) {
            auto [x, y] = Pipe(false);
            many.push_back(std::move(x));
            ends.push_back(std::move(y));
        }
        a.send(std::pair<std::string, std::vector<Connection>>("a hundred", std::move(many)));
        auto [text, came] = b.recv<std::pair<std::string, std::vector<Connection>>>();
        EXPECT_EQ(text, "a hundred");
        for (std::size_t i = 0; i < 100; ++i) {
            ends.at(i).send(i);
            EXPECT_EQ(came.at(i).recv<std::size_t>(), i);
            EXPECT_FALSE(came.at(i).writable());
        }
    }
    EXPECT_EQ(test::open_descriptors(), before);
}

TEST(Descriptors, OfAMessageThatNobodyReadsAreClosed) {
    auto [inner, travels] = Pipe();
    {
        auto [a, b] = Pipe();
        a.send(std::move(travels));
    }
    EXPECT_THROW(inner.recv<int>(), EndOfFile);
}

TEST(Descriptors, TooManyForOneMessageAreRefused) {
    auto [a, b] = Pipe();
    std::vector<multihull::FileDescriptor> many;
    for (int i = 0; i < 254; ++i) many.push_back(multihull::FileDescriptor::duplicate(0));
    EXPECT_THROW(a.send(std::move(many)), multihull::CodecError);
    a.send(1);
    EXPECT_EQ(b.recv<int>(), 1);
}

TEST(Descriptors, AClosedOneCannotBeSent) {
    auto [a, b] = Pipe();
    EXPECT_THROW(a.send(multihull::FileDescriptor()), multihull::Error);
    EXPECT_THROW(a.send(Connection()), multihull::Error);
}

// Processes.

class ConnectionAcrossProcesses : public test::StartMethodTest {};
INSTANTIATE_TEST_SUITE_P(EachStartMethod, ConnectionAcrossProcesses, test::each_start_method(),
                         test::start_method_name);

void through_pipe(Connection connection) { connection.send(Object{42, nullptr, "hello"}); }

TEST_P(ConnectionAcrossProcesses, TheGallerysPipeWorks) {
    auto [parent_end, child_end] = Pipe();
    multihull::Process second(through_pipe, std::move(child_end));
    second.start();
    EXPECT_EQ(parent_end.recv<Object>().repr(), "[42, None, 'hello']");
    second.join();
    EXPECT_THROW(parent_end.recv<Object>(), EndOfFile);
}

void echo(std::vector<Connection> connections, std::string prefix, multihull::FileDescriptor file) {
    for (auto& connection : connections) connection.send(prefix + connection.recv<std::string>());
    ASSERT_EQ(::write(file.fileno(), "written", 7), 7);
}

TEST_P(ConnectionAcrossProcesses, ManyEndsMoveAtOnce) {
    const std::size_t before = test::open_descriptors();
    std::size_t while_running = 0;
    {
        std::vector<Connection> ours;
        std::vector<Connection> theirs;
        for (int i = 0; i < 20; ++i) {
            auto [a, b] = Pipe();
            ours.push_back(std::move(a));
            theirs.push_back(std::move(b));
        }
        int ends[2];
        ASSERT_EQ(::pipe2(ends, O_CLOEXEC), 0);
        const multihull::FileDescriptor read_end(ends[0]);
        multihull::Process process(echo, std::move(theirs), "re: ", multihull::FileDescriptor(ends[1]));
        process.start();
        while_running = test::open_descriptors();
        for (auto& end : ours) end.send("hi");
        for (auto& end : ours) EXPECT_EQ(end.recv<std::string>(), "re: hi");
        char text[8] = {};
        EXPECT_EQ(::read(read_end.fileno(), text, sizeof text), 7);
        EXPECT_EQ(::read(read_end.fileno(), text, sizeof text), 0);    // the only writer has ended
        process.join();
        EXPECT_EQ(process.exitcode(), 0);
    }
    EXPECT_LE(while_running, before + 21 + 12);    // none of what moved
    // The library's own thread and sockets stay once they are there.
    const std::size_t after = test::open_descriptors();
    {
        auto [parent_end, child_end] = Pipe();
        multihull::Process process(through_pipe, std::move(child_end));
        process.start();
        process.join();
    }
    // Sockets of zygotes that have ended are closed when the supervisor has seen it.
    EXPECT_TRUE(test::eventually([&] { return test::open_descriptors() <= after; }));
}

void die_at_once(Connection) { ::raise(SIGKILL); }
void stream(Connection connection) {
    const std::vector<std::byte> big(1 << 20);
    for (;;) connection.send_bytes(big);
}
void swallow(Connection connection) {
    for (;;) static_cast<void>(connection.recv_bytes());
}

TEST_P(ConnectionAcrossProcesses, TheEndOfAKilledProcessIsSeen) {
    auto [parent_end, child_end] = Pipe();
    multihull::Process process(die_at_once, std::move(child_end));
    process.start();
    EXPECT_THROW(parent_end.recv<int>(), EndOfFile);
    process.join();
}

TEST_P(ConnectionAcrossProcesses, PeersKilledAtRandomNeverHangOrHarmUs) {
    std::mt19937 random(23);
    for (int i = 0; i < 30; ++i) {
        auto [parent_end, child_end] = Pipe();
        multihull::Process process({.daemon = true}, i % 2 == 0 ? &stream : &swallow, std::move(child_end));
        process.start();
        std::thread killer([&] {
            const int turns = static_cast<int>(random() % 20000);
            for (int n = 0; n < turns; ++n) std::atomic_signal_fence(std::memory_order_seq_cst);
            process.kill();
        });
        const std::vector<std::byte> big(300'000, std::byte{7});
        EXPECT_THROW(
            {
                for (;;) {
                    if (i % 2 == 0) {
                        EXPECT_EQ(parent_end.recv_bytes().size(), std::size_t{1} << 20);
                    } else {
                        parent_end.send_bytes(big);
                    }
                }
            },
            EndOfFile);
        killer.join();
        process.join();
    }
}

// Python.

constexpr const char* kPythonPeer = R"(
import sys
from multiprocessing.connection import Connection
c = Connection(int(sys.argv[1]))
while True:
    try:
        message = c.recv_bytes()
    except EOFError:
        break
    c.send_bytes(bytes(reversed(message)))
)";

TEST(ConnectionWithPython, ExchangesBytesWithTheRealInterpreter) {
    int ends[2];
    ASSERT_EQ(::socketpair(AF_UNIX, SOCK_STREAM, 0, ends), 0);
    Connection ours{multihull::FileDescriptor(::fcntl(ends[0], F_DUPFD_CLOEXEC, 0))};
    ::close(ends[0]);
    std::thread interpreter([&] { test::python(kPythonPeer, {}, std::to_string(ends[1])); });
    std::mt19937 random(5);
    for (const std::size_t size : {0UL, 1UL, 5UL, 16380UL, 16385UL, 100'000UL, 5'000'000UL}) {
        std::vector<std::byte> sent(size);
        for (auto& byte : sent) byte = static_cast<std::byte>(random());
        // Python reads all of a message before it answers.
        ours.send_bytes(sent);
        std::ranges::reverse(sent);
        EXPECT_EQ(ours.recv_bytes(), sent);
    }
    ours.close();
    ::close(ends[1]);
    interpreter.join();
}

}    // namespace
