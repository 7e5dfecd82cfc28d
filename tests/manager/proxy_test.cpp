// Every method of every proxy, with Python's SyncManager as the server and with ours: both must do the same.
#include "support/python_peer.hpp"

#include <multihull/manager.hpp>

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <memory>
#include <mutex>
#include <numeric>
#include <ranges>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

namespace {

using namespace std::chrono_literals;
using multihull::Object;

enum class Kind { python, ours };

// What the tests need beside SyncManager's own types.
constexpr const char* kPythonServer = R"(
import multiprocessing, sys
from multiprocessing.managers import SyncManager
class Server(SyncManager): pass
class Counter:
    def __init__(self, start=0): self.n = start
    def add(self, amount): self.n += amount; return self.n
    def fail(self, text): raise LookupError(text)
Server.register('Counter', Counter)
Server.register('set', set, exposed=[name for name in dir(set) if name[0] != '_'] + ['__contains__', '__len__'])
multiprocessing.current_process().authkey = b'the key'    # for proxies inside objects
server = Server(('127.0.0.1', 0), b'the key').get_server()
print('%s:%d' % server.address, flush=True)
server.serve_forever()
)";

class Counter {
public:
    explicit Counter(std::int64_t start) : n_(start) {}
    std::int64_t add(std::int64_t amount) { return n_ += amount; }
    void fail(const std::string& text) const { throw std::runtime_error(text); }

private:
    std::int64_t n_;
};

class ProxyTest : public ::testing::TestWithParam<Kind> {
protected:
    void SetUp() override {
        if (GetParam() == Kind::python) {
            python_ = std::make_unique<test::PythonPeer>(kPythonServer);
            manager_ =
                std::make_unique<multihull::SyncManager>(multihull::ManagerOptions{.address = python_->read_line(),
                                                                                   .authkey = "the key"});
            manager_->connect();
        } else {
            manager_ = std::make_unique<multihull::SyncManager>();
            manager_->register_type<Counter>("Counter", multihull::constructor<std::int64_t>(),
                                             multihull::method<&Counter::add>("add"),
                                             multihull::method<&Counter::fail>("fail"));
            manager_->start();
        }
    }
    multihull::SyncManager& manager() { return *manager_; }

private:
    std::unique_ptr<test::PythonPeer> python_;
    std::unique_ptr<multihull::SyncManager> manager_;
};

TEST_P(ProxyTest, Dict) {
    const multihull::DictProxy dict = manager().dict({{"a", 1}, {2, "two"}});
    dict["b"] = 2.5;
    dict["list"] = std::vector<int>{1, 2};
    dict["copy"] = dict["b"];
    EXPECT_EQ(dict.copy(), Object::dict({{"a", 1}, {2, "two"}, {"b", 2.5}, {"list", {1, 2}}, {"copy", 2.5}}));
    EXPECT_EQ(dict["a"].as<int>(), 1);
    EXPECT_EQ(Object(dict[2]), Object("two"));
    EXPECT_THROW(dict.at("none"), multihull::KeyError);
    EXPECT_EQ(dict.get("none"), Object());
    EXPECT_EQ(dict.get("none", 7), Object(7));
    EXPECT_TRUE(dict.contains("a"));
    EXPECT_FALSE(dict.contains("none"));
    dict.erase("a");
    EXPECT_THROW(dict.erase("a"), multihull::KeyError);
    EXPECT_EQ(dict.size(), 4U);
    EXPECT_EQ(dict.pop(2), Object("two"));
    EXPECT_EQ(dict.pop(2, "gone"), Object("gone"));
    EXPECT_THROW(dict.pop(2), multihull::KeyError);
    EXPECT_EQ(dict.popitem(), (std::pair<Object, Object>("copy", 2.5)));
    EXPECT_EQ(dict.setdefault("b", 9), Object(2.5));
    EXPECT_EQ(dict.setdefault("c", 9), Object(9));
    dict.update(Object::dict({{"c", 10}, {"d", 11}}));
    EXPECT_EQ(dict.keys(), (std::vector<Object>{"b", "list", "c", "d"}));
    EXPECT_EQ(dict.values(), (std::vector<Object>{2.5, Object{1, 2}, 10, 11}));
    EXPECT_EQ(dict.items().back(), (std::pair<Object, Object>("d", 11)));
    std::vector<Object> seen;
    for (const Object& key : dict) seen.push_back(key);
    EXPECT_EQ(seen, dict.keys());
    std::ostringstream text;
    text << dict;
    EXPECT_EQ(text.str(), "{'b': 2.5, 'list': [1, 2], 'c': 10, 'd': 11}");
    EXPECT_EQ(dict.getvalue(), dict.copy());
    dict.clear();
    EXPECT_TRUE(dict.empty());
    EXPECT_THROW(dict.popitem(), multihull::KeyError);
}

