#include <multihull/connection.hpp>
#include <multihull/log.hpp>

#include "support/board.hpp"
#include "support/descriptors.hpp"
#include "support/folder.hpp"
#include "support/python.hpp"

#include <gtest/gtest.h>

#include <atomic>
#include <filesystem>
#include <fstream>
#include <poll.h>
#include <random>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <thread>
#include <unistd.h>

namespace {

using multihull::Client;
using multihull::Connection;
using multihull::EndOfFile;
using multihull::Listener;
using namespace std::chrono_literals;

std::string text_of(const std::vector<std::byte>& bytes) {
    return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

bool has_ipv6() {
    try {
        const Listener listener("[::1]:0");
        return true;
    } catch (const multihull::Error&) {
        return false;
    }
}

// Drops what is logged, and counts it: clients that are turned away are the point of some tests.
class QuietLog {
public:
    QuietLog() {
        multihull::set_log_sink([this](multihull::LogLevel, std::string_view) { ++lines; });
    }
    ~QuietLog() { multihull::set_log_sink({}); }
    std::atomic<int> lines{0};
};

void expect_conversation(Listener& listener, const multihull::ClientOptions& options = {}) {
    std::thread client([&, address = listener.address()] {
        Connection connection = Client(address, options);
        connection.send(connection.recv<int>() + 1);
    });
    Connection accepted = listener.accept();
    accepted.send(41);
    EXPECT_EQ(accepted.recv<int>(), 42);
    EXPECT_THROW(accepted.recv<int>(), EndOfFile);
    client.join();
}

TEST(Listener, ListensAtAddressesOfEveryKind) {
    const test::Folder folder;
    std::vector<std::string> addresses{"", "@multihull-test-" + std::to_string(::getpid()), folder.path() + "/socket",
                                       "127.0.0.1:0", "localhost:0"};
    if (has_ipv6()) addresses.push_back("[::1]:0");
    for (const std::string& address : addresses) {
        for (const bool with_key : {false, true}) {
            multihull::ListenerOptions options;
            multihull::ClientOptions client;
            if (with_key) options.authkey = client.authkey = "a key";
            Listener listener(address, options);
            if (address.ends_with(":0")) {
                EXPECT_FALSE(listener.address().ends_with(":0")) << listener.address();
            }
            expect_conversation(listener, client);
            expect_conversation(listener, client);
            if (address.find(':') != address.npos) {
                EXPECT_NE(listener.last_accepted(), "");
            }
        }
    }
}

TEST(Listener, RemovesItsPathAndNoOther) {
    const test::Folder folder;
    const std::string path = folder.path() + "/socket";
    {
        Listener listener(path);
        EXPECT_TRUE(std::filesystem::exists(path));
        const auto error = test::thrown_by<multihull::Error>([&] { Listener second(path); });
        EXPECT_NE(std::string(error.what()).find("listens there already"), std::string::npos) << error.what();
        // A forked child's copy does not remove it.
        const pid_t child = ::fork();
        if (child == 0) {
            listener.close();
            ::_exit(0);
        }
        ::waitpid(child, nullptr, 0);
        EXPECT_TRUE(std::filesystem::exists(path));
        listener.close();
        EXPECT_FALSE(std::filesystem::exists(path));
        EXPECT_TRUE(listener.closed());
        EXPECT_THROW(listener.accept(), multihull::Error);
    }
    Listener first(path);
    std::filesystem::remove(path);
    {
        const Listener second(path);
        first.close();
        EXPECT_TRUE(std::filesystem::exists(path));    // the second's
    }
    EXPECT_FALSE(std::filesystem::exists(path));
}

TEST(Listener, SaysWhatIsWrongWithAnAddress) {
    const test::Folder folder;
    const auto complaint = [](const std::string& address) {
        return std::string(test::thrown_by<multihull::Error>([&] { Listener listener(address); }).what());
    };
    EXPECT_NE(complaint(folder.path() + "/" + std::string(200, 'x')).find("too long"), std::string::npos);
    EXPECT_NE(complaint("127.0.0.1:99999").find("port"), std::string::npos);
    EXPECT_NE(complaint("127.0.0.1:").find("port"), std::string::npos);
    EXPECT_NE(complaint("no.such.host.invalid:1").find("no.such.host.invalid"), std::string::npos);
    EXPECT_NE(complaint(folder.path() + "/no/such/folder").find("choose another"), std::string::npos);
    std::ofstream(folder.path() + "/file") << "text";
    EXPECT_NE(complaint(folder.path() + "/file").find("no socket"), std::string::npos);
    EXPECT_TRUE(std::filesystem::exists(folder.path() + "/file"));
    // A socket that nobody listens on any more.
    const int stale = ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    sockaddr_un where{};
    where.sun_family = AF_UNIX;
    const std::string path = folder.path() + "/stale";
    path.copy(where.sun_path, sizeof where.sun_path - 1);
    ASSERT_EQ(::bind(stale, reinterpret_cast<sockaddr*>(&where), sizeof where), 0);
    ::close(stale);
    EXPECT_NE(complaint(path).find("remove the file"), std::string::npos);
}

TEST(Client, SaysThatNobodyListens) {
    const test::Folder folder;
    EXPECT_THROW(Client("@multihull-nobody-" + std::to_string(::getpid())), multihull::Error);
    EXPECT_THROW(Client(folder.path() + "/nothing"), multihull::Error);
    EXPECT_THROW(Client(""), multihull::Error);
    std::string address;
    {
        const Listener listener("127.0.0.1:0");
        address = listener.address();
    }
    EXPECT_THROW(Client(address), multihull::Error);
}

TEST(Listener, AcceptsForAsLongAsItIsTold) {
    Listener listener;
    EXPECT_FALSE(listener.try_accept(0s));
    EXPECT_FALSE(listener.try_accept(2ms));
    const Connection client = Client(listener.address());
    EXPECT_TRUE(listener.try_accept(10s));
}

bool readable(int descriptor) {
    pollfd entry{descriptor, POLLIN, 0};
    return ::poll(&entry, 1, 0) == 1;
}

TEST(Listener, WatchesNoConnectionThatItHasGivenAway) {
    Listener listener({}, {.authkey = "secret"});
    const int watched = listener.wait_descriptor();
    EXPECT_FALSE(readable(watched));
    std::jthread client([address = listener.address()] {
        auto connection = Client(address, {.authkey = "secret"});
        connection.send(1);
        EXPECT_THROW(connection.recv<int>(), EndOfFile);
    });
    ASSERT_TRUE(test::eventually([&] { return readable(watched); })) << "somebody has come";
    Connection accepted = listener.accept();
    ASSERT_TRUE(accepted.poll(test::kPatience)) << "and has something to say";
    EXPECT_FALSE(readable(watched));
    auto copy = multihull::FileDescriptor::duplicate(accepted.fileno());
    accepted.close();
    EXPECT_FALSE(readable(watched)) << "whoever has the socket by now";
    copy.close();
}

TEST(Handshake, TurnsAwayWhoDoesNotKnowTheKey) {
    QuietLog log;
    Listener listener("", {.authkey = "right"});
    std::thread clients([&] {
        EXPECT_THROW(Client(listener.address(), {.authkey = "wrong"}), multihull::AuthenticationError);
        EXPECT_THROW(Client(listener.address(), {.authkey = ""}), multihull::AuthenticationError);
        // It takes the challenge for a message, and hears no more.
        Connection without = Client(listener.address());
        EXPECT_TRUE(text_of(without.recv_bytes()).starts_with("#CHALLENGE#"));
        without.send_bytes("#WELCOME#");
        EXPECT_EQ(text_of(without.recv_bytes()), "#FAILURE#");
        EXPECT_THROW(without.recv_bytes(), EndOfFile);
        Connection right = Client(listener.address(), {.authkey = "right"});
        right.send(1);
    });
    EXPECT_EQ(listener.accept().recv<int>(), 1);
    clients.join();
    EXPECT_EQ(log.lines, 3);
}

TEST(Handshake, IsNotHeldUpByThoseWhoSayNothing) {
    QuietLog log;
    const std::size_t before = test::open_descriptors();
    {
        Listener listener("", {.authkey = "key", .handshake_timeout = 50ms});
        std::vector<Connection> silent;
        for (int i = 0; i < 100; ++i) silent.push_back(Client(listener.address()));
        for (int i = 0; i < 3; ++i) {
            // Bytes, then nothing.
            silent.push_back(Client(listener.address()));
            ASSERT_EQ(::write(silent.back().fileno(), "\0\0\0", 3), 3);
        }
        expect_conversation(listener, {.authkey = "key"});
        EXPECT_FALSE(listener.try_accept(200ms));
        for (auto& one : silent) {
            EXPECT_TRUE(text_of(one.recv_bytes()).starts_with("#CHALLENGE#"));
            EXPECT_THROW(one.recv_bytes(), EndOfFile);
        }
        EXPECT_EQ(log.lines, 103);
    }
    EXPECT_EQ(test::open_descriptors(), before);
}

TEST(Handshake, IsNotHarmedByNonsense) {
    QuietLog log;
    Listener listener("", {.authkey = "key"});
    std::mt19937 random(29);
    for (int i = 0; i < 200; ++i) {
        Connection hostile = Client(listener.address());
        std::string bytes(random() % 600, '\0');
        for (char& c : bytes) c = static_cast<char>(random());
        if (i % 3 == 0 && bytes.size() > 8) bytes.replace(0, 4, std::string_view("\0\0\0\x30", 4));
        if (i % 3 == 1) bytes = std::string("\0\0\0\x1b{sha256}", 12) + bytes;
        ASSERT_EQ(::send(hostile.fileno(), bytes.data(), bytes.size(), MSG_NOSIGNAL),
                  static_cast<ssize_t>(bytes.size()));
        if (i % 2 == 0) hostile.close();
        EXPECT_FALSE(listener.try_accept(0s));
    }
    expect_conversation(listener, {.authkey = "key"});
}

TEST(Handshake, DoesNotWaitForAListenerThatSaysNothing) {
    const Listener listener;    // it asks for no key
    EXPECT_THROW(Client(listener.address(), {.authkey = "key", .timeout = 20ms}), multihull::WaitTimeout);
}

// What goes on behind the handshake is not read with it.
TEST(Handshake, LeavesTheFirstMessageAlone) {
    Listener listener("", {.authkey = "key"});
    std::thread client([&] {
        Connection connection = Client(listener.address(), {.authkey = "key"});
        for (int i = 0; i < 100; ++i) connection.send(i);
    });
    Connection accepted = listener.accept();
    for (int i = 0; i < 100; ++i) EXPECT_EQ(accepted.recv<int>(), i);
    client.join();
}

// Python.

constexpr const char* kPythonAddress = R"(
import sys
from multiprocessing.connection import Client, Listener, AuthenticationError
def address(text):
    if text[0] == '@':
        return '\0' + text[1:]
    if '/' in text:
        return text
    host, port = text.rsplit(':', 1)
    return (host.strip('[]'), int(port))
)";

constexpr const char* kPythonClient = R"(
key = sys.argv[2].encode() if len(sys.argv) > 2 else None
with Client(address(sys.argv[1]), authkey=key) as c:
    c.send_bytes(c.recv_bytes()[::-1])
)";

