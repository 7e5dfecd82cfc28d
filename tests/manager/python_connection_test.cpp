#include <multihull/connection.hpp>
#include <multihull/pipe.hpp>
#include <multihull/process.hpp>

#include "support/board.hpp"
#include "support/folder.hpp"
#include "support/python_peer.hpp"

#include <gtest/gtest.h>

#include <optional>
#include <unistd.h>

namespace {

using multihull::Client;
using multihull::Connection;
using multihull::EndOfFile;
using multihull::Listener;
using multihull::Object;
using namespace std::chrono_literals;

// Sends back what it is sent, with what Python takes it for, until the connection ends. A str that begins with "!" is evaluated, and
// the value sent alone.
constexpr const char* kPeer = R"(
import sys, queue
from multiprocessing.connection import Client, Connection, Listener
def address(text):
    if text[0] == '@':
        return '\0' + text[1:]
    if '/' in text:
        return text
    host, port = text.rsplit(':', 1)
    return (host, int(port))
def converse(c):
    while True:
        try:
            value = c.recv()
        except EOFError:
            return
        if isinstance(value, str) and value.startswith('!'):
            c.send(eval(value[1:]))
        else:
            c.send((type(value).__name__, value))
key = sys.argv[3].encode() if len(sys.argv) > 3 else None
if sys.argv[1] == 'client':
    with Client(address(sys.argv[2]), authkey=key) as c:
        converse(c)
elif sys.argv[1] == 'listener':
    with Listener(address(sys.argv[2]), authkey=key) as listener:
        print('listening', flush=True)
        with listener.accept() as c:
            converse(c)
else:
    converse(Connection(int(sys.argv[2])))
)";

void expect_echo(Connection& connection, const Object& value, const std::string& type) {
    connection.send(value);
    EXPECT_EQ(connection.recv<Object>(), Object::tuple({type, value}));
}

