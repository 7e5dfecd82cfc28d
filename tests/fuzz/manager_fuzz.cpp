// What a client that knows the key may ask of a manager's server: requests, each behind two bytes that say how long it is, in two sessions
// by turns. What may come of it: one answer for each, or a call that waits; and when the sessions have ended, nobody holds anything.
//
// The ids 0000000000000000 to 000000000000000f in the bytes stand for those of objects that are there from the beginning, one of each type.
#include "fuzz/fuzz.hpp"
#include "manager/pickle.hpp"
#include "manager/server_session.hpp"

#include <array>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace {

using multihull::Object;
using multihull::detail::ClientProcess;
using multihull::detail::Outlet;
using multihull::detail::pickle;
using multihull::detail::PickleGlobals;
using multihull::detail::ServerCore;
using multihull::detail::Session;
using multihull::detail::unpickle;

class Client final : public Outlet {
public:
    Client(const std::shared_ptr<ServerCore>& core, std::uint64_t number) : core_(core), number_(number) {}

    void begin() {
        session_ = std::make_shared<Session>(core_, number_, std::make_shared<ClientProcess>(number_ + 100),
                                             std::weak_ptr<Outlet>(self));
        call(Object::tuple(std::vector<Object>{nullptr, "accept_connection", Object::tuple(std::vector<Object>{"me"}),
                                               Object::dict()}));
    }

    void send(std::string answer) noexcept override {
        fuzz::require(open_, "an answer to nothing");
        open_ = false;
        const Object reply = unpickle(std::as_bytes(std::span(answer)), PickleGlobals::any());
        fuzz::require(reply.type() == Object::Type::tuple && reply.size() == 2, "an answer that is none");
        last_ = reply.elements()[1];
    }
    void close_when_sent() noexcept override {}
    void drop() noexcept override { open_ = false; }
    void set_timer(std::int64_t, std::function<void()> function) override { expired_ = std::move(function); }

    void say(std::span<const std::byte> message) {
        // Who still waits is told that his time is over: he must be answered then, unless he waits for ever.
        if (open_ && expired_) std::exchange(expired_, nullptr)();
        if (open_) return;
        open_ = true;
        session_->on_message(message);
    }
    Object call(const Object& request) {
        const std::string bytes = pickle(request);
        say(std::as_bytes(std::span(bytes)));
        return last_;
    }
    void end() { session_->on_end(); }
    bool waits() const noexcept { return open_; }

    std::weak_ptr<Outlet> self;

private:
    const std::shared_ptr<ServerCore> core_;
    const std::uint64_t number_;
    std::shared_ptr<Session> session_;
    std::function<void()> expired_;
    bool open_ = false;
    Object last_;
};

std::shared_ptr<Client> make_client(const std::shared_ptr<ServerCore>& core, std::uint64_t number) {
    auto client = std::make_shared<Client>(core, number);
    client->self = client;
    client->begin();
    return client;
}

Object request(Object ident, const char* method, std::vector<Object> args) {
    return Object::tuple(std::vector<Object>{std::move(ident), method, Object::tuple(std::move(args)), Object::dict()});
}

constexpr std::string_view kPlaceholder = "000000000000000";    // and a digit

// Puts the ids in, and tells whether it would build something so big that it is no mistake of ours.
bool prepare(std::string& message, const std::vector<std::string>& idents) {
    for (const std::string_view word : {"mul__", "range"}) {
        if (message.find(word) != std::string::npos) return false;
    }
    for (std::size_t at = message.find(kPlaceholder); at != std::string::npos;
         at = message.find(kPlaceholder, at + 1)) {
        if (at + 16 > message.size()) break;
        const char digit = message[at + 15];
        const std::size_t number = static_cast<std::size_t>(digit <= '9' ? digit - '0' : digit - 'a' + 10);
        if (number < idents.size()) message.replace(at, 16, idents[number]);
    }
    return true;
}

}    // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    const auto core = std::make_shared<ServerCore>();
    core->types = multihull::detail::ManagerTypes::sync_manager();
    core->largest_message = 1 << 16;
    core->stop = [] {};
    core->python_address = "address";
    const auto owner = make_client(core, 1);
    std::vector<std::string> idents;
    const auto make = [&](std::vector<Object> args) {
        const Object made = owner->call(request(nullptr, "create", std::move(args)));
        idents.push_back(made.at(0).as_str());
    };
    for (const char* type : {"dict", "list", "set", "Namespace", "Queue", "Event", "Lock", "RLock", "Semaphore",
                             "BoundedSemaphore", "Condition", "PriorityQueue"}) {
        make({type});
    }
    make({"Barrier", 2});
    make({"Value", "i", 1});
    make({"Array", "i", Object::list({1, 2, 3})});

    const std::array clients{make_client(core, 2), make_client(core, 3)};
    std::size_t turn = 0;
    while (size >= 2) {
        const std::size_t length = std::min<std::size_t>(std::size_t{data[0]} << 8 | data[1], size - 2);
        std::string message(reinterpret_cast<const char*>(data) + 2, length);
        data += 2 + length;
        size -= 2 + length;
        if (prepare(message, idents)) clients[turn++ % 2]->say(std::as_bytes(std::span(message)));
    }
    for (const auto& client : clients) client->end();
    for (const std::uint64_t number : {2U, 3U}) core->registry.release(number);
    // Processes end behind their connections.
    for (const std::size_t lock : {6U, 7U, 10U}) {
        const auto kept = core->registry.find(idents[lock]);
        if (kept == nullptr) continue;
        for (const std::uint64_t number : {2U, 3U}) kept->referent->caller_ended({.process = number + 100}, true);
        const Object taken = owner->call(request(idents[lock], "acquire", {false}));
        fuzz::require(taken == Object(true), "a client that has ended holds a lock");
    }
    owner->end();
    return 0;
}
