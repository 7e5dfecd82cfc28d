// Proxies: handles of objects that live in a manager's server, and the errors that their calls throw.
//
// A proxy may be copied, used by any thread, and sent to other processes: as an argument, in a Queue, as a result, or as a value inside
// another proxy's object. Its object lives as long as a proxy of it does anywhere, or a message that holds one. Each call goes to the
// server and is whole there; two calls in a row are two, and others may come between them.
//
// Every call throws ManagerGone when the server can't be reached any more, ObjectGone when the object exists no more; what the object's
// method threw is thrown here: KeyError, IndexError, TypeError, ValueError, AttributeError, QueueEmpty, QueueFull, BrokenBarrier and
// EndOfFile as these, anything else as RemoteError.
#pragma once

#include <multihull/codec.hpp>
#include <multihull/error.hpp>
#include <multihull/manager_gone.hpp>
#include <multihull/object.hpp>
#include <multihull/object_conversion.hpp>

#include <chrono>
#include <concepts>
#include <cstddef>
#include <iosfwd>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace multihull {

namespace detail {

class ProxyReference;
using ProxyRef = std::shared_ptr<ProxyReference>;

template <class... Args>
Object arguments(Args&&... args) {
    std::vector<Object> list;
    list.reserve(sizeof...(args));
    (list.push_back(to_object(std::forward<Args>(args))), ...);
    return Object::tuple(std::move(list));
}

/// What is no Object yet, and to_object() makes one of.
template <class T>
concept ToConvert = !std::convertible_to<const T&, Object>;

/// Seconds, as Python takes its time-outs.
inline double seconds(std::chrono::nanoseconds time) { return std::chrono::duration<double>(time).count(); }

/// The reference that an Object stands for which came out of a manager's object; of one of Python's proxy classes, where named.
ProxyRef reference_from(const Object& object, std::string_view proxy_class);

}    // namespace detail

/// What all proxies have. By itself: a proxy of an object of any type.
class BaseProxy {
public:
    /// For an Object that describes a proxy: a value that was found inside another proxy's object. Throws TypeError when it describes
    /// none, Error when this process knows no key for its server: connect a BaseManager to it first.
    explicit BaseProxy(const Object& object) : BaseProxy(detail::reference_from(object, {})) {}
    explicit BaseProxy(detail::ProxyRef reference) : reference_(std::move(reference)) {}

    /// Calls a method of the object: `counter.call("add", 5)`. Throws TypeError when it answers with a proxy: see call_proxy().
    template <class... Args>
    Object call(std::string_view method, Args&&... args) const {
        return call_with(method, detail::arguments(std::forward<Args>(args)...));
    }
    /// The same with a tuple of arguments and a dict of those that are given by name.
    Object call_with(std::string_view method, Object args, Object kwargs = Object::dict()) const;
    /// Calls a method that answers with a proxy of a new object.
    template <class Proxy = BaseProxy, class... Args>
    Proxy call_proxy(std::string_view method, Args&&... args) const {
        return Proxy(new_proxy(method, detail::arguments(std::forward<Args>(args)...)));
    }

    /// A copy of the object's value, where it is one of plain data.
    Object getvalue() const { return call("#GETVALUE"); }
    /// As Python's repr() of the object, as the server has it.
    std::string repr() const { return call("__repr__").as_str(); }
    friend std::ostream& operator<<(std::ostream& out, const BaseProxy& proxy);

    /// What the object was created as: `dict`, `list`, a name given to register_type().
    const std::string& type_id() const;
    /// Where its server listens.
    const std::string& address() const;
    /// The names of the methods that can be called.
    const std::vector<std::string>& exposed() const;

    /// Whether both are of the same object.
    friend bool operator==(const BaseProxy& left, const BaseProxy& right);

    /// As a value inside an object of the same server, which then keeps this one's object. Python finds a proxy there.
    operator Object() const;

protected:
    detail::ProxyRef new_proxy(std::string_view method, Object args) const;
    /// A method of our own servers, which Python's lack.
    template <class... Args>
    Object call_ours(std::string_view method, Args&&... args) const {
        require_ours(method);
        return call(method, std::forward<Args>(args)...);
    }

private:
    template <class P>
    friend struct Codec;
    void require_ours(std::string_view method) const;
    void encode(detail::Writer& writer) const;
    static detail::ProxyRef decode(detail::Reader& reader);

    detail::ProxyRef reference_;
};

/// A handle travels; its object lives until the receiver has his own.
template <std::derived_from<BaseProxy> Proxy>
struct Codec<Proxy> {
    static void encode(detail::Writer& writer, const Proxy& proxy) { proxy.BaseProxy::encode(writer); }
    static Proxy decode(detail::Reader& reader) { return Proxy(BaseProxy::decode(reader)); }
};

/// A value inside a proxy's object, read and written when it is used: what `dict[key]` is.
template <class Access>
class ProxyElement {
public:
    ProxyElement(Access access, Object key) : access_(std::move(access)), key_(std::move(key)) {}
    ProxyElement(const ProxyElement&) = default;

    template <class T>
        requires(!std::same_as<std::remove_cvref_t<T>, ProxyElement>)
    const ProxyElement& operator=(T&& value) const {
        access_.set(key_, to_object(std::forward<T>(value)));
        return *this;
    }
    /// `a[i] = b[j]`: the value, as for references.
    const ProxyElement& operator=(const ProxyElement& other) const {
        access_.set(key_, other.get());
        return *this;
    }
    ~ProxyElement() = default;

    Object get() const { return access_.get(key_); }
    operator Object() const { return get(); }
    template <class T>
    T as() const {
        return from_object<T>(get());
    }
    friend std::ostream& operator<<(std::ostream& out, const ProxyElement& element) { return out << element.get(); }
    friend bool operator==(const ProxyElement& element, const Object& value) { return element.get() == value; }

private:
    Access access_;
    Object key_;
};

/// An object of a type that has no proxy class of its own, as one of register_type(): `counter.call("add", 5)`.
class AutoProxy : public BaseProxy {
public:
    using BaseProxy::BaseProxy;
};

}    // namespace multihull