constexpr const char* kPythonListener = R"(
key = sys.argv[2].encode() if len(sys.argv) > 2 else None
with Listener(address(sys.argv[1]), authkey=key) as listener:
    while True:
        try:
            with listener.accept() as c:
                message = c.recv_bytes()
                c.send_bytes(message[::-1])
                if message == b'stop':
                    break
        except AuthenticationError:
            pass
)";

TEST(WithPython, ItsClientsConnect) {
    const test::Folder folder;
    for (const std::string& address : {std::string(), folder.path() + "/socket", std::string("127.0.0.1:0")}) {
        for (const bool with_key : {false, true}) {
            multihull::ListenerOptions options;
            if (with_key) options.authkey = "secret";
            Listener listener(address, options);
            std::thread python([&] {
                test::python(std::string(kPythonAddress) + kPythonClient, {},
                             "'" + listener.address() + "'" + (with_key ? " secret" : ""));
            });
            Connection accepted = listener.accept();
            accepted.send_bytes("hello");
            EXPECT_EQ(text_of(accepted.recv_bytes()), "olleh");
            python.join();
        }
    }
}

TEST(WithPython, OurClientsConnectToIt) {
    const test::Folder folder;
    for (const bool with_key : {false, true}) {
        const std::string address =
            with_key ? folder.path() + "/socket" : "@multihull-py-" + std::to_string(::getpid());
        std::thread python([&] {
            test::python(std::string(kPythonAddress) + kPythonListener, {},
                         "'" + address + "'" + (with_key ? " secret" : ""));
        });
        multihull::ClientOptions options;
        if (with_key) options.authkey = "secret";
        std::optional<Connection> connection;
        EXPECT_TRUE(test::eventually([&] {
            try {
                connection = Client(address, options);
                return true;
            } catch (const multihull::Error&) {
                return false;    // it has not started yet
            }
        }));
        connection->send_bytes("hello");
        EXPECT_EQ(text_of(connection->recv_bytes()), "olleh");
        if (with_key) {
            EXPECT_THROW(Client(address, {.authkey = "wrong"}), multihull::AuthenticationError);
        }
        connection = Client(address, options);
        connection->send_bytes("stop");
        EXPECT_EQ(text_of(connection->recv_bytes()), "pots");
        python.join();
    }
}

