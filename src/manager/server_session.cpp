#include "manager/server_session.hpp"

#include "manager/family.hpp"
#include "manager/pickle.hpp"
#include "manager/referent.hpp"

#include <multihull/log.hpp>

#include <algorithm>
#include <cstring>

namespace multihull::detail {

namespace {

constexpr std::string_view kProxy = "RebuildProxy";

bool contains(std::span<const std::byte> bytes, std::string_view text) {
    return ::memmem(bytes.data(), bytes.size(), text.data(), text.size()) != nullptr;
}

std::string message(const char* kind, Object value) {
    std::vector<Object> parts;
    parts.reserve(2);
    parts.emplace_back(kind);
    parts.push_back(std::move(value));
    return pickle(Object::tuple(std::move(parts)));
}

// As a client shows it: behind a line of dashes, with another one below.
std::string traceback(const std::exception_ptr& error) {
    const Object text(std::string(python_exception(error).what()) + "\n");
    try {
        return message("#TRACEBACK", text);
    } catch (const PicklingError&) {    // not UTF-8: what it quotes may be anything
        return message("#TRACEBACK", Object(text.repr() + "\n"));
    }
}

std::string traceback(const char* name, const std::string& sentence) {
    return traceback(std::make_exception_ptr(PythonException(name, sentence)));
}

std::string error_message(const std::exception_ptr& error) {
    const PythonException exception = python_exception(error);
    return message("#ERROR", instance_of(exception.module().c_str(), exception.name().c_str(), exception.args()));
}

// The methods that a client is told of. Python makes a class with all of them where it has none for the type; with one of these, which
// are for attributes, it could not get at its own. Its classes that use them know of them.
Object names(const std::vector<std::string>& exposed) {
    std::vector<Object> told;
    for (const std::string& name : exposed) {
        if (name != "__getattribute__" && name != "__setattr__" && name != "__delattr__") told.emplace_back(name);
    }
    return Object::tuple(std::move(told));
}

std::string proxy_message(ServerCore& core, NewProxy proxy) {
    const ManagerType* const type = core.types.find(proxy.type);
    if (type == nullptr) {
        return traceback("KeyError", "the server knows no type '" + proxy.type + "' to make a proxy of");
    }
    // Nobody's: Python's clients give it back over another connection than this one.
    const auto kept = core.registry.add(*type, std::move(proxy.referent), 0);
    Object token =
        instance_of("multiprocessing.managers", "Token", {},
                    Object::tuple(std::vector<Object>{kept->type->name, core.python_address, kept->ident}), true);
    return message("#PROXY", Object::tuple(std::vector<Object>{names(type->exposed), std::move(token)}));
}

std::string answer_message(ServerCore& core, Answer answer) {
    try {
        if (auto* const value = std::get_if<Object>(&answer)) return message("#RETURN", std::move(*value));
        if (auto* const proxy = std::get_if<NewProxy>(&answer)) {
            return proxy_message(core, std::move(*proxy));
        }
        return error_message(std::get<std::exception_ptr>(answer));
    } catch (const PicklingError& error) {
        return message("#UNSERIALIZABLE", Object(std::string(error.what()) + "\n"));
    }
}

// The elements of a list or tuple, moved out of it.
std::vector<Object> take_elements(Object& sequence) {
    std::vector<Object> elements;
    elements.reserve(sequence.size());
    for (std::size_t i = 0; i < sequence.size(); ++i) elements.push_back(std::move(sequence.at(i)));
    return elements;
}

}    // namespace

void ClientProcess::tell_end_to(const std::shared_ptr<Referent>& referent) {
    const std::lock_guard guard(mutex_);
    if (told_.size() >= 64) std::erase_if(told_, [](const auto& each) { return each.second.expired(); });
    told_.insert_or_assign(referent.get(), referent);
}

void ClientProcess::end() {
    ended_.store(true, std::memory_order_release);
    std::map<Referent*, std::weak_ptr<Referent>> told;
    {
        const std::lock_guard guard(mutex_);
        told.swap(told_);
    }
    for (const auto& [address, weak] : told) {
        if (const auto referent = weak.lock()) referent->caller_ended({.process = number_}, true);
    }
}

// A call that waits for its answer, which is sent over the connection that it came from.
class Session::SessionCall final : public ParkedCall {
public:
    SessionCall(std::shared_ptr<ServerCore> core, std::shared_ptr<Outlet> outlet)
        : core_(std::move(core)), outlet_(std::move(outlet)) {}