TEST_P(ProxyTest, DictIterator) {
    const auto dict = manager().dict({{1, 1}, {2, 4}});
    const multihull::IteratorProxy iterator = dict.iter();
    EXPECT_EQ(iterator.next(), Object(1));
    EXPECT_EQ(iterator.next(), Object(2));
    EXPECT_EQ(iterator.next(), std::nullopt);
    EXPECT_EQ(iterator.next(), std::nullopt);
}

TEST_P(ProxyTest, List) {
    const multihull::ListProxy list = manager().list(std::views::iota(0, 5));
    EXPECT_EQ(list.size(), 5U);
    list.reverse();
    EXPECT_EQ(list.copy(), (Object{4, 3, 2, 1, 0}));
    list[0] = "four";
    EXPECT_EQ(Object(list[0]), Object("four"));
    EXPECT_EQ(list.at(-1), Object(0));
    EXPECT_THROW(list.at(5), multihull::IndexError);
    list.append(nullptr);
    list.push_back(5);
    list.extend(std::vector<int>{6, 7});
    list.insert(1, "one");
    EXPECT_EQ(list.copy(), (Object{"four", "one", 3, 2, 1, 0, nullptr, 5, 6, 7}));
    EXPECT_EQ(list.pop(), Object(7));
    EXPECT_EQ(list.pop(0), Object("four"));
    EXPECT_EQ(list.count(3), 1U);
    EXPECT_EQ(list.index(2), 2U);
    EXPECT_THROW(list.index("none"), multihull::ValueError);
    EXPECT_THROW(list.remove("none"), multihull::ValueError);
    list.remove("one");
    list.remove(nullptr);
    EXPECT_TRUE(list.contains(5));
    EXPECT_FALSE(list.contains("one"));
    list.sort();
    EXPECT_EQ(list.copy(), (Object{0, 1, 2, 3, 5, 6}));
    list.sort(true);
    EXPECT_EQ(list.slice(1, 3), (Object{5, 3}));
    EXPECT_EQ(list.slice({}, {}, 2), (Object{6, 3, 1}));
    list.set_slice(0, 2, Object{"x"});
    list.erase_slice(-2, {});
    list.erase(1);
    EXPECT_EQ(list.copy(), (Object{"x", 2}));
    EXPECT_EQ(list + Object{3}, (Object{"x", 2, 3}));
    EXPECT_EQ(list * 2, (Object{"x", 2, "x", 2}));
    list += Object{4};
    list *= 2;
    EXPECT_EQ(list.copy(), (Object{"x", 2, 4, "x", 2, 4}));
    EXPECT_EQ(list.reversed(), (std::vector<Object>{4, 2, "x", 4, 2, "x"}));
    EXPECT_THROW(list.sort(), multihull::TypeError);
    std::size_t count = 0;
    for (const Object& element : list) count += element == Object(4) ? 1 : 0;
    EXPECT_EQ(count, 2U);
    EXPECT_EQ(list.repr(), "['x', 2, 4, 'x', 2, 4]");
    list.clear();
    EXPECT_TRUE(list.empty());
    EXPECT_THROW(list.pop(), multihull::IndexError);
}

TEST_P(ProxyTest, Set) {
    const multihull::SetProxy set = manager().set({1, 2, 3});
    set.add(3);
    set.add("four");
    EXPECT_EQ(set.size(), 4U);
    EXPECT_TRUE(set.contains(1));
    set.remove("four");
    set.discard("four");
    EXPECT_THROW(set.remove("four"), multihull::KeyError);
    EXPECT_EQ(set.union_with(Object::set({9})), Object::set({1, 2, 3, 9}));
    EXPECT_EQ(set.intersection(Object::set({1, 9})), Object::set({1}));
    EXPECT_EQ(set.difference(Object::set({1, 9})), Object::set({2, 3}));
    EXPECT_EQ(set.symmetric_difference(Object::set({1, 9})), Object::set({2, 3, 9}));
    EXPECT_TRUE(set.isdisjoint(Object::set({9})));
    EXPECT_TRUE(set.issuperset(Object::set({1})));
    EXPECT_FALSE(set.issubset(Object::set({1})));
    set.update(Object::set({4, 5}));
    set.difference_update(Object::set({1}));
    set.intersection_update(Object::set({2, 3, 4}));
    set.symmetric_difference_update(Object::set({2, 6}));
    EXPECT_EQ(set.copy(), Object::set({3, 4, 6}));
    std::int64_t sum = 0;
    for (const Object& element : set) sum += element.as_int();
    EXPECT_EQ(sum, 13);
    EXPECT_TRUE(set.contains(set.pop()) || set.size() == 2);
    set.clear();
    EXPECT_TRUE(set.empty());
    EXPECT_THROW(set.pop(), multihull::KeyError);
}

