#include <multihull/proxy.hpp>

#include "manager/python_address.hpp"
#include "manager/python_array.hpp"
#include "manager/reference.hpp"

#include <multihull/container_proxy.hpp>
#include <multihull/queue_proxy.hpp>
#include <multihull/sync_proxy.hpp>

#include <algorithm>
#include <array>
#include <ostream>

namespace multihull {

namespace detail {

namespace {

constexpr std::string_view kManagers = "multiprocessing.managers";

// Which class of Python's a proxy of each type has; AutoProxy for all others.
constexpr std::array<std::pair<std::string_view, std::string_view>, 12> kProxyClasses{{
    {"dict", "DictProxy"},
    {"list", "ListProxy"},
    {"Namespace", "NamespaceProxy"},
    {"Value", "ValueProxy"},
    {"Array", "ArrayProxy"},
    {"Iterator", "IteratorProxy"},
    {"Event", "EventProxy"},
    {"Lock", "AcquirerProxy"},
    {"RLock", "AcquirerProxy"},
    {"Semaphore", "AcquirerProxy"},
    {"BoundedSemaphore", "AcquirerProxy"},
    {"Condition", "ConditionProxy"},
}};

std::string_view proxy_class_of(const std::string& type_id) {
    if (type_id == "Barrier") return "BarrierProxy";
    const auto* const found =
        std::ranges::find(kProxyClasses, type_id, &std::pair<std::string_view, std::string_view>::first);
    return found == kProxyClasses.end() ? "AutoProxy" : found->second;
}

Object python_class(std::string_view name) {
    return Object::instance({.module = std::string(kManagers), .name = std::string(name), .args = Object()});
}

struct Token {
    std::string type_id;
    std::string address;
    std::string ident;