    void answer(Answer answer) noexcept override {
        try {
            outlet_->send(answer_message(*core_, std::move(answer)));
        } catch (const std::exception& error) {
            // Without an answer the client would wait for ever.
            log(LogLevel::error,
                std::string("a manager's client is dropped, as it can't be answered: ") + error.what());
            outlet_->drop();
        }
    }

private:
    const std::shared_ptr<ServerCore> core_;
    const std::shared_ptr<Outlet> outlet_;
};

// Of a call on a thread of its own. It is parked from the beginning.
class Session::SlowContext final : public CallContext {
public:
    SlowContext(std::shared_ptr<Session> session, std::shared_ptr<SessionCall> call)
        : session_(std::move(session)), call_(std::move(call)) {}

    const Caller& caller() const noexcept override { return session_->caller(); }
    std::shared_ptr<ParkedCall> park(std::int64_t deadline, std::function<void()> expired) override {
        if (const auto outlet = session_->outlet_.lock()) outlet->set_timer(deadline, std::move(expired));
        return call_;
    }
    void tell_end_to(const std::shared_ptr<Referent>& referent) override { session_->tell_end_to(referent); }
    std::shared_ptr<Referent> referent_of(const Object& object) const override { return session_->referent_of(object); }
    const UpdateFunction* find_function(std::string_view name) const override { return session_->find_function(name); }

private:
    const std::shared_ptr<Session> session_;
    const std::shared_ptr<SessionCall> call_;
};

Session::Session(std::shared_ptr<ServerCore> core, std::uint64_t connection, std::shared_ptr<ClientProcess> process,
                 std::weak_ptr<Outlet> outlet)
    : core_(std::move(core)),
      caller_{.connection = connection, .process = process ? process->number() : connection},
      process_(std::move(process)),
      outlet_(std::move(outlet)) {}

// References that come one by one, as Python's clients count them, are the process's where that is known. Those that were counted
// over a connection that stays are the connection's.
Owner Session::owner() const noexcept {
    if (accepted_) return caller_.connection;
    return process_ ? process_->number() : 0;
}

std::shared_ptr<ParkedCall> Session::park(std::int64_t deadline, std::function<void()> expired) {
    if (creating_) throw Error("making an object can't wait: have one of its methods wait");
    const auto outlet = outlet_.lock();
    parked_ = std::make_shared<SessionCall>(core_, outlet);
    outlet->set_timer(deadline, std::move(expired));
    return parked_;
}

void Session::tell_end_to(const std::shared_ptr<Referent>& referent) {
    {
        const std::lock_guard guard(told_mutex_);
        const auto known = told_.find(referent.get());
        if (known != told_.end() && known->second.lock() == referent) return;
        if (told_.size() >= 64) std::erase_if(told_, [](const auto& each) { return each.second.expired(); });
        told_.insert_or_assign(referent.get(), referent);
    }
    if (process_) process_->tell_end_to(referent);
}

std::shared_ptr<Referent> Session::referent_of(const Object& object) const {
    const std::string_view ident = ident_of(object);
    if (ident.empty()) return nullptr;
    const auto kept = core_->registry.find(ident);
    return kept ? kept->referent : nullptr;
}

const UpdateFunction* Session::find_function(std::string_view name) const { return core_->types.find_function(name); }

void Session::on_end() {
    if (parked_) parked_->claim();    // and never answer it
    parked_.reset();
    last_.reset();
    const bool process_ended = process_ == nullptr || process_->ended();
    std::map<Referent*, std::weak_ptr<Referent>> told;
    {
        const std::lock_guard guard(told_mutex_);
        told.swap(told_);
    }
    for (const auto& [address, weak] : told) {
        if (const auto referent = weak.lock()) referent->caller_ended(caller_, process_ended);
    }
    core_->registry.release(caller_.connection);
}

void Session::answer(std::string message) {
    const auto outlet = outlet_.lock();
    if (outlet == nullptr) return;
    if (!accepted_) outlet->close_when_sent();
    outlet->send(std::move(message));
}

void Session::on_message(std::span<const std::byte> message) {
    parked_.reset();
    try {
        Object request = unpickle(message, PickleGlobals::of_server(), {.bytes = core_->largest_message});
        if (contains(message, kProxy)) stash_proxies(request);
        handle(std::move(request));
    } catch (...) {
        answer(traceback(std::current_exception()));
    }
}

// A Token by itself asks about a referent; a proxy is going to lie in one.
void Session::stash_proxies(const Object& object) {
    for_each_proxy(object, [this](const Object& proxy) {
        if (proxy.is_a("multiprocessing.managers", kProxy)) core_->registry.stash(ident_of(proxy));
    });
}

void Session::handle(Object request) {
    if (request.type() != Object::Type::tuple || request.size() != 4) {
        raise("ValueError", "a request is a tuple of an id, a method's name, its arguments and its keyword arguments");
    }
    const Object ident = std::move(request.at(0));
    std::string method = request.at(1).as_str();
    Object& positional = request.at(2);
    if (positional.type() != Object::Type::tuple && positional.type() != Object::Type::list) {
        raise("TypeError", "a request's arguments must be a tuple, not " + std::string(positional.type_name()));
    }
    Object& keywords = request.at(3);
    if (keywords.type() != Object::Type::dict) {
        raise("TypeError", "a request's keyword arguments must be a dict, not " + std::string(keywords.type_name()));
    }
    for (const Object& keyword : keywords) keyword.as_str();
    std::vector<Object> args = take_elements(positional);
    if (!accepted_ || ident.is_none()) return control(method, std::move(args), std::move(keywords));
    call_method(ident.as_str(), std::move(method), std::move(args), std::move(keywords));
}

void Session::control(const std::string& method, std::vector<Object> args, Object kwargs) {
    Registry& registry = core_->registry;
    Call call{.method = method, .args = std::move(args), .kwargs = std::move(kwargs), .context = *this};
    const auto known = [](bool found, const Object& ident) {
        if (!found) throw PythonException("builtins", "KeyError", {ident});
    };
    Object result;
    if (method == "create") {
        result = create(std::move(call.args), std::move(call.kwargs));
    } else if (method == "incref") {
        const Object& ident = *call.bind({"ident"}, 1)[0];
        known(registry.incref(ident.as_str(), owner()), ident);
    } else if (method == "decref") {
        decref(call.bind({"ident"}, 1)[0]->as_str());
    } else if (method == "lend" && accepted_) {
        const Object& ident = *call.bind({"ident"}, 1)[0];
        known(registry.lend(ident.as_str(), owner()), ident);
    } else if (method == "accept_connection") {
        call.bind({"name"}, 1);
        accepted_ = true;
        // Python's clients don't look at it; ours know from it that this connection takes control calls, too.
        result = Object::dict({{"multihull", 1}});
    } else if (method == "mailbox" && accepted_) {
        result = open_mailbox(*call.bind({"family"}, 1)[0]);
    } else if (method == "get_methods") {
        const Object& token = *call.bind({"token"}, 1)[0];
        const auto kept = registry.find(ident_of(token));
        known(kept != nullptr, token);
        result = names(kept->type->exposed);
    } else if (method == "debug_info") {
        call.bind({}, 0);
        result = registry.debug_info();
    } else if (method == "number_of_objects") {
        call.bind({}, 0);
        result = registry.size();
    } else if (method == "shutdown") {
        call.bind({}, 0);
        answer(message("#RETURN", {}));
        core_->stop();
        return;
    } else if (method == "dummy") {
        call.bind({}, 0);
    } else {
        raise("ValueError", "this server has no function '" + method + "'");
    }
    answer(message("#RETURN", std::move(result)));
}

void Session::decref(const std::string& ident) {
    const auto kept = core_->registry.find(ident);
    switch (core_->registry.decref(ident, owner())) {
        case Registry::Dropped::unknown:
            // Where a proxy lies in a referent, Python's server too takes no notice.
            if (kept == nullptr) throw PythonException("builtins", "KeyError", {Object(ident)});
            break;
        case Registry::Dropped::owners_last:
            kept->referent->let_go(caller_.process);
            break;
        case Registry::Dropped::some_left:
            break;
    }
}

Object Session::create(std::vector<Object> args, Object kwargs) {
    if (args.empty()) raise("TypeError", "create() missing the name of a type");
    const Object name = std::move(args.front());
    args.erase(args.begin());
    const ManagerType* const type = core_->types.find(name.as_str());
    if (type == nullptr) throw PythonException("builtins", "KeyError", {name});
    if (!type->create) raise("ValueError", "a '" + type->name + "' can't be made: it is what methods answer");
    struct Creating {
        explicit Creating(bool& now) : flag(now) { flag = true; }
        ~Creating() { flag = false; }
        bool& flag;
    } const creating(creating_);
    Call call{.method = type->name, .args = std::move(args), .kwargs = std::move(kwargs), .context = *this};
    auto referent = type->create(call);
    if (type->permanent) core_->registry.add_root(referent);
    const auto kept = core_->registry.add(*type, std::move(referent), owner());
    return Object::tuple(std::vector<Object>{kept->ident, names(type->exposed)});
}

// Only those of our own family see our memory.
Object Session::open_mailbox(const Object& family) {
    if (!shm::Region::exists()) return nullptr;
    const FamilyId own = FamilyId::own();
    if (!std::ranges::equal(family.as_bytes(), std::as_bytes(std::span(own.id)))) return nullptr;
    const auto outlet = outlet_.lock();
    const auto mailbox = outlet ? outlet->open_mailbox() : std::nullopt;
    if (!mailbox) return nullptr;
    return Object::tuple(std::vector<Object>{Object::bytes(mailbox->mailboxes), Object(mailbox->place)});
}

std::shared_ptr<const Kept> Session::find(const std::string& ident) {
    const std::uint64_t removals = core_->registry.removals();
    if (last_ == nullptr || last_removals_ != removals || last_->ident != ident) {
        last_ = core_->registry.find(ident);
        last_removals_ = removals;
    }
    return last_;
}

void Session::call_method(const std::string& ident, std::string method, std::vector<Object> args, Object kwargs) {
    const auto kept = find(ident);
    if (kept == nullptr) throw PythonException("builtins", "KeyError", {Object(ident)});
    Referent& referent = *kept->referent;
    if (std::ranges::find(kept->type->exposed, method) == kept->type->exposed.end()) {
        if (method == "__repr__" || method == "__str__") return answer(message("#RETURN", Object(referent.repr())));
        if (method == "#GETVALUE") return answer(answer_message(*core_, referent.value()));
        raise("AttributeError", "a '" + kept->type->name + "' of this server has no method '" + method + "'");
    }
    if (kept->type->slow) return call_slowly(kept, std::move(method), std::move(args), std::move(kwargs));
    Call call{.method = method, .args = std::move(args), .kwargs = std::move(kwargs), .context = *this};
    try {
        Reply reply = referent.call(call);
        if (auto* const value = std::get_if<Object>(&reply)) {
            answer(answer_message(*core_, std::move(*value)));
        } else if (auto* const proxy = std::get_if<NewProxy>(&reply)) {
            answer(answer_message(*core_, std::move(*proxy)));
        }
    } catch (...) {
        if (parked_ && !parked_->claim()) return;
        answer(answer_message(*core_, std::current_exception()));
    }
}

void Session::call_slowly(std::shared_ptr<const Kept> kept, std::string method, std::vector<Object> args,
                          Object kwargs) {
    parked_ = std::make_shared<SessionCall>(core_, outlet_.lock());
    core_->run_slow([kept = std::move(kept), method = std::move(method), args = std::move(args),
                     kwargs = std::move(kwargs), session = shared_from_this(), parked = parked_]() mutable {
        SlowContext context(session, parked);
        Call call{.method = method, .args = std::move(args), .kwargs = std::move(kwargs), .context = context};
        Answer answer;
        try {
            Reply reply = kept->referent->call(call);
            if (std::holds_alternative<Parked>(reply)) return;
            if (auto* const proxy = std::get_if<NewProxy>(&reply)) {
                answer = std::move(*proxy);
            } else {
                answer = std::move(std::get<Object>(reply));
            }
        } catch (...) {
            answer = std::current_exception();
        }
        if (parked->claim()) parked->answer(std::move(answer));
    });
}

}    // namespace multihull::detail