TEST_P(ProxyTest, NamespaceValueAndArray) {
    const multihull::NamespaceProxy ns = manager().Namespace({{"x", 1}});
    ns["greeting"] = "hi";
    EXPECT_EQ(ns["greeting"].get(), Object("hi"));
    EXPECT_EQ(ns.at("x"), Object(1));
    EXPECT_TRUE(ns.contains("x"));
    ns.erase("x");
    EXPECT_FALSE(ns.contains("x"));
    EXPECT_THROW(ns.at("x"), multihull::AttributeError);
    EXPECT_THROW(ns.erase("x"), multihull::AttributeError);
    std::ostringstream text;
    text << ns << ' ' << ns["greeting"];
    EXPECT_EQ(text.str(), "Namespace(greeting='hi') hi");

    const multihull::ValueProxy value = manager().Value("i", 3);
    EXPECT_EQ(value.get(), Object(3));
    value.set(4);
    EXPECT_EQ(value.as<int>(), 4);
    EXPECT_EQ(value.repr(), "Value('i', 4)");

    const multihull::ArrayProxy array = manager().Array("i", std::vector<int>{1, -2, 3});
    array[0] = 10;
    EXPECT_EQ(array[0].as<int>(), 10);
    EXPECT_EQ(array.size(), 3U);
    EXPECT_EQ(array.values(), (std::vector<Object>{10, -2, 3}));
    EXPECT_THROW(array.at(3), multihull::IndexError);
    EXPECT_THROW(array.set(0, "text"), multihull::TypeError);
    EXPECT_EQ(manager().Array("d", std::vector<double>{0.5}).values(), (std::vector<Object>{0.5}));
}

TEST_P(ProxyTest, Queues) {
    const multihull::QueueProxy queue = manager().Queue(2);
    queue.put(1);
    EXPECT_TRUE(queue.try_put("two"));
    EXPECT_FALSE(queue.try_put(3));
    EXPECT_FALSE(queue.try_put_for(3, 1ms));
    EXPECT_THROW(queue.put(3, 1ms), multihull::QueueFull);
    EXPECT_THROW(queue.put_nowait(3), multihull::QueueFull);
    EXPECT_TRUE(queue.full());
    EXPECT_EQ(queue.qsize(), 2U);
    EXPECT_EQ(queue.get(), Object(1));
    EXPECT_EQ(queue.get(1s), Object("two"));
    EXPECT_TRUE(queue.empty());
    EXPECT_THROW(queue.get_nowait(), multihull::QueueEmpty);
    EXPECT_THROW(queue.get(1ms), multihull::QueueEmpty);
    EXPECT_EQ(queue.try_get(), std::nullopt);
    EXPECT_EQ(queue.try_get_for(1ms), std::nullopt);

    const multihull::JoinableQueueProxy joinable = manager().JoinableQueue();
    joinable.put(1);
    joinable.put(2);
    std::thread worker([joinable] {
        for (int i = 0; i < 2; ++i) {
            joinable.get();
            joinable.task_done();
        }
    });
    joinable.join();
    worker.join();
    EXPECT_THROW(joinable.task_done(), multihull::ValueError);
}

