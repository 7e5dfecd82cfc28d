// Proxies whose values have one C++ type each: what `manager.dict<std::string, double>()` is. In the server, and to Python, they are
// objects like others, of Python's types. Reading throws TypeError where somebody else put a value of another type.
#pragma once

#include <multihull/container_proxy.hpp>
#include <multihull/queue_proxy.hpp>

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <iterator>
#include <optional>
#include <ostream>
#include <string_view>
#include <utility>
#include <vector>

namespace multihull {

/// A typed value inside a proxy's object, read and written when it is used.
template <class T, class Access>
class TypedProxyElement {
public:
    TypedProxyElement(Access access, Object key) : access_(std::move(access)), key_(std::move(key)) {}
    TypedProxyElement(const TypedProxyElement&) = default;
    ~TypedProxyElement() = default;

    const TypedProxyElement& operator=(const T& value) const {
        access_.set(key_, to_object(value));
        return *this;
    }
    const TypedProxyElement& operator=(const TypedProxyElement& other) const { return *this = other.get(); }
    T get() const { return from_object<T>(access_.get(key_)); }
    operator T() const { return get(); }
    friend std::ostream& operator<<(std::ostream& out, const TypedProxyElement& element) {
        return out << Object(element.access_.get(element.key_));
    }

private:
    Access access_;
    Object key_;
};

/// A dict of keys and values of these types.
template <class Key, class Value>
class TypedDictProxy : public DictProxy {
public:
    using DictProxy::DictProxy;
    using Element = TypedProxyElement<Value, detail::ItemAccess>;
    using Iterator = detail::CopyIterator<std::pair<Key, Value>>;

    /// `dict[key] = value`, and `dict[key]` as a Value; reading throws KeyError when there is none.
    Element operator[](const Key& key) const { return Element({*this}, to_object(key)); }
    Value at(const Key& key) const { return from_object<Value>(DictProxy::at(to_object(key))); }
    std::optional<Value> get(const Key& key) const {
        return from_object<std::optional<Value>>(DictProxy::get(to_object(key)));
    }
    Value get(const Key& key, const Value& otherwise) const {
        return from_object<Value>(DictProxy::get(to_object(key), to_object(otherwise)));
    }
    void set(const Key& key, const Value& value) const { DictProxy::set(to_object(key), to_object(value)); }
    bool contains(const Key& key) const { return DictProxy::contains(to_object(key)); }
    void erase(const Key& key) const { DictProxy::erase(to_object(key)); }
    Value pop(const Key& key) const { return from_object<Value>(DictProxy::pop(to_object(key))); }
    Value setdefault(const Key& key, const Value& value) const {
        return from_object<Value>(DictProxy::setdefault(to_object(key), to_object(value)));
    }
    std::vector<Key> keys() const { return from_object<std::vector<Key>>(call("keys")); }
    std::vector<Value> values() const { return from_object<std::vector<Value>>(call("values")); }
    std::vector<std::pair<Key, Value>> items() const {
        return from_object<std::vector<std::pair<Key, Value>>>(call("items"));
    }
    /// In one step: see DictProxy.
    Value add(const Key& key, const Value& amount = Value(1)) const {
        return from_object<Value>(DictProxy::add(to_object(key), to_object(amount)));
    }
    bool compare_exchange(const Key& key, const std::optional<Value>& expected, const Value& desired) const {
        return DictProxy::compare_exchange(to_object(key), to_object(expected), to_object(desired));
    }
    template <class... Args>
    Value update(const Key& key, std::string_view function, Args&&... args) const {
        return from_object<Value>(DictProxy::update(to_object(key), function, std::forward<Args>(args)...));
    }

    /// Goes over a copy of the keys with their values.
    Iterator begin() const { return Iterator(items()); }
    std::default_sentinel_t end() const noexcept { return {}; }
};

/// A list of elements of that type.
template <class T>
class TypedListProxy : public ListProxy {
public:
    using ListProxy::ListProxy;
    using Element = TypedProxyElement<T, detail::ItemAccess>;
    using Iterator = detail::CopyIterator<T>;

    Element operator[](std::int64_t index) const { return Element({*this}, index); }
    T at(std::int64_t index) const { return from_object<T>(ListProxy::at(index)); }
    void set(std::int64_t index, const T& value) const { ListProxy::set(index, to_object(value)); }
    void append(const T& value) const { ListProxy::append(to_object(value)); }
    void push_back(const T& value) const { append(value); }
    void insert(std::int64_t index, const T& value) const { ListProxy::insert(index, to_object(value)); }
    T pop(std::int64_t index = -1) const { return from_object<T>(ListProxy::pop(index)); }
    std::vector<T> copy() const { return from_object<std::vector<T>>(ListProxy::copy()); }

    Iterator begin() const { return Iterator(copy()); }
    std::default_sentinel_t end() const noexcept { return {}; }
};

/// A queue of values of that type.
template <class T>
class TypedQueueProxy : public QueueProxy {
public:
    using QueueProxy::QueueProxy;
    using value_type = T;

    void put(const T& value) const { QueueProxy::put(to_object(value)); }
    void put(const T& value, std::chrono::nanoseconds timeout) const { QueueProxy::put(to_object(value), timeout); }
    bool try_put(const T& value) const { return QueueProxy::try_put(to_object(value)); }
    bool try_put_for(const T& value, std::chrono::nanoseconds timeout) const {
        return QueueProxy::try_put_for(to_object(value), timeout);
    }
    T get() const { return from_object<T>(QueueProxy::get()); }
    T get(std::chrono::nanoseconds timeout) const { return from_object<T>(QueueProxy::get(timeout)); }
    std::optional<T> try_get() const { return converted(QueueProxy::try_get()); }
    std::optional<T> try_get_for(std::chrono::nanoseconds timeout) const {
        return converted(QueueProxy::try_get_for(timeout));
    }

private:
    static std::optional<T> converted(const std::optional<Object>& value) {
        if (!value) return std::nullopt;
        return from_object<T>(*value);
    }
};

/// One value of that type.
template <class T>
class TypedValueProxy : public ValueProxy {
public:
    using ValueProxy::ValueProxy;

    T get() const { return from_object<T>(ValueProxy::get()); }
    void set(const T& value) const { ValueProxy::set(to_object(value)); }
    /// In one step: see DictProxy.
    T add(const T& amount = T(1)) const { return from_object<T>(ValueProxy::add(to_object(amount))); }
    bool compare_exchange(const T& expected, const T& desired) const {
        return ValueProxy::compare_exchange(to_object(expected), to_object(desired));
    }
};

}    // namespace multihull
