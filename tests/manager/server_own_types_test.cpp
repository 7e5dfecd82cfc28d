// A server inside a program, with types and functions of the program's own; and what the registry forgets. Python's types are tested by
// server_test.py, from outside.
#include "manager/server.hpp"
#include "manager/server_registry.hpp"
#include "support/python.hpp"

#include <multihull/detail/manager_method.hpp>

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <future>
#include <memory>
#include <set>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

namespace {

using multihull::Object;
using multihull::detail::Answer;
using multihull::detail::Call;
using multihull::detail::ManagerServer;
using multihull::detail::ManagerServerOptions;
using multihull::detail::ManagerType;
using multihull::detail::ManagerTypes;
using multihull::detail::NewProxy;
using multihull::detail::Parked;
using multihull::detail::Referent;
using multihull::detail::Registry;
using multihull::detail::Reply;

constexpr const char* kKey = "the key of a test";

// A server in a thread.
class Served {
public:
    explicit Served(ManagerTypes types)
        : server_({.address = "127.0.0.1:0", .authkey = kKey, .types = std::move(types)}),
          thread_([this] { server_.serve_forever(); }) {}
    ~Served() {
        server_.stop();
        thread_.join();
    }

    // Runs a script whose `manager` is connected, with these names registered.
    std::string python(const std::string& names, const std::string& script) {
        const std::string& address = server_.address();
        const std::string head = R"(
import sys, threading
from multiprocessing import process
from multiprocessing.managers import BaseManager, RemoteError
class Manager(BaseManager): pass
for name in ")" + names + R"(".split(): Manager.register(name)
key = b")" + std::string(kKey) + R"("
process.current_process().authkey = key
manager = Manager(("127.0.0.1", )" +
                                 address.substr(address.rfind(':') + 1) +
                                 R"(), authkey=key)
manager.connect()
)";
        return test::python(head + script);
    }

private:
    ManagerServer server_;
    std::thread thread_;
};

// Whatever a method is to do is given by a function.
class Simple : public Referent {
public:
    explicit Simple(std::function<Reply(Call&)> function) : function_(std::move(function)) {}
    Reply call(Call& call) override { return function_(call); }
    std::string repr() override { return "Simple()"; }
    Object value() override { return "simple"; }

private:
    std::function<Reply(Call&)> function_;
};

ManagerType simple_type(std::string name, std::vector<std::string> methods, std::function<Reply(Call&)> function,
                        bool slow = false) {
    return {.name = std::move(name),
            .exposed = std::move(methods),
            .create = [function = std::move(function)](Call&) { return std::make_shared<Simple>(function); },
            .slow = slow};
}

TEST(OwnTypes, AnswerValuesProxiesAndExceptions) {
    ManagerTypes types;
    types.add(simple_type("Inner", {"hello"}, [](Call& call) -> Reply {
        const auto args = call.bind({"name", "times"}, 1);
        return Object(args[0]->as_str() + std::to_string(args[1] == nullptr ? 1 : args[1]->as_int()));
    }));
    types.add(simple_type("Outer", {"inner", "fail", "strange"}, [](Call& call) -> Reply {
        if (call.method == "inner") {
            return NewProxy{"Inner", std::make_shared<Simple>([](Call&) -> Reply { return Object("inner"); })};
        }
        if (call.method == "fail") throw std::invalid_argument("that will not do");
        throw std::runtime_error("strange");
    }));
    Served served(std::move(types));
    EXPECT_EQ(served.python("Inner Outer", R"(
inner = manager.Inner()
print(inner.hello("a"), inner.hello("b", times=3), inner, inner._getvalue())
for args, kwds in (((), {}), ((1, 2, 3), {}), (("a",), {"name": "b"}), (("a",), {"else": 1})):
    try: inner._callmethod("hello", args, kwds)
    except TypeError as error: print(error)
outer = manager.Outer()
print(outer.inner().hello())
for method in (outer.fail, outer.strange):
    try: method()
    except Exception as error: print(repr(error))
)"),
              "a1 b3 Simple() simple\n"
              "hello() missing required argument: 'name'\n"
              "hello() takes at most 2 arguments (3 given)\n"
              "hello() got multiple values for argument 'name'\n"
              "hello() got an unexpected keyword argument 'else'\n"
              "inner\n"
              "ValueError('that will not do')\n"
              "RuntimeError('strange')\n");
}

TEST(OwnTypes, SlowMethodsHoldUpNobody) {
    std::promise<void> open;
    const std::shared_future<void> gate = open.get_future().share();
    ManagerTypes types;
    types.add(simple_type(
        "Slow", {"wait"},
        [gate](Call&) -> Reply {
            gate.wait();
            return Object("waited");
        },
        true));
    types.add(simple_type("Gate", {"open"}, [&](Call&) -> Reply {
        open.set_value();
        return Object();
    }));
    Served served(std::move(types));
    EXPECT_EQ(served.python("Slow Gate", R"(
slow, gate = manager.Slow(), manager.Gate()
answers = []
threads = [threading.Thread(target=lambda: answers.append(slow.wait())) for _ in range(20)]
for thread in threads: thread.start()
gate.open()
for thread in threads: thread.join()
print(set(answers), len(answers))
)"),
              "{'waited'} 20\n");
}

TEST(OwnTypes, ParkedCallsAreAnsweredFromAnyThread) {
    std::vector<std::thread> threads;
    ManagerTypes types;
    types.add(simple_type("Later", {"get"}, [&](Call& call) -> Reply {
        auto parked = call.context.park(INT64_MAX, nullptr);
        threads.emplace_back([parked = std::move(parked)] {
            if (parked->claim()) parked->answer(Answer(Object("later")));
            EXPECT_FALSE(parked->claim());
        });
        return Parked{};
    }));
    {
        Served served(std::move(types));
        EXPECT_EQ(served.python("Later", "later = manager.Later()\nprint({later.get() for _ in range(200)})\n"),
                  "{'later'}\n");
    }
    for (std::thread& thread : threads) thread.join();
}

TEST(OwnTypes, FunctionsUpdateInPlace) {
    ManagerTypes types = ManagerTypes::sync_manager();
    types.add_function("longest", [](const Object& old, std::span<const Object> args) {
        return old.is_none() || old.size() < args[0].size() ? args[0] : old;
    });
    Served served(std::move(types));
    EXPECT_EQ(served.python("dict", R"(
words = manager.dict()
print([words.apply("longest", "longest", word) for word in ("a", "ccc", "bb")], words)
)"),
              "['a', 'ccc', 'ccc'] {'longest': 'ccc'}\n");
}

TEST(OwnTypes, ServersNeedAKey) {
    EXPECT_THROW(ManagerServer(ManagerServerOptions{.address = "@multihull-test-without-a-key"}), multihull::Error);
}

// The registry.

// Holds a value.
class Holder : public Referent {
public:
    Reply call(Call&) override { return Object(); }
    std::string repr() override { return "Holder()"; }
    Object value() override { return held; }
    void visit(const std::function<void(const Object&)>& visitor) override { visitor(held); }