TEST_P(ProxyTest, LocksAndSemaphores) {
    const multihull::LockProxy lock = manager().Lock();
    {
        const std::lock_guard guard(lock);
        std::thread([&] {
            EXPECT_FALSE(lock.try_lock());
            EXPECT_FALSE(lock.try_lock_for(1ms));
        }).join();
    }
    EXPECT_TRUE(lock.try_lock());
    lock.unlock();
    EXPECT_THROW(lock.release(), multihull::SyncError);

    const multihull::RLockProxy rlock = manager().RLock();
    rlock.lock();
    EXPECT_TRUE(rlock.acquire(1s));
    std::thread([&] {
        EXPECT_FALSE(rlock.try_acquire());
        EXPECT_THROW(rlock.release(), multihull::SyncError);
    }).join();
    rlock.unlock();
    rlock.unlock();
    EXPECT_THROW(rlock.unlock(), multihull::SyncError);

    const multihull::SemaphoreProxy semaphore = manager().Semaphore(1);
    semaphore.acquire();
    EXPECT_FALSE(semaphore.try_acquire());
    semaphore.release();
    semaphore.release();
    EXPECT_TRUE(semaphore.try_acquire());
    EXPECT_TRUE(semaphore.acquire(1s));

    const multihull::BoundedSemaphoreProxy bounded = manager().BoundedSemaphore(1);
    bounded.acquire();
    bounded.release();
    EXPECT_THROW(bounded.release(), multihull::SyncError);
}

TEST_P(ProxyTest, ConditionEventAndBarrier) {
    const multihull::ConditionProxy condition = manager().Condition();
    const multihull::ValueProxy value = manager().Value("i", 0);
    EXPECT_THROW(condition.notify(), multihull::SyncError);
    EXPECT_THROW(condition.wait(), multihull::SyncError);
    {
        const std::lock_guard guard(condition);
        EXPECT_FALSE(condition.wait(1ms));
        EXPECT_FALSE(condition.wait_for([] { return false; }, 1ms));
    }
    std::thread waiter([&] {
        const std::lock_guard guard(condition);
        condition.wait_for([&] { return value.as<int>() == 1; });
        value.set(2);
        condition.notify_all();
    });
    {
        const std::lock_guard guard(condition);
        value.set(1);
        condition.notify();
        EXPECT_TRUE(condition.wait_for([&] { return value.as<int>() == 2; }, 100s));
    }
    waiter.join();

    const multihull::EventProxy event = manager().Event();
    EXPECT_FALSE(event.is_set());
    EXPECT_FALSE(event.wait(1ms));
    std::thread setter([&] { event.set(); });
    event.wait();
    setter.join();
    EXPECT_TRUE(event.wait(1s));
    event.clear();
    EXPECT_FALSE(event.is_set());

    const multihull::BarrierProxy barrier = manager().Barrier(2);
    EXPECT_EQ(barrier.parties(), 2U);
    EXPECT_EQ(barrier.n_waiting(), 0U);
    std::size_t other = 9;
    std::thread party([&] { other = barrier.wait(); });
    const std::size_t mine = barrier.wait();
    party.join();
    EXPECT_EQ(mine + other, 1U);
    EXPECT_THROW(barrier.wait(1ms), multihull::BrokenBarrier);
    EXPECT_TRUE(barrier.broken());
    barrier.reset();
    barrier.abort();
    EXPECT_THROW(barrier.wait(), multihull::BrokenBarrier);
    if (GetParam() == Kind::ours) {
        EXPECT_THROW(manager().Barrier(0), multihull::ValueError);
    }
}

TEST_P(ProxyTest, ObjectsOfOtherTypes) {
    const multihull::AutoProxy counter = manager().create("Counter", 5);
    EXPECT_EQ(counter.call("add", 3), Object(8));
    EXPECT_EQ(counter.type_id(), "Counter");
    EXPECT_TRUE(std::ranges::count(counter.exposed(), "add") == 1);
    EXPECT_THROW(counter.call("subtract", 3), multihull::AttributeError);
    EXPECT_THROW(counter.call("add"), multihull::TypeError);
    EXPECT_THROW(counter.call_proxy("add", 1), multihull::TypeError);
    EXPECT_EQ(counter.call("add", 0), Object(9));
    try {
        counter.call("fail", "the reason");
        FAIL();
    } catch (const multihull::RemoteError& error) {
        EXPECT_EQ(error.text(), "the reason");
        EXPECT_EQ(error.type_name(), GetParam() == Kind::python ? "LookupError" : "RuntimeError");
    }
    EXPECT_THROW(manager().create("NoSuchType"), multihull::Error);
}

TEST_P(ProxyTest, NestedProxies) {
    auto outer = manager().dict();
    {
        const auto inner = manager().list({1});
        outer["inner"] = inner;
        EXPECT_EQ(multihull::ListProxy(outer["inner"]), inner);
        EXPECT_THROW(multihull::DictProxy(outer.at("inner")), multihull::TypeError);
    }
    // The dict keeps it.
    const multihull::ListProxy found(outer["inner"]);
    found.append(2);
    EXPECT_EQ(multihull::ListProxy(outer.at("inner")).copy(), (Object{1, 2}));
    EXPECT_THROW(multihull::ListProxy(Object(1)), multihull::TypeError);

    const auto queue = manager().Queue();
    queue.put(manager().Queue());
    const multihull::QueueProxy through(queue.get());
    through.put(7);
    EXPECT_EQ(through.get(), Object(7));
    const auto lock = manager().Lock();
    const auto condition = manager().Condition(lock);
    const std::lock_guard guard(condition);
    condition.notify();
}

