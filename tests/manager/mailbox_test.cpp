// A manager's mailboxes: that calls go through them, and what follows when a client or the server dies over one, or breaks it.
#include "manager/mailbox.hpp"
#include "manager/family.hpp"
#include "manager/pickle.hpp"
#include "os/process.hpp"
#include "shm/objects.hpp"
#include "support/board.hpp"
#include "support/start_methods.hpp"

#include <multihull/connection.hpp>
#include <multihull/manager.hpp>
#include <multihull/process.hpp>

#include <gtest/gtest.h>

#include <atomic>
#include <csignal>
#include <cstring>
#include <string>
#include <thread>
#include <vector>

namespace {

using namespace std::chrono_literals;
using multihull::Object;
using multihull::detail::FamilyId;
using multihull::detail::Mailbox;
using multihull::detail::MailboxBell;
using multihull::os::KillPoint;

constexpr std::size_t kCalls = 1;
constexpr std::size_t kStop = 2;
constexpr std::size_t kResult = 3;

std::atomic<std::uint32_t>& countdown(KillPoint point) {
    return multihull::shm::Region::instance().header().kill_points.countdown[static_cast<std::uint32_t>(point)];
}

// Counts how often a point is passed, without anybody being killed.
class Passed {
public:
    explicit Passed(KillPoint point) : countdown_(countdown(point)) { countdown_.store(kMany); }
    ~Passed() { countdown_.store(0); }
    Passed(const Passed&) = delete;
    Passed& operator=(const Passed&) = delete;
    std::uint32_t count() const { return kMany - countdown_.load(); }

private:
    static constexpr std::uint32_t kMany = 2'000'000'000;
    std::atomic<std::uint32_t>& countdown_;
};

bool can_wait_awake() { return multihull::os::usable_cpus() > 1; }

std::string text_of(std::size_t length, int salt) {
    std::string text(length, ' ');
    for (std::size_t i = 0; i < length; ++i)
        text[i] = static_cast<char>('a' + (i * 7 + static_cast<std::size_t>(salt)) % 26);
    return text;
}

// Texts of all lengths around what a mailbox holds, there and back, until told to stop.
void call_with_all_lengths(multihull::DictProxy dict, int me, const std::string& path) {
    test::Board board(path);
    const std::string key = "text of " + std::to_string(me);
    for (int round = 0; board[kStop] == 0; ++round) {
        for (const std::size_t length : {0U, 1U, 55U, 3000U, 16100U, 16200U, 16300U, 16376U, 16400U, 70000U}) {
            const std::string text = text_of(length, round);
            dict.set(key, text);
            if (dict.get(key) != Object(text)) {
                board[kResult] = -1;
                return;
            }
            ++board[kCalls];
        }
    }
}

// Calls that are answered at once, and some that wait longer than anybody stays awake.
void call_forever(const multihull::DictProxy& dict, const multihull::LockProxy& lock,
                  const multihull::QueueProxy& empty, const std::string& path) {
    test::Board board(path);
    lock.lock();
    board[test::kHeld] = 1;
    for (;;) {
        for (int i = 0; i < 20; ++i) dict.add("n");
        empty.try_get_for(1ms);
    }
}

void call_until_gone(const multihull::DictProxy& dict, const multihull::QueueProxy& queue, bool sleeps,
                     const std::string& path) {
    test::Board board(path);
    try {
        for (int i = 0;; ++i) {
            dict.add("n");
            ++board[kCalls];
            if (sleeps && i > 20) queue.get();
        }
    } catch (const multihull::ManagerGone&) {
        ++board[kResult];
    }
}

// In order.

class MailboxStartTest : public test::StartMethodTest {};

TEST_P(MailboxStartTest, CallsOfTheFamilyGoThroughThem) {
    if (!multihull::os::kFailpoints || !can_wait_awake()) GTEST_SKIP();
    multihull::Manager manager;
    const auto dict = manager.dict();
    test::Board board;
    const Passed taken(KillPoint::mailbox_taken);
    const Passed answered(KillPoint::mailbox_answered);
    std::vector<multihull::Process> processes;
    for (int i = 0; i < 3; ++i) processes.emplace_back(call_with_all_lengths, dict, i, board.path());
    for (auto& process : processes) process.start();
    EXPECT_TRUE(test::eventually([&] { return taken.count() > 100 && answered.count() > 100 && board[kCalls] > 100; }))
        << taken.count() << " " << answered.count();
    board[kStop] = 1;
    for (auto& process : processes) {
        process.join();
        EXPECT_EQ(process.exitcode(), 0);
    }
    EXPECT_EQ(board[kResult], 0);
}

INSTANTIATE_TEST_SUITE_P(StartMethods, MailboxStartTest, test::each_start_method(), test::start_method_name);

TEST(Mailbox, EachThreadHasItsOwn) {
    multihull::Manager manager;
    const auto dict = manager.dict();
    const auto queue = manager.Queue();
    std::vector<std::thread> threads;
    for (int i = 0; i < 4; ++i) {
        threads.emplace_back([&] {
            for (int n = 0; n < 300; ++n) dict.add("n");
        });
    }
    threads.emplace_back([&] {
        for (int n = 0; n < 300; ++n) EXPECT_EQ(queue.get(), Object(n));    // calls that wait
    });
    threads.emplace_back([&] {
        for (int n = 0; n < 300; ++n) queue.put(n);
    });
    for (auto& thread : threads) thread.join();
    EXPECT_EQ(dict.get("n"), Object(1200));
}

// By hand.

// A client that does with its mailbox what it likes.
class RawClient {
public:
    explicit RawClient(multihull::BaseManager& manager)
        : connection_(multihull::Client(manager.address(), {.authkey = manager.authkey()})) {
        ask(nullptr, "accept_connection", {"raw"});
    }

