// Connections and listeners in an event loop.
#include "asio/loop.hpp"

#include "shm/objects.hpp"

#include <multihull/event.hpp>
#include <multihull/pipe.hpp>
#include <multihull/process.hpp>

#include <algorithm>
#include <atomic>
#include <csignal>
#include <dlfcn.h>
#include <functional>
#include <memory>
#include <netdb.h>
#include <optional>
#include <string>
#include <sys/socket.h>
#include <unistd.h>
#include <vector>

namespace {

// The system's resolver, which may take its time.
class Resolver {
public:
    static void hold() { held_ = true; }
    static void let_go() {
        held_ = false;
        held_.notify_all();
    }
    static int asked() { return asked_; }
    static void answer() {
        ++asked_;
        held_.wait(true);
    }

private:
    static inline std::atomic<bool> held_{false};
    static inline std::atomic<int> asked_{0};
};

}    // namespace

// The one that the library calls.
extern "C" int getaddrinfo(const char* host, const char* port, const addrinfo* hints, addrinfo** found) {
    using Function = int(const char*, const char*, const addrinfo*, addrinfo**);
    static Function* const systems = reinterpret_cast<Function*>(::dlsym(RTLD_NEXT, "getaddrinfo"));
    if (hints == nullptr || (hints->ai_flags & AI_NUMERICHOST) == 0) Resolver::answer();
    return systems(host, port, hints, found);
}