TEST(WithPython, ItsClientsAreTurnedAwayWithoutTheKey) {
    QuietLog log;
    Listener listener("", {.authkey = "secret"});
    std::atomic<bool> done = false;
    std::thread python([&] {
        EXPECT_EQ(test::python(std::string(kPythonAddress) + R"(
try:
    Client(address(sys.argv[1]), authkey=b'wrong')
except AuthenticationError:
    print('turned away')
)",
                               {}, "'" + listener.address() + "'"),
                  "turned away\n");
        done = true;
    });
    while (!done) EXPECT_FALSE(listener.try_accept(1ms));
    python.join();
}

// The handshake as Python 3.12 and later do it, written down here so that any Python can be the judge.
constexpr const char* kLaterPython = R"(
import hmac, os, sys
from multiprocessing.connection import Connection, Client, Listener
digest, key = sys.argv[2], b'secret'
def deliver(c):
    challenge = b'{%s}' % digest.encode() + os.urandom(40)
    c.send_bytes(b'#CHALLENGE#' + challenge)
    answer = c.recv_bytes(256)
    name, code = answer[1:].split(b'}', 1)
    assert answer[:1] == b'{' and name.decode() == digest, answer
    assert hmac.compare_digest(code, hmac.new(key, challenge, name.decode()).digest())
    c.send_bytes(b'#WELCOME#')