    void say(Object ident, const char* method, std::vector<Object> args) {
        connection_.send_bytes(request(std::move(ident), method, std::move(args)));
    }
    Object hear() {
        const auto bytes = connection_.recv_bytes();
        return multihull::detail::unpickle(bytes, multihull::detail::PickleGlobals::any());
    }
    Object ask(Object ident, const char* method, std::vector<Object> args) {
        say(std::move(ident), method, std::move(args));
        return hear().at(1);
    }
    Object ask_for_mailbox(const FamilyId& family) {
        return ask(nullptr, "mailbox", {Object::bytes(std::as_bytes(std::span(family.id)))});
    }
    void open() {
        const Object given = ask_for_mailbox(FamilyId::own());
        ASSERT_EQ(given.type(), Object::Type::tuple);
        place = given.at(1).as<std::uint32_t>();
        multihull::detail::Reader reader(given.at(0).as_bytes());
        object_ =
            multihull::detail::decode_object(reader,
                                             1U << static_cast<std::uint32_t>(multihull::shm::ObjectKind::mailboxes));
        bell = static_cast<MailboxBell*>(multihull::detail::object_data(object_));
        mailbox = multihull::shm::Region::instance().at<Mailbox>(bell->mailboxes) + place;
    }
    void post(const std::string& bytes, std::uint32_t size) {
        std::memcpy(mailbox->bytes.data(), bytes.data(), bytes.size());
        mailbox->size.store(size);
        mailbox->state.store(Mailbox::request);
        ring();
    }
    void ring() { bell->rung[place / 64].fetch_or(std::uint64_t{1} << place % 64); }

    static std::string request(Object ident, const char* method, std::vector<Object> args) {
        return multihull::detail::pickle(Object::tuple(
            std::vector<Object>{std::move(ident), method, Object::tuple(std::move(args)), Object::dict()}));
    }