namespace {

namespace mh = multihull::asio;
namespace net = multihull::asio::net;
using namespace std::chrono_literals;
using namespace net::experimental::awaitable_operators;
using test::is;
using test::Kept;
using test::run;

// What is said of the end of sending: one type for all, as Asio compiles all of an operation anew for each.
using Sent = std::function<void(std::exception_ptr)>;

TEST(Connections, each_kind_of_token_in_both_directions) {
    net::io_context io;
    auto [here, there] = multihull::Pipe();
    mh::Connection connection(io, std::move(here));
    run(io, [&]() -> net::awaitable<void> {
        co_await connection.async_send(std::string("hello"), net::use_awaitable);
        EXPECT_EQ(there.recv<std::string>(), "hello");
        there.send(7);
        EXPECT_EQ(co_await connection.async_recv<int>(net::use_awaitable), 7);
        co_await connection.async_send_bytes("bytes", net::use_awaitable);
        EXPECT_EQ(there.recv_bytes().size(), 5U);
        there.send_bytes("more");
        EXPECT_EQ((co_await connection.async_recv_bytes(net::use_awaitable)).size(), 4U);
    });
    auto future = connection.async_recv<int>(net::use_future);
    there.send(8);
    io.restart();
    io.run();
    EXPECT_EQ(future.get(), 8);
    Kept<int> kept;
    there.send(9);
    connection.async_recv<int>(kept.callback());
    EXPECT_EQ(kept.calls, 0) << "never inside the call";
    io.restart();
    io.run();
    EXPECT_EQ(kept.value, 9);
}

// The sender keeps nothing of what it has sent, and its reader is given it.
TEST(Connections, carry_handles) {
    net::io_context io;
    auto [here, there] = multihull::Pipe();
    const std::size_t before = multihull::shm::count_objects();
    mh::Connection connection(io, std::move(here));
    run(io, [&]() -> net::awaitable<void> {
        co_await connection.async_send(multihull::Event(), net::use_awaitable);
        EXPECT_EQ(multihull::shm::count_objects(), before + 1);
        auto event = there.recv<multihull::Event>();
        event.set();
        there.close();
        EXPECT_THROW(co_await connection.async_send(multihull::Event(), net::use_awaitable), multihull::EndOfFile);
    });
    EXPECT_EQ(multihull::shm::count_objects(), before);
}

TEST(Connections, in_pythons_pickles) {
    net::io_context io;
    auto [here, there] = multihull::Pipe();
    here.set_python(true);
    there.set_python(true);
    mh::Connection connection(io, std::move(here));
    run(io, [&]() -> net::awaitable<void> {
        const multihull::Object list{42, nullptr, "hello"};
        co_await connection.async_send(list, net::use_awaitable);
        EXPECT_EQ(there.recv<multihull::Object>(), list);
        there.send(std::string("text"));
        EXPECT_EQ(co_await connection.async_recv<std::string>(net::use_awaitable), "text");
        there.send(7);
        EXPECT_THROW(co_await connection.async_recv<std::string>(net::use_awaitable), multihull::TypeError);
        EXPECT_THROW(co_await connection.async_send(std::make_unique<int>(1), net::use_awaitable), multihull::Error);
        EXPECT_FALSE(connection.closed());
        const std::string endless("\xff\xff\xff\xff\x7f\0\0\0\0\0\0\0", 12);    // a length, and nothing behind it
        EXPECT_EQ(::send(there.fileno(), endless.data(), endless.size(), 0), 12);
        EXPECT_THROW(co_await connection.async_recv<multihull::Object>(net::use_awaitable), multihull::Error);
        EXPECT_TRUE(connection.closed());
    });
}

TEST(Connections, big_messages_both_ways_at_once) {
    net::io_context io;
    auto [first, second] = multihull::Pipe();
    mh::Connection a(io, std::move(first));
    mh::Connection b(io, std::move(second));
    const std::vector<char> letters(5'000'000, 'x');
    run(io, [&]() -> net::awaitable<void> {
        const Sent sent = [](std::exception_ptr error) { EXPECT_FALSE(error); };
        a.async_send(letters, sent);
        b.async_send(letters, sent);
        const auto [to_b, to_a] = co_await (b.async_recv<std::vector<char>>(net::use_awaitable) &&
                                            a.async_recv<std::vector<char>>(net::use_awaitable));
        EXPECT_EQ(to_b, letters);
        EXPECT_EQ(to_a, letters);
    });
}

TEST(Connections, what_can_only_be_moved_and_descriptors) {
    net::io_context io;
    auto [here, there] = multihull::Pipe();
    auto [inner, other] = multihull::Pipe();
    mh::Connection a(io, std::move(here));
    mh::Connection b(io, std::move(there));
    run(io, [&]() -> net::awaitable<void> {
        co_await a.async_send(std::move(inner), net::use_awaitable);
        mh::Connection travelled(io, co_await b.async_recv<multihull::Connection>(net::use_awaitable));
        co_await travelled.async_send(5, net::use_awaitable);
        EXPECT_EQ(other.recv<int>(), 5);
    });
}

TEST(Connections, errors) {
    net::io_context io;
    auto [here, there] = multihull::Pipe();
    mh::Connection connection(io, std::move(here));
    there.send(std::string("no number"));
    EXPECT_THROW(run(io, [&]() -> net::awaitable<void> { co_await connection.async_recv<int>(net::use_awaitable); }),
                 multihull::CodecError);
    Kept<int> first;
    Kept<int> second;
    connection.async_recv<int>(first.callback());
    connection.async_recv<int>(second.callback());
    there.send(1);
    io.restart();
    io.run();
    EXPECT_EQ(first.value, 1);
    EXPECT_TRUE(is<multihull::Error>(second.error)) << "one at a time";

    // Cut off in the middle of a message.
    const std::string half("\0\0\0\10ab", 6);
    ASSERT_EQ(::send(there.fileno(), half.data(), half.size(), 0), 6);
    there.close();
    EXPECT_THROW(run(io, [&]() -> net::awaitable<void> { co_await connection.async_recv<int>(net::use_awaitable); }),
                 multihull::EndOfFile);
    EXPECT_TRUE(connection.closed());
    EXPECT_THROW(run(io, [&]() -> net::awaitable<void> { co_await connection.async_send(1, net::use_awaitable); }),
                 multihull::Error);
    EXPECT_THROW(mh::Connection().async_send(1, Sent()), multihull::Error);
}

TEST(Connections, who_is_killed_while_a_message_goes_to_him) {
    net::io_context io;
    auto [here, there] = multihull::Pipe();
    mh::Connection connection(io, std::move(here));
    const std::vector<char> big(10'000'000);
    multihull::Process reader(
        [](multihull::Connection end) {
            std::byte first;
            ASSERT_EQ(::recv(end.fileno(), &first, 1, 0), 1);
            ::kill(::getpid(), SIGKILL);
        },
        std::move(there));
    reader.start();
    EXPECT_THROW(run(io, [&]() -> net::awaitable<void> { co_await connection.async_send(big, net::use_awaitable); }),
                 multihull::EndOfFile);
    EXPECT_TRUE(connection.closed());
}

TEST(Connections, a_big_message_leaves_the_loop_to_others) {
    net::io_context io;
    auto [here, there] = multihull::Pipe();
    mh::Connection connection(io, std::move(here));
    Kept<std::vector<char>> kept;
    connection.async_recv<std::vector<char>>(kept.callback());
    std::jthread sender([&] { there.send(std::vector<char>(30'000'000)); });
    std::size_t turns = 0;
    while (kept.calls == 0) turns += io.run_one();
    EXPECT_FALSE(kept.error);
    EXPECT_EQ(kept.value->size(), 30'000'000U);
    EXPECT_GT(turns, 20U) << "a turn takes no more than a mebibyte";
}

TEST(Connections, cancelled_between_messages_it_stays_and_within_one_it_is_closed) {
    net::io_context io;
    auto [here, there] = multihull::Pipe();
    mh::Connection connection(io, std::move(here));
    run(io, [&]() -> net::awaitable<void> {
        net::steady_timer timer(io, 1ms);
        const auto first =
            co_await (connection.async_recv<int>(net::use_awaitable) || timer.async_wait(net::use_awaitable));
        EXPECT_EQ(first.index(), 1U);
        there.send(1);
        EXPECT_EQ(co_await connection.async_recv<int>(net::use_awaitable), 1);
    });
    const std::string half("\0\0\0\10ab", 6);
    ASSERT_EQ(::send(there.fileno(), half.data(), half.size(), 0), 6);
    Kept<int> kept;
    net::cancellation_signal stop;
    connection.async_recv<int>(net::bind_cancellation_slot(stop.slot(), kept.callback()));
    io.restart();
    io.poll();
    stop.emit(net::cancellation_type::total);
    io.restart();
    io.run();
    EXPECT_TRUE(is<multihull::Cancelled>(kept.error));
    EXPECT_TRUE(connection.closed());
}

TEST(Connections, a_context_that_ends_early) {
    auto io = std::make_unique<net::io_context>();
    auto [here, there] = multihull::Pipe();
    mh::Connection connection(*io, std::move(here));
    Kept<int> never;
    connection.async_recv<int>(never.callback());
    const std::vector<char> big(10'000'000);
    connection.async_send(big, Sent([](std::exception_ptr) { ADD_FAILURE(); }));
    connection = mh::Connection();
    io.reset();
    EXPECT_THROW(there.recv<std::vector<char>>(), multihull::EndOfFile);
    EXPECT_EQ(never.calls, 0);
}

TEST(Listeners, take_clients_while_others_are_served) {
    constexpr int kClients = 20;
    net::io_context io;
    mh::Listener listener(io, "127.0.0.1:0");
    net::co_spawn(
        io,
        [&]() -> net::awaitable<void> {
            for (int i = 0; i < kClients; ++i) {
                auto client = co_await listener.async_accept(net::use_awaitable);
                net::co_spawn(
                    io,
                    [connection = std::move(client)]() mutable -> net::awaitable<void> {
                        const int x = co_await connection.async_recv<int>(net::use_awaitable);
                        co_await connection.async_send(x * x, net::use_awaitable);
                    },
                    [](std::exception_ptr error) { EXPECT_FALSE(error); });
            }
        },
        [](std::exception_ptr error) { EXPECT_FALSE(error); });
    std::jthread clients([address = listener.address()] {
        std::vector<multihull::Connection> connections;
        for (int i = 0; i < kClients; ++i) connections.push_back(multihull::Client(address));
        for (int i = kClients - 1; i >= 0; --i) {
            auto& connection = connections[static_cast<std::size_t>(i)];
            connection.send(i);
            EXPECT_EQ(connection.recv<int>(), i * i);
        }
    });
    io.run();
}

TEST(Listeners, who_has_no_key_holds_up_nobody) {
    net::io_context io;
    mh::Listener listener(io, {}, {.authkey = "secret"});
    Kept<mh::Connection> kept;
    listener.async_accept(kept.callback());
    std::jthread clients([address = listener.address()] {
        const auto silent = multihull::Client(address);    // without a key, and says nothing
        EXPECT_THROW(multihull::Client(address, {.authkey = "wrong"}), multihull::AuthenticationError);
        auto right = multihull::Client(address, {.authkey = "secret"});
        right.send(3);
        EXPECT_THROW(right.recv<int>(), multihull::EndOfFile);
    });
    io.run();
    ASSERT_FALSE(kept.error);
    EXPECT_EQ(kept.value->async_recv<int>(net::use_future).valid(), true);
    io.restart();
    io.run();
    kept.value.reset();
    clients.join();

    Kept<mh::Connection> closed;
    listener.async_accept(closed.callback());
    io.restart();
    io.poll();
    listener.close();
    io.restart();
    io.run();
    EXPECT_TRUE(is<multihull::Error>(closed.error));
}

TEST(Listeners, who_says_nothing_is_turned_away_in_time) {
    net::io_context io;
    mh::Listener listener(io, {}, {.authkey = "secret", .handshake_timeout = 20ms});
    Kept<mh::Connection> kept;
    listener.async_accept(kept.callback());
    std::jthread client([address = listener.address(), &io, &listener] {
        auto silent = multihull::Client(address);
        EXPECT_EQ(silent.recv_bytes().size(), 59U) << "a challenge";
        EXPECT_THROW(silent.recv_bytes(), multihull::EndOfFile) << "though nobody else came meanwhile";
        net::post(io, [&] { listener.close(); });
    });
    io.run();
    EXPECT_TRUE(is<multihull::Error>(kept.error));
}

// Accepts clients in the loop, and answers each a number for a number.
net::awaitable<void> serve_squares(mh::Listener& listener) {
    try {
        for (;;) {
            auto client = co_await listener.async_accept(net::use_awaitable);
            const int x = co_await client.async_recv<int>(net::use_awaitable);
            co_await client.async_send(x * x, net::use_awaitable);
        }
    } catch (const multihull::Error&) {
        EXPECT_TRUE(listener.closed());
    }
}

TEST(Connect, client_and_listener_in_one_loop) {
    const std::optional<std::string> none;
    for (const char* const address : {"", "127.0.0.1:0"}) {
        for (const auto& key : {none, std::optional<std::string>("secret")}) {
            net::io_context io;
            mh::Listener listener(io, address, {.authkey = key});
            net::co_spawn(io, serve_squares(listener), net::detached);
            run(io, [&]() -> net::awaitable<void> {
                // Not in the expression: g++ 12 destroys such a temporary of a co_await twice.
                const multihull::ClientOptions right{.authkey = key};
                const multihull::ClientOptions wrong{.authkey = "wrong"};
                for (int i = 0; i < 20; ++i) {
                    auto connection = co_await mh::async_connect(io, listener.address(), right, net::use_awaitable);
                    co_await connection.async_send(i, net::use_awaitable);
                    EXPECT_EQ(co_await connection.async_recv<int>(net::use_awaitable), i * i);
                }
                if (key) {
                    EXPECT_THROW(co_await mh::async_connect(io, listener.address(), wrong, net::use_awaitable),
                                 multihull::AuthenticationError);
                }
                listener.close();
                EXPECT_THROW(co_await mh::async_connect(io, "@nobody-listens-here", net::use_awaitable),
                             multihull::Error);
                EXPECT_THROW(co_await mh::async_connect(io, "host:port", net::use_awaitable), multihull::Error);
            });
        }
    }
}

TEST(Connect, the_loop_goes_on_while_a_name_is_looked_up) {
    net::io_context io;
    mh::Listener listener(io, "127.0.0.1:0");
    const std::string address = "localhost" + listener.address().substr(listener.address().rfind(':'));
    net::co_spawn(io, serve_squares(listener), net::detached);
    Resolver::hold();
    const int before = Resolver::asked();
    run(io, [&]() -> net::awaitable<void> {
        const multihull::ClientOptions soon{.timeout = 20ms};
        EXPECT_THROW(co_await mh::async_connect(io, address, soon, net::use_awaitable), multihull::WaitTimeout);
        net::steady_timer timer(io, 1ms);
        const auto first =
            co_await (mh::async_connect(io, address, net::use_awaitable) || timer.async_wait(net::use_awaitable));
        EXPECT_EQ(first.index(), 1U) << "cancelled";

        Kept<mh::Connection> kept;
        mh::async_connect(io, address, kept.callback());
        const auto until = [&](auto condition) -> net::awaitable<void> {
            for (net::steady_timer again(io); !condition();) {
                again.expires_after(1ms);
                co_await again.async_wait(net::use_awaitable);
            }
        };
        co_await until([&] { return Resolver::asked() == before + 3; });
        EXPECT_EQ(kept.calls, 0);
        Resolver::let_go();
        co_await until([&] { return kept.calls == 1; });
        EXPECT_FALSE(kept.error);
        co_await kept.value->async_send(5, net::use_awaitable);
        EXPECT_EQ(co_await kept.value->async_recv<int>(net::use_awaitable), 25);
        listener.close();
    });
}

TEST(Connect, a_listener_that_says_nothing_or_has_no_room) {
    net::io_context io;
    // It never accepts: clients without a key are connected, and wait in its backlog.
    multihull::Listener listener({}, {.backlog = 0});
    const multihull::ClientOptions with_key{.authkey = "secret", .timeout = 20ms};
    const multihull::ClientOptions without{.timeout = 20ms};
    run(io, [&]() -> net::awaitable<void> {
        EXPECT_THROW(co_await mh::async_connect(io, listener.address(), with_key, net::use_awaitable),
                     multihull::WaitTimeout)
            << "it proves nothing";
        EXPECT_THROW(co_await mh::async_connect(io, listener.address(), without, net::use_awaitable),
                     multihull::WaitTimeout)
            << "the one before is still in its backlog";
        net::steady_timer timer(io, 1ms);
        const auto first = co_await (mh::async_connect(io, listener.address(), net::use_awaitable) ||
                                     timer.async_wait(net::use_awaitable));
        EXPECT_EQ(first.index(), 1U) << "cancelled";
    });
    Kept<mh::Connection> kept;
    mh::async_connect(io, listener.address(), kept.callback());
    io.restart();
    io.poll();
    EXPECT_EQ(kept.calls, 0);
    listener.accept();
    io.restart();
    io.run();
    EXPECT_FALSE(kept.error) << "there was room for it at last";
    EXPECT_FALSE(kept.value->closed());
}

}    // namespace