def answer(c):
    challenge = c.recv_bytes(256)
    assert challenge.startswith(b'#CHALLENGE#{sha256}') and len(challenge) == 11 + 48, challenge
    # Any digest that is allowed may be answered with.
    c.send_bytes(b'{%s}' % digest.encode() + hmac.new(key, challenge[11:], digest).digest())
    assert c.recv_bytes(256) == b'#WELCOME#'
if sys.argv[3] == 'client':
    with Client('\0' + sys.argv[1][1:]) as c:
        answer(c)
        deliver(c)
        c.send_bytes(b'through')
else:
    with Listener('\0' + sys.argv[1][1:]) as listener, listener.accept() as c:
        deliver(c)
        answer(c)
        c.send_bytes(b'through')
)";

TEST(WithPython, EveryDigestOfLaterVersionsIsSpoken) {
    for (const std::string digest : {"md5", "sha256", "sha384", "sha3_256", "sha3_384"}) {
        {
            Listener listener("", {.authkey = "secret"});
            std::thread python([&] {
                test::python(kLaterPython, {}, "'" + listener.address() + "' " + digest + " client");
            });
            EXPECT_EQ(text_of(listener.accept().recv_bytes()), "through");
            python.join();
        }
        const std::string address = "@multihull-later-" + digest + std::to_string(::getpid());
        std::thread python([&] { test::python(kLaterPython, {}, "'" + address + "' " + digest + " listener"); });
        std::optional<Connection> connection;
        EXPECT_TRUE(test::eventually([&] {
            try {
                connection = Client(address, {.authkey = "secret"});
                return true;
            } catch (const multihull::AuthenticationError&) {
                return true;
            } catch (const multihull::Error&) {
                return false;    // it has not started yet
            }
        }));
        ASSERT_TRUE(connection) << digest;
        EXPECT_EQ(text_of(connection->recv_bytes()), "through");
        python.join();
    }
}

}    // namespace