    std::uint32_t place = 0;
    MailboxBell* bell = nullptr;
    Mailbox* mailbox = nullptr;

private:
    multihull::Connection connection_;
    multihull::detail::ObjectRef object_;
};

TEST(Mailbox, OnlyTheFamilyHasThem) {
    multihull::Manager manager;
    RawClient client(manager);
    FamilyId other = FamilyId::own();
    ++other.id[0];
    EXPECT_TRUE(client.ask_for_mailbox(other).is_none());
    EXPECT_TRUE(client.ask(nullptr, "mailbox", {Object::bytes(std::string_view())}).is_none());
    EXPECT_EQ(client.ask(nullptr, "mailbox", {Object(1)}).type(), Object::Type::str);    // a traceback
    EXPECT_FALSE(client.ask_for_mailbox(FamilyId::own()).is_none());
    EXPECT_FALSE(client.ask_for_mailbox(FamilyId::own()).is_none());    // the same again
}

TEST(Mailbox, PlacesAreGivenAgain) {
    multihull::Manager manager({.threads = 1});
    std::vector<std::unique_ptr<RawClient>> clients;
    const auto ask = [&] {
        clients.push_back(std::make_unique<RawClient>(manager));
        return clients.back()->ask_for_mailbox(FamilyId::own());
    };
    for (std::size_t i = 0; i < multihull::detail::kMailboxes; ++i) ASSERT_FALSE(ask().is_none());
    EXPECT_TRUE(ask().is_none());
    const auto dict = manager.dict();
    for (int i = 0; i < 30; ++i) dict.add("n");    // without a mailbox
    EXPECT_EQ(dict.get("n"), Object(30));
    clients.clear();
    EXPECT_TRUE(test::eventually([&] { return !ask().is_none(); }));
}

TEST(Mailbox, ABrokenClientCostsItself) {
    multihull::Manager manager({.threads = 1});
    const auto dict = manager.dict({{"a", 1}});
    std::vector<std::unique_ptr<RawClient>> clients;
    for (int i = 0; i < 3; ++i) {
        clients.push_back(std::make_unique<RawClient>(manager));
        clients.back()->open();
    }
    RawClient& liar = *clients[0];
    liar.post("no pickle", 0xffffffff);
    liar.say(nullptr, "dummy", {});    // which wakes the loop
    EXPECT_EQ(liar.hear().at(0), Object("#RETURN"));
    ASSERT_TRUE(test::eventually([&] { return liar.mailbox->state == Mailbox::answered; }));
    liar.mailbox->state = Mailbox::idle;

    RawClient& greedy = *clients[1];
    const Object made = greedy.ask(nullptr, "create", {"Queue"}).at(0);
    const std::string get = RawClient::request(made, "get", {});
    const auto size = static_cast<std::uint32_t>(get.size());
    greedy.post(get, size);
    clients[2]->ask(nullptr, "dummy", {});
    ASSERT_TRUE(test::eventually([&] { return greedy.mailbox->state == Mailbox::asked; }));
    greedy.post(get, size);    // before the first is answered
    for (auto& word : greedy.bell->rung) word = ~std::uint64_t{0};
    clients[2]->ask(nullptr, "dummy", {});
    EXPECT_EQ(dict.get("a"), Object(1));
    clients[2]->ask(made, "put", {5});
    EXPECT_EQ(greedy.hear().at(1), Object(5));
    ASSERT_TRUE(test::eventually([&] { return greedy.mailbox->state == Mailbox::asked; }));
    clients[2]->ask(made, "put", {6});
    ASSERT_TRUE(test::eventually([&] { return greedy.mailbox->state == Mailbox::answered; }));
    clients.erase(clients.begin() + 1);

    RawClient& wild = *clients[0];
    std::atomic<bool> stop{false};
    std::thread scribbling([&] {
        const std::string bytes = RawClient::request(nullptr, "number_of_objects", {});
        for (std::uint32_t i = 0; !stop; ++i) {
            if (i % 3 == 0) wild.post(bytes, static_cast<std::uint32_t>(bytes.size()));
            wild.mailbox->bytes[i % bytes.size()] = static_cast<std::byte>(i);
            wild.mailbox->size = i * 77;
            wild.mailbox->state = i % 7 | (i % 11 == 0 ? Mailbox::kBySocket : 0);
            wild.ring();
        }
    });
    for (int i = 0; i < 1000; ++i) EXPECT_EQ(dict.add("n"), Object(i + 1));
    stop = true;
    scribbling.join();
    EXPECT_EQ(dict.get("a"), Object(1));
    EXPECT_EQ(clients[1]->ask(nullptr, "dummy", {}), Object());
}

// Deaths.

class AClientDies : public ::testing::TestWithParam<KillPoint> {};
class TheServerDies : public ::testing::TestWithParam<KillPoint> {};

TEST_P(AClientDies, AndTheOthersAreServed) {
    if (!multihull::os::kFailpoints || !can_wait_awake()) GTEST_SKIP();
    multihull::Manager manager;
    const auto dict = manager.dict();
    const auto lock = manager.Lock();
    const auto empty = manager.Queue();
    const std::size_t before = manager.number_of_objects();
    for (const std::uint32_t nth : {1U, 2U, 300U}) {
        test::Board board;
        multihull::Process process(call_forever, dict, lock, empty, board.path());
        countdown(GetParam()).store(nth);    // this process makes no call before the other one is dead
        process.start();
        process.join();
        countdown(GetParam()).store(0);
        EXPECT_EQ(process.exitcode(), -SIGKILL);
        if (board[test::kHeld] != 0) {
            ASSERT_TRUE(lock.try_lock_for(test::kPatience));
            lock.unlock();
        }
        for (int i = 0; i < 100; ++i) dict.add("mine");
        EXPECT_TRUE(test::eventually([&] { return manager.number_of_objects() == before; }));
    }
}

TEST_P(TheServerDies, AndEachClientIsTold) {
    if (!multihull::os::kFailpoints || !can_wait_awake()) GTEST_SKIP();
    for (const std::uint32_t nth : {1U, 40U}) {
        multihull::Manager manager;
        const auto dict = manager.dict();
        const auto queue = manager.Queue();
        test::Board board;
        std::vector<multihull::Process> processes;
        for (const bool sleeps : {false, false, true}) {
            processes.emplace_back(call_until_gone, dict, queue, sleeps, board.path());
        }
        for (auto& process : processes) process.start();
        ASSERT_TRUE(board.wait_until_at_least(kCalls, 60));
        countdown(GetParam()).store(nth);
        for (auto& process : processes) {
            process.join();
            EXPECT_EQ(process.exitcode(), 0);
        }
        countdown(GetParam()).store(0);
        EXPECT_EQ(board[kResult], 3);
        EXPECT_THROW(dict.add("n"), multihull::ManagerGone);
    }
}

std::string name_of(const ::testing::TestParamInfo<KillPoint>& info) {
    switch (info.param) {
        case KillPoint::mailbox_filled:
            return "filled";
        case KillPoint::mailbox_posted:
            return "posted";
        case KillPoint::mailbox_rung:
            return "rung";
        case KillPoint::mailbox_slept:
            return "slept";
        case KillPoint::mailbox_taken:
            return "taken";
        case KillPoint::mailbox_answering:
            return "answering";
        case KillPoint::mailbox_answered:
            return "answered";
        default:
            return "unknown";
    }
}

INSTANTIATE_TEST_SUITE_P(Mailbox, AClientDies,
                         ::testing::Values(KillPoint::mailbox_filled, KillPoint::mailbox_posted,
                                           KillPoint::mailbox_rung, KillPoint::mailbox_slept),
                         name_of);
INSTANTIATE_TEST_SUITE_P(Mailbox, TheServerDies,
                         ::testing::Values(KillPoint::mailbox_taken, KillPoint::mailbox_answering,
                                           KillPoint::mailbox_answered),
                         name_of);

}    // namespace
