// Managers: their server's process, proxies that travel, deaths, and the program's own types.
#include "os/process.hpp"
#include "support/board.hpp"
#include "support/descriptors.hpp"
#include "support/python_peer.hpp"
#include "support/start_methods.hpp"

#include <multihull/connection.hpp>
#include <multihull/manager.hpp>
#include <multihull/pool.hpp>
#include <multihull/process.hpp>
#include <multihull/queue.hpp>

#include <gtest/gtest.h>

#include <csignal>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

namespace {

using namespace std::chrono_literals;
using multihull::Object;

constexpr std::size_t kPid = 10;

// What other processes do.

void change(multihull::DictProxy dict, multihull::ListProxy list, multihull::NamespaceProxy ns) {
    dict["child"] = "was here";
    list.reverse();
    ns["greeting"] = "hi";
}

void add_often(const multihull::DictProxy& dict, int times) {
    for (int i = 0; i < times; ++i) dict.add("n");
}

std::int64_t append_and_count(multihull::ListProxy list, std::int64_t value) {
    list.append(value);
    return static_cast<std::int64_t>(list.size());
}

multihull::ListProxy same(multihull::ListProxy list) { return list; }

void take_and_hang(const multihull::LockProxy& lock, const std::string& path) {
    test::Board board(path);
    lock.lock();
    board[kPid] = ::getpid();
    for (;;) ::pause();
}

void hold_and_hang(const multihull::DictProxy& dict, const std::string& path) {
    test::Board board(path);
    const auto fresh = multihull::ListProxy(dict["list"]);    // a reference of its own
    board[kPid] = static_cast<std::int64_t>(fresh.size());
    for (;;) ::pause();
}

void wait_for_item(const multihull::QueueProxy& queue, const std::string& path) {
    test::Board board(path);
    ++board[test::kHeld];
    try {
        queue.get();
    } catch (const multihull::ManagerGone&) {
        board[kPid] = 1;
    }
}

void start_manager_and_hang(const std::string& path) {
    test::Board board(path);
    const multihull::Manager manager;
    board[kPid] = multihull::active_children().front().pid();
    for (;;) ::pause();
}

void put_proxy(multihull::Queue<multihull::ListProxy> queue, const std::string& address, const std::string& key) {
    multihull::SyncManager manager({.address = address, .authkey = key});
    manager.connect();
    queue.put(manager.list({1, 2, 3}));    // nobody but the message holds it when this process has ended
}

class Counter {
public:
    explicit Counter(std::int64_t start, std::string name) : n_(start), name_(std::move(name)) {}
    std::int64_t add(std::int64_t amount) { return n_ += amount; }
    std::string describe(const std::vector<int>& numbers, std::optional<double> factor) const {
        return name_ + " " + std::to_string(numbers.size()) + (factor ? " and a factor" : "");
    }
    void fail() const { throw std::out_of_range("there is no such thing"); }

private:
    std::int64_t n_;
    std::string name_;
};
std::string shout(const Counter& counter) { return counter.describe({}, std::nullopt) + "!"; }

int square(int n) {
    if (n < 0) throw std::invalid_argument("a negative number");
    if (n == 0) std::abort();
    return n * n;
}

class Squares {
public:
    multihull::Future<int> square_of(int n) { return pool_.apply_async(square, n); }

private:
    multihull::Pool pool_{{.processes = 1}};
};

std::string joined(const std::string& old, const std::string& more) { return old + more; }
std::int64_t doubled(std::int64_t old) { return 2 * old; }

template <class Manager>
void register_all(Manager& manager) {
    using multihull::method;
    manager.template register_type<Counter>("Counter",
                                            multihull::constructor<std::int64_t, std::string>({"start", "name"}),
                                            method<&Counter::add>("add", {"amount"}),
                                            method<&Counter::describe>("describe"), method<&Counter::fail>("fail"),
                                            method<&shout>("shout"));
    manager.template register_type<Squares>("Squares", method<&Squares::square_of>("square_of"));
    manager.template register_function<&joined>("joined");
    manager.template register_function<&doubled>("doubled");
}

// By start method.

class ManagerStartTest : public test::StartMethodTest {};

TEST_P(ManagerStartTest, ProxiesTravel) {
    multihull::Manager manager;
    const auto dict = manager.dict();
    const auto list = manager.list(std::vector<int>{1, 2, 3});
    const auto ns = manager.Namespace();
    multihull::Process process(change, dict, list, ns);
    process.start();
    process.join();
    EXPECT_EQ(process.exitcode(), 0);
    EXPECT_EQ(dict["child"].get(), Object("was here"));
    EXPECT_EQ(list.copy(), (Object{3, 2, 1}));
    EXPECT_EQ(ns["greeting"].get(), Object("hi"));

    multihull::Pool pool({.processes = 2});
    std::vector<multihull::Future<std::int64_t>> futures;
    for (int i = 0; i < 10; ++i) futures.push_back(pool.apply_async(append_and_count, list, i));
    for (auto& future : futures) EXPECT_GT(future.get(), 3);
    EXPECT_EQ(list.size(), 13U);
    EXPECT_EQ(pool.apply_async(same, list).get(), list);

    multihull::Queue<multihull::ListProxy> queue;
    queue.put(list);
    queue.put(manager.list({7}));
    EXPECT_EQ(queue.get().size(), 13U);
    EXPECT_EQ(queue.get().copy(), (Object{7}));
}

TEST_P(ManagerStartTest, UpdatesInOneStep) {
    multihull::SyncManager manager;
    register_all(manager);
    manager.start();
    const auto dict = manager.dict();
    std::vector<multihull::Process> processes;
    for (int i = 0; i < 3; ++i) processes.emplace_back(add_often, dict, 300);
    for (auto& process : processes) process.start();
    for (auto& process : processes) process.join();
    EXPECT_EQ(dict["n"].get(), Object(900));
    EXPECT_TRUE(dict.compare_exchange("n", 900, 1));
    EXPECT_FALSE(dict.compare_exchange("n", 900, 2));
    EXPECT_TRUE(dict.compare_exchange("text", nullptr, "a"));
    EXPECT_EQ(dict.update("text", "joined", "bc"), Object("abc"));
    EXPECT_EQ(dict.update("n", "doubled"), Object(2));
    EXPECT_THROW(dict.update("n", "no such function"), multihull::Error);
    EXPECT_THROW(dict.add("text", 1), multihull::TypeError);

    const auto list = manager.list({1, 2});
    EXPECT_EQ(list.add(1, 5), Object(7));
    EXPECT_TRUE(list.compare_exchange(0, 1, "one"));
    EXPECT_EQ(list.update(1, "doubled"), Object(14));
    EXPECT_THROW(list.add(5), multihull::IndexError);
    const auto value = manager.Value("i", 1);
    EXPECT_EQ(value.add(2), Object(3));
    EXPECT_EQ(value.update("doubled"), Object(6));
    EXPECT_FALSE(value.compare_exchange(5, 7));
    EXPECT_TRUE(value.compare_exchange(6, 7));
    const auto typed = manager.dict<std::string, double>();
    EXPECT_EQ(typed.add("x", 0.5), 0.5);
    EXPECT_TRUE(typed.compare_exchange("y", std::nullopt, 2.0));
}

TEST_P(ManagerStartTest, TypesOfTheProgram) {
    multihull::SyncManager manager;
    register_all(manager);
    manager.start();
    const auto counter = manager.create("Counter", 5, "five");
    EXPECT_EQ(counter.call("add", 2), Object(7));
    EXPECT_EQ(counter.call_with("add", Object::tuple(), Object::dict({{"amount", 3}})), Object(10));
    EXPECT_EQ(counter.call("describe", std::vector<int>{1, 2}, 0.5), Object("five 2 and a factor"));
    EXPECT_EQ(counter.call("describe", std::vector<int>{}, nullptr), Object("five 0"));
    EXPECT_EQ(counter.call("shout"), Object("five 0!"));
    EXPECT_THROW(counter.call("fail"), multihull::IndexError);
    EXPECT_THROW(counter.call("add"), multihull::TypeError);
    EXPECT_THROW(counter.call("add", 1, 2), multihull::TypeError);
    EXPECT_THROW(counter.call("add", "text"), multihull::TypeError);
    EXPECT_THROW(counter.call_with("add", Object::tuple(), Object::dict({{"wrong", 3}})), multihull::TypeError);
    EXPECT_THROW(counter.call("remove"), multihull::AttributeError);
    EXPECT_THROW(counter.getvalue(), multihull::Error);
    EXPECT_THROW(manager.create("Counter", "text", "five"), multihull::Error);
    EXPECT_THROW(manager.register_function<&doubled>("too late"), multihull::Error);
}

// A Future is answered when it is there; other clients are served meanwhile.
TEST_P(ManagerStartTest, ResultsOfAPoolInTheServer) {
    multihull::BaseManager manager;
    register_all(manager);
    manager.start();
    const auto squares = manager.create("Squares");
    EXPECT_EQ(squares.call("square_of", 7), Object(49));
    EXPECT_THROW(squares.call("square_of", -1), multihull::ValueError);
    try {
        squares.call("square_of", 0);
        FAIL();
    } catch (const multihull::RemoteError& error) {
        EXPECT_NE(error.text().find("SIGABRT"), std::string::npos) << error.text();
    }
    EXPECT_EQ(squares.call("square_of", 3), Object(9));
}

INSTANTIATE_TEST_SUITE_P(StartMethods, ManagerStartTest, test::each_start_method(), test::start_method_name);

// Life and death.

TEST(Manager, EndsWithItsScope) {
    multihull::Manager{};    // what a process opens once and for all
    const std::size_t descriptors = test::open_descriptors();
    std::optional<multihull::DictProxy> left;
    {
        multihull::Manager manager;
        left = manager.dict({{1, 2}});
        EXPECT_EQ(manager.number_of_objects(), 1U);
    }
    EXPECT_THROW(left->size(), multihull::ManagerGone);
    left.reset();
    EXPECT_EQ(test::open_descriptors(), descriptors);
    multihull::Manager manager;
    manager.shutdown();
    manager.shutdown();
    EXPECT_THROW(manager.dict(), multihull::ManagerGone);
    EXPECT_TRUE(manager.join());
    EXPECT_THROW(multihull::SyncManager().dict(), multihull::Error);
    EXPECT_THROW(multihull::Manager({.address = "/no/such/folder/socket"}), multihull::Error);
}

TEST(Manager, TheServerDiesWithItsParent) {
    test::Board board;
    multihull::Process process(start_manager_and_hang, board.path());
    process.start();
    ASSERT_TRUE(board.wait_until_at_least(kPid, 1));
    process.kill();
    process.join();
    EXPECT_TRUE(test::eventually([&] { return !multihull::os::is_running(static_cast<pid_t>(board[kPid])); }));
}

TEST(Manager, ADeadServerIsAnErrorForEveryClient) {
    multihull::Manager manager;
    const auto queue = manager.Queue();
    test::Board board;
    multihull::Process process(wait_for_item, queue, board.path());
    process.start();
    ASSERT_TRUE(board.wait_until_at_least(test::kHeld, 1));
    bool told = false;
    std::thread waiter([&] {
        try {
            queue.get();
        } catch (const multihull::ManagerGone& error) {
            told = std::string(error.what()).find(manager.address()) != std::string::npos;
        }
    });
    for (const auto& child : multihull::active_children()) {
        if (child.name() == "Manager") ::kill(child.pid(), SIGKILL);
    }
    waiter.join();
    process.join();
    EXPECT_TRUE(told);
    EXPECT_EQ(board[kPid], 1);
    EXPECT_THROW(queue.qsize(), multihull::ManagerGone);
    EXPECT_THROW(manager.dict(), multihull::ManagerGone);
}

TEST(Manager, WhatADeadClientHeldIsGivenBack) {
    multihull::Manager manager;
    const auto lock = manager.Lock();
    const auto dict = manager.dict();
    dict["list"] = manager.list();
    const std::size_t before = manager.number_of_objects();
    test::Board board;
    multihull::Process holder(take_and_hang, lock, board.path());
    holder.start();
    ASSERT_TRUE(board.wait_until_at_least(kPid, 1));
    EXPECT_FALSE(lock.try_lock());
    holder.kill();
    ASSERT_TRUE(lock.try_lock_for(test::kPatience));
    lock.unlock();
    holder.join();

    board[kPid] = -1;
    multihull::Process owner(hold_and_hang, dict, board.path());
    owner.start();
    ASSERT_TRUE(board.wait_until_at_least(kPid, 0));
    dict.erase("list");
    EXPECT_EQ(manager.number_of_objects(), before + 1);    // the list is the other process's
    owner.kill();
    owner.join();
    EXPECT_TRUE(test::eventually([&] { return manager.number_of_objects() == before; }));
}

// The message alone keeps it, when its sender has ended.
TEST(Manager, AProxyInAQueueKeepsItsObject) {
    multihull::Manager manager;
    multihull::Queue<multihull::ListProxy> queue;
    for (const auto method : {multihull::StartMethod::fork, multihull::StartMethod::forkserver}) {
        multihull::Process process({.start_method = method}, put_proxy, queue, manager.address(), manager.authkey());
        process.start();
        process.join();
        ASSERT_EQ(process.exitcode(), 0);
        const multihull::ListProxy list = queue.get();
        EXPECT_EQ(list.copy(), (Object{1, 2, 3}));
    }
    queue.put(manager.list({4}));
    EXPECT_EQ(queue.get().copy(), (Object{4}));
}

// What a forked child inherits without having been given it.
TEST(Manager, AForkedChildConnectsAnew) {
    multihull::Manager manager;
    const auto list = manager.list();
    list.append("parent");
    static const multihull::ListProxy* inherited = nullptr;
    inherited = &list;
    multihull::Process process({.start_method = multihull::StartMethod::fork}, [] {
        inherited->append("child");
        const multihull::ListProxy copy = *inherited;
        std::thread([&] { copy.append("thread"); }).join();
    });
    process.start();
    list.append("parent again");
    process.join();
    EXPECT_EQ(process.exitcode(), 0);
    EXPECT_EQ(list.size(), 4U);
    EXPECT_EQ(list.count("thread"), 1U);
}

TEST(Manager, ServesByTcpAndByPathToWhoKnowsTheKey) {
    for (const std::string& address :
         std::vector<std::string>{"127.0.0.1:0", "@multihull-test-" + std::to_string(::getpid())}) {
        multihull::Manager manager({.address = address, .authkey = "the key"});
        multihull::SyncManager other({.address = manager.address(), .authkey = "the key"});
        other.connect();
        const auto dict = other.dict({{"a", 1}});
        EXPECT_EQ(manager.number_of_objects(), 1U);
        multihull::SyncManager stranger({.address = manager.address(), .authkey = "another key"});
        EXPECT_THROW(stranger.connect(), multihull::AuthenticationError);
        EXPECT_EQ(dict["a"].get(), Object(1));
    }
    multihull::SyncManager nobody({.address = "@multihull-test-nobody", .authkey = "the key"});
    EXPECT_THROW(nobody.connect(), multihull::ManagerGone);
}

// Python.

TEST(Manager, PythonCallsTypesOfTheProgram) {
    multihull::BaseManager manager({.address = "127.0.0.1:0", .authkey = "the key"});
    register_all(manager);
    multihull::Server server = manager.get_server();
    std::thread serving([&] { server.serve_forever(); });
    const auto run = test::run_python(R"(
import multiprocessing, sys
from multiprocessing.managers import SyncManager
multiprocessing.current_process().authkey = b'the key'    # for proxies inside objects
class Manager(SyncManager): pass
Manager.register('Counter')
Manager.register('Squares')
host, port = sys.argv[1].split(':')
manager = Manager((host, int(port)), b'the key')
manager.connect()
counter = manager.Counter(5, name='five')
print(counter.add(amount=2), counter.describe([1, 2], None))
for call in (counter.fail, lambda: counter.add('text'), lambda: manager.Squares().square_of(-1)):
    try: call()
    except Exception as error: print(type(error).__name__, error)
print(manager.Squares().square_of(12))
shared = manager.dict(a=1)
shared['counter'] = counter
print(shared['a'], shared['counter'].add(1))
)",
                                      {server.address()});
    server.stop();
    serving.join();
    EXPECT_EQ(run.status, 0);
    EXPECT_EQ(run.output,
              "7 five 2\n"
              "IndexError there is no such thing\n"
              "TypeError an Object that is a str was used as an int: look at its type() first\n"
              "ValueError a negative number\n"
              "144\n"
              "1 8\n");
}

}    // namespace