TEST_P(ProxyTest, TypedProxies) {
    const auto prices = manager().dict<std::string, double>();
    prices["tea"] = 2.5;
    prices["milk"] = prices["tea"];
    const double tea = prices["tea"];
    EXPECT_EQ(tea, 2.5);
    EXPECT_EQ(prices.at("milk"), 2.5);
    EXPECT_EQ(prices.get("none"), std::nullopt);
    EXPECT_EQ(prices.get("none", 1.0), 1.0);
    EXPECT_EQ(prices.pop("milk"), 2.5);
    EXPECT_EQ(prices.setdefault("salt", 0.5), 0.5);
    std::map<std::string, double> seen;
    for (const auto& [name, price] : prices) seen[name] = price;
    EXPECT_EQ(seen, (std::map<std::string, double>{{"tea", 2.5}, {"salt", 0.5}}));
    EXPECT_EQ(prices.keys(), (std::vector<std::string>{"tea", "salt"}));
    static_cast<const multihull::DictProxy&>(prices)["tea"] = "expensive";
    EXPECT_THROW(prices.at("tea"), multihull::TypeError);

    const auto points = manager().list<std::pair<int, int>>();
    points.append({1, 2});
    points[0] = std::pair(3, 4);
    EXPECT_EQ(points.copy(), (std::vector<std::pair<int, int>>{{3, 4}}));
    EXPECT_EQ(points.pop(), (std::pair<int, int>{3, 4}));

    const auto jobs = manager().Queue<std::vector<std::string>>();
    jobs.put({"a", "b"});
    EXPECT_EQ(jobs.get(), (std::vector<std::string>{"a", "b"}));
    EXPECT_EQ(jobs.try_get(), std::nullopt);
    const auto value = manager().Value<double>(0.25);
    value.set(value.get() * 2);
    EXPECT_EQ(value.get(), 0.5);
}

TEST_P(ProxyTest, AReferentLivesAsLongAsAProxy) {
    const std::size_t before = manager().number_of_objects();
    {
        const auto dict = manager().dict();
        const auto copy = dict;
        EXPECT_EQ(manager().number_of_objects(), before + 1);
        const auto iterator = manager().dict({{1, 2}}).iter();
        EXPECT_EQ(iterator.next(), Object(1));
    }
    EXPECT_EQ(manager().number_of_objects(), before);
    EXPECT_EQ(manager().debug_info().find("Traceback"), std::string::npos);
}

// A thread has a connection of its own, so one that waits does not hold up another; it is closed when the thread ends.
TEST_P(ProxyTest, ThreadsCallAtOnce) {
    constexpr int kThreads = 8;
    constexpr int kCalls = 200;
    const auto list = manager().list();
    const auto lock = manager().Lock();
    const auto counter = manager().Value<std::int64_t>(0);
    std::vector<std::thread> threads;
    for (int i = 0; i < kThreads; ++i) {
        threads.emplace_back([&, i] {
            for (int j = 0; j < kCalls; ++j) {
                list.append(i);
                if (j % 20 != 0) continue;
                const std::lock_guard guard(lock);
                counter.set(counter.get() + 1);
            }
        });
    }
    for (auto& thread : threads) thread.join();
    EXPECT_EQ(list.size(), std::size_t{kThreads} * kCalls);
    EXPECT_EQ(counter.get(), kThreads * kCalls / 20);
}

TEST_P(ProxyTest, LongMessages) {
    const auto list = manager().list();
    const std::string text(3'000'000, 'x');
    list.append(text);
    EXPECT_EQ(list.at(0).as_str(), text);
    std::vector<int> numbers(100'000);
    std::iota(numbers.begin(), numbers.end(), 0);
    list.append(numbers);
    EXPECT_EQ(multihull::from_object<std::vector<int>>(list.at(1)), numbers);
}

INSTANTIATE_TEST_SUITE_P(Servers, ProxyTest, ::testing::Values(Kind::python, Kind::ours),
                         [](const auto& kind) { return kind.param == Kind::python ? "python" : "ours"; });

}    // namespace