    static Token from(const Object& object) {
        if (!object.is_a(kManagers, "Token"))
            throw TypeError("what should name a manager's object is " + object.repr());
        const Object& state = object.as_instance().state;
        return {state.at(0).as_str(), address_from_python(state.at(1)), state.at(2).as_str()};
    }
    Object to_object() const {
        return Object::instance({.module = std::string(kManagers),
                                 .name = "Token",
                                 .state = Object::tuple({Object(type_id), address_to_python(address), Object(ident)}),
                                 .by_new = true});
    }
};

std::vector<std::string> names_in(const Object& object) {
    std::vector<std::string> names;
    for (const Object& name : elements_of(object)) names.push_back(name.as_str());
    return names;
}

}    // namespace

ProxyRef reference_from(const Object& object, std::string_view proxy_class) {
    if (!object.is_a(kManagers, "RebuildProxy")) {
        throw TypeError("a proxy can be made of a proxy that was found in a manager's object, not of " +
                        std::string(object.type_name()));
    }
    const Object& args = object.as_instance().args;
    const std::string& name = args.at(0).as_instance().name;
    if (!proxy_class.empty() && name != proxy_class && name != "AutoProxy") {
        throw TypeError("this is a " + name + ", not a " + std::string(proxy_class));
    }
    const Token token = Token::from(args.at(1));
    const auto key = ManagerClient::known_key(token.address);
    if (!key) {
        throw Error("no key is known here for the manager at " + token.address +
                    ": connect() a BaseManager to it, and keep it, before its proxies are used");
    }
    ProxyTarget target{token.type_id, token.ident, {}};
    const Object& settings = args.at(3);
    if (settings.contains("exposed")) target.exposed = names_in(settings.at("exposed"));
    return ProxyReference::acquire(ManagerClient::of(token.address, *key), std::move(target));
}

std::vector<Object> elements_of(const Object& object) {
    switch (object.type()) {
        case Object::Type::list:
        case Object::Type::tuple:
        case Object::Type::set: {
            const auto elements = object.elements();
            return {elements.begin(), elements.end()};
        }
        case Object::Type::instance:
            // An iterator over a list, and an array of a typecode and its numbers.
            if (object.is_a("builtins", "iter")) return elements_of(object.as_instance().args.at(0));
            if (object.is_a("array", "array")) return array_elements(object);
            break;
        default:
            break;
    }
    throw TypeError("a list, tuple or set was expected, not " + std::string(object.type_name()));
}

void throw_wrong_size(std::size_t size, std::size_t wanted) {
    throw TypeError(std::to_string(size) + " elements came where " + std::to_string(wanted) + " were expected");
}

Object slice(const Object& start, const Object& stop, const Object& step) {
    return Object::instance({.module = "builtins", .name = "slice", .args = Object::tuple({start, stop, step})});
}

}    // namespace detail

// All proxies.

Object BaseProxy::call_with(std::string_view method, Object args, Object kwargs) const {
    const std::string& ident = reference_->target().ident;
    return detail::returned(reference_->client()->call(ident, method, std::move(args), std::move(kwargs)), ident);
}

detail::ProxyRef BaseProxy::new_proxy(std::string_view method, Object args) const {
    const auto client = reference_->client();
    detail::ManagerReply reply = client->call(reference_->target().ident, method, std::move(args), Object::dict());
    if (reply.kind != "#PROXY") {
        const Object value = detail::returned(std::move(reply), reference_->target().ident);
        throw TypeError("the method " + std::string(method) + " answers with a value of type " + value.type_name() +
                        ", not with a proxy: use call() to get it");
    }
    const auto token = detail::Token::from(reply.value.at(1));
    auto fresh =
        detail::ProxyReference::acquire(client, {token.type_id, token.ident, detail::names_in(reply.value.at(0))});
    client->give_back(token.ident);    // what the answer counted
    return fresh;
}

std::ostream& operator<<(std::ostream& out, const BaseProxy& proxy) { return out << proxy.repr(); }

const std::string& BaseProxy::type_id() const { return reference_->target().type_id; }
const std::string& BaseProxy::address() const { return reference_->address(); }
const std::vector<std::string>& BaseProxy::exposed() const { return reference_->target().exposed; }

bool operator==(const BaseProxy& left, const BaseProxy& right) {
    return left.reference_ == right.reference_ ||
           (left.address() == right.address() && left.reference_->target().ident == right.reference_->target().ident);
}

BaseProxy::operator Object() const {
    const detail::ProxyTarget& target = reference_->target();
    const std::string_view name = detail::proxy_class_of(target.type_id);
    Object settings = Object::dict();
    if (name == "AutoProxy") settings["exposed"] = Object::tuple(target.exposed);
    return Object::instance(
        {.module = std::string(detail::kManagers),
         .name = "RebuildProxy",
         .args = Object::tuple({detail::python_class(name),
                                detail::Token{target.type_id, reference_->address(), target.ident}.to_object(),
                                Object("pickle"), settings})});
}

void BaseProxy::require_ours(std::string_view method) const {
    if (!reference_->client()->is_multihull()) {
        throw Error("the server at " + address() + " is Python's, which has no " + std::string(method) +
                    "(): use a server of Multihull's for updates in one step");
    }
}

void BaseProxy::encode(detail::Writer& writer) const { reference_->encode(writer); }
detail::ProxyRef BaseProxy::decode(detail::Reader& reader) { return detail::ProxyReference::decode(reader); }

// Containers.

namespace {

// A value, or empty at the end of an iteration.
template <class Call>
std::optional<Object> until_stop(Call call) {
    try {
        return call();
    } catch (const RemoteError& error) {
        if (error.type_name() != "StopIteration") throw;
        return std::nullopt;
    }
}

std::pair<Object, Object> pair_from(const Object& object) { return {object.at(0), object.at(1)}; }

}    // namespace

std::optional<Object> IteratorProxy::next() const {
    return until_stop([&] { return call("__next__"); });
}

std::optional<Object> IteratorProxy::send(const Object& value) const {
    return until_stop([&] { return call("send", value); });
}

std::vector<std::pair<Object, Object>> DictProxy::items() const {
    std::vector<std::pair<Object, Object>> items;
    for (const Object& item : detail::elements_of(call("items"))) items.push_back(pair_from(item));
    return items;
}

std::pair<Object, Object> DictProxy::popitem() const { return pair_from(call("popitem")); }

void ListProxy::sort(bool reverse) const { call_with("sort", Object::tuple(), Object::dict({{"reverse", reverse}})); }

// The answer names the list itself: nothing of it is needed here.
const ListProxy& ListProxy::operator*=(std::int64_t times) const {
    call("__imul__", times);
    return *this;
}

bool NamespaceProxy::contains(std::string_view name) const {
    try {
        at(name);
        return true;
    } catch (const AttributeError&) {
        return false;
    }
}

// Waiting.

namespace {

// What Python calls an error of many kinds is one of use here.
template <class Call>
Object by_the_rules(Call call) {
    try {
        return call();
    } catch (const ValueError& error) {
        throw SyncError(error.what());
    } catch (const RemoteError& error) {
        if (error.type_name() == "RuntimeError" || error.type_name() == "AssertionError") throw SyncError(error.text());
        throw;
    }
}

}    // namespace

void detail::AcquirerProxy::release() const {
    by_the_rules([&] { return call("release"); });
}

bool ConditionProxy::wait_seconds(const Object& timeout) const {
    return by_the_rules([&] { return call("wait", timeout); }).as_bool();
}

void ConditionProxy::notify(std::size_t count) const {
    by_the_rules([&] { return call("notify", count); });
}

void ConditionProxy::notify_all() const {
    by_the_rules([&] { return call("notify_all"); });
}

bool QueueProxy::try_put(const Object& value) const {
    try {
        put_nowait(value);
        return true;
    } catch (const QueueFull&) {
        return false;
    }
}

bool QueueProxy::try_put_for(const Object& value, std::chrono::nanoseconds timeout) const {
    try {
        put(value, timeout);
        return true;
    } catch (const QueueFull&) {
        return false;
    }
}

std::optional<Object> QueueProxy::try_get() const {
    try {
        return get_nowait();
    } catch (const QueueEmpty&) {
        return std::nullopt;
    }
}

std::optional<Object> QueueProxy::try_get_for(std::chrono::nanoseconds timeout) const {
    try {
        return get(timeout);
    } catch (const QueueEmpty&) {
        return std::nullopt;
    }
}

}    // namespace multihull