void expect_conversation(Connection& connection) {
    EXPECT_TRUE(connection.python());
    expect_echo(connection, nullptr, "NoneType");
    expect_echo(connection, true, "bool");
    expect_echo(connection, -(std::int64_t{1} << 40), "int");
    expect_echo(connection, 2.5, "float");
    expect_echo(connection, "h\u00e9", "str");
    expect_echo(connection, Object::bytes("\x00\xff"), "bytes");
    expect_echo(connection, Object{1, "two", Object{}}, "list");
    expect_echo(connection, Object::tuple({1, Object::tuple()}), "tuple");
    expect_echo(connection, Object::dict({{"a", 1}, {2, Object::set({3})}}), "dict");
    expect_echo(connection, Object::set({1, 2}), "set");
    expect_echo(connection, Object::instance({.module = "queue", .name = "Full"}), "Full");
    // Python writes short messages at once, and longer ones in two pieces.
    for (const std::size_t size : {16370UL, 16385UL, 70'000UL, 3'000'000UL})
        expect_echo(connection, std::string(size, 'x'), "str");

    // Numbers and texts need no Object.
    connection.send("!6 * 7");
    EXPECT_EQ(connection.recv<int>(), 42);
    connection.send("!'a' + 'b'");
    EXPECT_EQ(connection.recv<std::string>(), "ab");
    connection.send("!1.5");
    EXPECT_EQ(connection.recv<double>(), 1.5);
    connection.send(7);
    EXPECT_EQ(connection.recv<Object>().repr(), "('int', 7)");

    // What is refused costs its message alone.
    connection.send("!1j.conjugate");
    try {
        connection.recv<Object>();
        FAIL();
    } catch (const multihull::UnpicklingError& error) {
        EXPECT_NE(std::string(error.what()).find("builtins.getattr"), std::string::npos) << error.what();
    }
    connection.send("!2 ** 100");
    EXPECT_THROW(connection.recv<Object>(), multihull::UnpicklingError);
    connection.send("!'text'");
    EXPECT_THROW(connection.recv<int>(), multihull::TypeError);
    connection.send("!300");
    EXPECT_THROW(connection.recv<std::uint8_t>(), multihull::Error);
    EXPECT_THROW(connection.send("\xff"), multihull::PicklingError);
    EXPECT_THROW(connection.send(std::vector<int>{1}), multihull::Error);
    EXPECT_THROW(connection.recv<std::vector<int>>(), multihull::Error);
    EXPECT_FALSE(connection.poll());
    connection.send("!KeyError('k')");
    EXPECT_TRUE(connection.poll(60s));
    const Object error = connection.recv<Object>();
    EXPECT_TRUE(error.is_a("builtins", "KeyError"));
    EXPECT_EQ(error.as_instance().args.at(0), "k");
}

TEST(PythonConnection, ItsClientsTalkToOurListener) {
    const test::Folder folder;
    for (const std::string& address : {std::string(), folder.path() + "/socket", std::string("127.0.0.1:0")}) {
        for (const bool with_key : {false, true}) {
            SCOPED_TRACE(address + (with_key ? " with a key" : ""));
            multihull::ListenerOptions options{.python = true};
            std::vector<std::string> arguments{"client", ""};
            if (with_key) {
                options.authkey = "secret";
                arguments.emplace_back("secret");
            }
            Listener listener(address, options);
            arguments[1] = listener.address();
            test::PythonPeer python(kPeer, arguments);
            Connection connection = listener.accept();
            expect_conversation(connection);
            connection.close();
            EXPECT_EQ(python.wait(), 0);
        }
    }
}

std::string free_port() {
    const Listener probe("127.0.0.1:0");
    return probe.address();
}

TEST(PythonConnection, OurClientsTalkToItsListener) {
    const test::Folder folder;
    for (const std::string& address :
         {"@multihull-python-" + std::to_string(::getpid()), folder.path() + "/socket", free_port()}) {
        for (const bool with_key : {false, true}) {
            SCOPED_TRACE(address + (with_key ? " with a key" : ""));
            multihull::ClientOptions options{.python = true};
            std::vector<std::string> arguments{"listener", address};
            if (with_key) {
                options.authkey = "secret";
                arguments.emplace_back("secret");
            }
            test::PythonPeer python(kPeer, arguments);
            ASSERT_EQ(python.read_line(), "listening");
            Connection connection = Client(address, options);
            expect_conversation(connection);
            connection.close();
            EXPECT_EQ(python.wait(), 0);
        }
    }
}

void converse(Connection connection) {
    connection.send("!6 * 7");
    connection.send(connection.recv<int>());
}

TEST(PythonConnection, ModeIsSetOnAnyConnectionAndMovesWithIt) {
    auto [ours, theirs] = multihull::Pipe();
    ours.set_python(true);
    const int inherited = ::dup(theirs.fileno());    // which the script inherits
    theirs.close();
    test::PythonPeer python(kPeer, {"descriptor", std::to_string(inherited)});
    ::close(inherited);
    expect_echo(ours, Object{1, 2}, "list");
    const int copy = ours.fileno();
    Connection answers{multihull::FileDescriptor::duplicate(copy)};
    answers.set_python(true);
    multihull::Process process(converse, std::move(ours));
    process.start();
    process.join();
    EXPECT_EQ(process.exitcode(), 0);
    EXPECT_EQ(answers.recv<Object>().repr(), "('int', 42)");
    answers.close();
    EXPECT_EQ(python.wait(), 0);
}

TEST(PythonConnection, EndsAndDamageAreErrors) {
    auto [ours, theirs] = multihull::Pipe();
    ours.set_python(true);
    theirs.send_bytes("no pickle");
    EXPECT_THROW(ours.recv<Object>(), multihull::UnpicklingError);
    theirs.send_bytes("");
    EXPECT_THROW(ours.recv<Object>(), multihull::UnpicklingError);
    theirs.send_bytes("\x80\x04K\x07.");
    EXPECT_EQ(ours.recv<int>(), 7) << "the connection stays";
    theirs.set_python(true);
    theirs.send(Object{1});
    EXPECT_EQ(ours.recv<Object>(), (Object{1}));
    // More than a pickle may be: refused before its bytes come.
    const std::array<unsigned char, 12> header{0xff, 0xff, 0xff, 0xff, 0, 0, 1, 0, 0, 0, 0, 0};
    ASSERT_EQ(::write(theirs.fileno(), header.data(), header.size()), static_cast<ssize_t>(header.size()));
    EXPECT_THROW(ours.recv<Object>(), multihull::Error);
    EXPECT_TRUE(ours.closed());
    EXPECT_THROW(theirs.recv<Object>(), EndOfFile);
}

}    // namespace