    Object held;
};

Object proxy_of(const std::string& ident) {
    const auto instance = [](const char* name, std::vector<Object> args, Object state) {
        return Object::instance({.module = "multiprocessing.managers",
                                 .name = name,
                                 .args = Object::tuple(std::move(args)),
                                 .state = std::move(state)});
    };
    Object token = instance("Token", {}, Object::tuple(std::vector<Object>{"list", "address", Object(ident)}));
    return instance("RebuildProxy", {"ListProxy", std::move(token), "pickle", Object::dict()}, {});
}

TEST(Registry, ForgetsWithTheLastReference) {
    Registry registry;
    const ManagerType type{.name = "Holder", .exposed = {}, .create = {}};
    const std::weak_ptr<Referent> alive = [&] {
        auto referent = std::make_shared<Holder>();
        const std::weak_ptr<Referent> weak = referent;
        const std::string ident = registry.add(type, std::move(referent), 7)->ident;
        EXPECT_TRUE(registry.incref(ident, 8));
        EXPECT_EQ(registry.decref(ident, 7), Registry::Dropped::owners_last);
        EXPECT_EQ(registry.size(), 1);
        return weak;
    }();
    EXPECT_FALSE(alive.expired());
    registry.release(8);
    EXPECT_TRUE(alive.expired());
    EXPECT_EQ(registry.size(), 0);
}

TEST(Registry, WhatWasLentStays) {
    Registry registry;
    const ManagerType type{.name = "Holder", .exposed = {}, .create = {}};
    const std::string ident = registry.add(type, std::make_shared<Holder>(), 7)->ident;
    EXPECT_FALSE(registry.lend(ident, 8));
    EXPECT_TRUE(registry.lend(ident, 7));
    registry.release(7);
    EXPECT_NE(registry.find(ident), nullptr);
    EXPECT_EQ(registry.decref(ident, 9), Registry::Dropped::some_left);
    EXPECT_EQ(registry.find(ident), nullptr);
    EXPECT_EQ(registry.decref(ident, 9), Registry::Dropped::unknown);
}

TEST(Registry, KeepsWhatLiesInAnObjectThatStays) {
    Registry registry;
    const ManagerType type{.name = "Holder", .exposed = {}, .create = {}};
    const auto outer = std::make_shared<Holder>();
    registry.add_root(outer);
    const std::string outer_ident = registry.add(type, outer, 7)->ident;
    const std::string inner_ident = registry.add(type, std::make_shared<Holder>(), 7)->ident;
    outer->held = proxy_of(inner_ident);
    ASSERT_TRUE(registry.stash(inner_ident));
    registry.release(7);    // the last client leaves
    for (const std::int64_t now : {1000, 2000, 3000}) registry.collect(now, 100);
    EXPECT_NE(registry.find(inner_ident), nullptr);
    outer->held = Object();
    for (const std::int64_t now : {4000, 5000}) registry.collect(now, 100);
    EXPECT_EQ(registry.find(inner_ident), nullptr);
}

TEST(Registry, KeepsWhatCanBeReachedAndForgetsCycles) {
    constexpr std::int64_t kGrace = 100;
    Registry registry;
    const ManagerType type{.name = "Holder", .exposed = {}, .create = {}};
    const auto outer = std::make_shared<Holder>();
    const auto inner = std::make_shared<Holder>();
    const std::string outer_ident = registry.add(type, outer, 7)->ident;
    const std::string inner_ident = registry.add(type, inner, 7)->ident;
    outer->held = Object::dict({{"deep", Object::list(std::vector<Object>{proxy_of(inner_ident)})}});
    inner->held = proxy_of(outer_ident);
    ASSERT_TRUE(registry.stash(inner_ident));
    registry.decref(inner_ident, 7);
    EXPECT_EQ(registry.size(), 1);
    for (const std::int64_t now : {1000, 2000, 3000}) registry.collect(now, kGrace);
    EXPECT_NE(registry.find(inner_ident), nullptr);

    // Now each is reached from the other only.
    ASSERT_TRUE(registry.stash(outer_ident));
    registry.decref(outer_ident, 7);
    registry.collect(4000, kGrace);
    EXPECT_NE(registry.find(inner_ident), nullptr) << "a client may be about to count a reference";
    registry.collect(4050, kGrace);
    EXPECT_TRUE(registry.incref(inner_ident, 7));    // as one does
    registry.collect(5000, kGrace);
    EXPECT_NE(registry.find(outer_ident), nullptr);
    registry.decref(inner_ident, 7);
    registry.collect(6000, kGrace);
    registry.collect(6200, kGrace);
    EXPECT_EQ(registry.find(inner_ident), nullptr);
    EXPECT_EQ(registry.find(outer_ident), nullptr);
    EXPECT_EQ(registry.size(), 0);
}

// Keeps what it is given where the registry can't look.
class Drawer {
public:
    void put(const Object& content) { content_ = content; }

private:
    Object content_;
};

ManagerType drawer_type(bool keeps_proxies) {
    multihull::detail::RegisteredType registered{.name = "Drawer"};
    registered.keeps_proxies = keeps_proxies;
    multihull::constructor<>().add_to<Drawer>(registered);
    multihull::method<&Drawer::put>("put", {"content"}).add_to<Drawer>(registered);
    return multihull::detail::manager_type_of(registered);
}

// Of a call that needs nothing of its server.
class NoServer : public multihull::detail::CallContext {
public:
    const multihull::detail::Caller& caller() const noexcept override { return caller_; }
    std::shared_ptr<multihull::detail::ParkedCall> park(std::int64_t, std::function<void()>) override { return {}; }
    void tell_end_to(const std::shared_ptr<Referent>&) override {}
    std::shared_ptr<Referent> referent_of(const Object&) const override { return {}; }
    const multihull::detail::UpdateFunction* find_function(std::string_view) const override { return nullptr; }

private:
    multihull::detail::Caller caller_;
};

TEST(Registry, KeepsWhatAnInstanceOfTheProgramsMayHaveKept) {
    for (const bool keeps : {true, false}) {
        Registry registry;
        const ManagerType drawers = drawer_type(keeps);
        const ManagerType holders{.name = "Holder", .exposed = {}, .create = {}};
        NoServer context;
        Call making{"Drawer", {}, {}, context};
        const auto drawer = drawers.create(making);
        const std::string drawer_ident = registry.add(drawers, drawer, 7)->ident;
        const std::string inner_ident = registry.add(holders, std::make_shared<Holder>(), 7)->ident;
        ASSERT_TRUE(registry.stash(inner_ident));
        Call putting{"put", {Object::list(std::vector<Object>{proxy_of(inner_ident)})}, {}, context};
        drawer->call(putting);
        registry.decref(inner_ident, 7);
        for (const std::int64_t now : {1000, 2000}) registry.collect(now, 100);
        EXPECT_EQ(registry.find(inner_ident) != nullptr, keeps);
        registry.decref(drawer_ident, 7);
        for (const std::int64_t now : {3000, 4000}) registry.collect(now, 100);
        EXPECT_EQ(registry.find(inner_ident), nullptr) << "the instance is gone";
    }
}

// Of a call whose server knows what its registry does.
class OfRegistry final : public NoServer {
public:
    explicit OfRegistry(const Registry& registry) : registry_(registry) {}
    std::shared_ptr<Referent> referent_of(const Object& object) const override {
        const auto kept = registry_.find(multihull::detail::ident_of(object));
        return kept == nullptr ? nullptr : kept->referent;
    }

private:
    const Registry& registry_;
};

TEST(Registry, AnInstanceOfTheProgramsForgetsProxiesOfWhatHasEnded) {
    Registry registry;
    const ManagerType drawers = drawer_type(true);
    const ManagerType holders{.name = "Holder", .exposed = {}, .create = {}};
    OfRegistry context(registry);
    Call making{"Drawer", {}, {}, context};
    const auto drawer = drawers.create(making);
    std::vector<std::string> living;
    const auto count = [&] {
        std::size_t held = 0;
        drawer->visit([&](const Object&) { ++held; });
        return held;
    };
    std::size_t most = 0;
    for (int i = 0; i < 1000; ++i) {
        const std::string ident = registry.add(holders, std::make_shared<Holder>(), 7)->ident;
        Call putting{"put", {proxy_of(ident)}, {}, context};
        drawer->call(putting);
        if (i % 50 == 0) {
            living.push_back(ident);
        } else {
            registry.decref(ident, 7);
        }
        most = std::max(most, count());
    }
    EXPECT_LE(most, 100U);
    std::set<std::string> held;
    drawer->visit([&](const Object& proxy) { held.emplace(multihull::detail::ident_of(proxy)); });
    for (const std::string& ident : living) EXPECT_TRUE(held.contains(ident)) << ident;
}

}    // namespace
