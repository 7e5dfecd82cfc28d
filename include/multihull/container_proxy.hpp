// Proxies of containers in a manager's server: dict, list, set, Namespace, Value, Array, and what goes through them.
//
// What they have in common, and what their calls throw: see proxy.hpp. Iteration goes over a copy, taken when it begins.
#pragma once

#include <multihull/proxy.hpp>

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <iterator>
#include <limits>
#include <memory>
#include <optional>
#include <ranges>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace multihull {

namespace detail {

/// Goes through elements that were copied out of a server, and keeps them meanwhile.
template <class T>
class CopyIterator {
public:
    using value_type = T;
    using difference_type = std::ptrdiff_t;
    using iterator_category = std::input_iterator_tag;
    using pointer = const T*;
    using reference = const T&;

    CopyIterator() = default;
    explicit CopyIterator(std::vector<T> elements)
        : elements_(std::make_shared<const std::vector<T>>(std::move(elements))) {}

    const T& operator*() const { return (*elements_)[index_]; }
    const T* operator->() const { return &**this; }
    CopyIterator& operator++() {
        ++index_;
        return *this;
    }
    CopyIterator operator++(int) {
        const CopyIterator before = *this;
        ++index_;
        return before;
    }
    bool operator==(const CopyIterator& other) const { return left() == other.left(); }
    bool operator==(std::default_sentinel_t) const { return left() == 0; }

private:
    std::size_t left() const { return elements_ ? elements_->size() - index_ : 0; }

    std::shared_ptr<const std::vector<T>> elements_;
    std::size_t index_ = 0;
};

/// Python's `slice(start, stop, step)`.
Object slice(const Object& start, const Object& stop, const Object& step);

// How ProxyElement reaches an element.
struct ItemAccess {
    BaseProxy proxy;
    Object get(const Object& key) const { return proxy.call("__getitem__", key); }
    void set(const Object& key, Object value) const { proxy.call("__setitem__", key, std::move(value)); }
};
struct AttributeAccess {
    BaseProxy proxy;
    Object get(const Object& name) const { return proxy.call("__getattribute__", name); }
    void set(const Object& name, Object value) const { proxy.call("__setattr__", name, std::move(value)); }
};

}    // namespace detail

/// An iterator in a server: next() takes the next value from it.
class IteratorProxy : public BaseProxy {
public:
    explicit IteratorProxy(const Object& object) : IteratorProxy(detail::reference_from(object, "IteratorProxy")) {}
    explicit IteratorProxy(detail::ProxyRef reference) : BaseProxy(std::move(reference)) {}

    /// Empty when there are no more.
    std::optional<Object> next() const;
    /// As a generator's, where the server has one.
    std::optional<Object> send(const Object& value) const;
    void close() const { call("close"); }
};

/// A dict.
class DictProxy : public BaseProxy {
public:
    using Element = ProxyElement<detail::ItemAccess>;
    using Iterator = detail::CopyIterator<Object>;

    explicit DictProxy(const Object& object) : DictProxy(detail::reference_from(object, "DictProxy")) {}
    explicit DictProxy(detail::ProxyRef reference) : BaseProxy(std::move(reference)) {}

    /// `dict[key] = value`, and `dict[key]` as an Object; reading throws KeyError when there is none.
    Element operator[](Object key) const { return Element({*this}, std::move(key)); }
    Object at(const Object& key) const { return call("__getitem__", key); }
    /// The value, or another one where there is none.
    Object get(const Object& key, const Object& otherwise = {}) const { return call("get", key, otherwise); }
    void set(const Object& key, const Object& value) const { call("__setitem__", key, value); }
    bool contains(const Object& key) const { return call("__contains__", key).as_bool(); }
    /// Throws KeyError when there is none.
    void erase(const Object& key) const { call("__delitem__", key); }

    std::size_t size() const { return call("__len__").as<std::size_t>(); }
    bool empty() const { return size() == 0; }
    void clear() const { call("clear"); }
    /// A copy of it, here.
    Object copy() const { return call("copy"); }
    std::vector<Object> keys() const { return detail::elements_of(call("keys")); }
    std::vector<Object> values() const { return detail::elements_of(call("values")); }
    std::vector<std::pair<Object, Object>> items() const;
    /// Takes a value out. Throws KeyError when there is none; with `otherwise` answers that.
    Object pop(const Object& key) const { return call("pop", key); }
    Object pop(const Object& key, const Object& otherwise) const { return call("pop", key, otherwise); }
    /// Takes the newest key and its value out. Throws KeyError when there is none.
    std::pair<Object, Object> popitem() const;
    /// The value, which is put there first where there is none.
    Object setdefault(const Object& key, const Object& value = {}) const { return call("setdefault", key, value); }
    /// Puts all of another dict's values.
    void update(const Object& items) const { call("update", items); }
    /// Goes over the keys in the server.
    IteratorProxy iter() const { return IteratorProxy(new_proxy("__iter__", detail::arguments())); }

    /// Goes over a copy of the keys.
    Iterator begin() const { return Iterator(keys()); }
    std::default_sentinel_t end() const noexcept { return {}; }

    // In one step each, as no other client sees it half done. Only in servers of ours: Error with Python's.

    /// value = function(value, arguments...) by a function that the server knows by name (BaseManager::register_function()); None where
    /// there is none yet. Answers the new value.
    template <class... Args>
    Object update(const Object& key, std::string_view function, Args&&... args) const {
        return call_ours("apply", key, function, std::forward<Args>(args)...);
    }
    /// value += amount, from 0 where there is none yet. Answers the new value.
    Object add(const Object& key, const Object& amount = 1) const { return call_ours("add", key, amount, 0); }
    /// Puts the value if the old one equals `expected`; None stands for none.
    bool compare_exchange(const Object& key, const Object& expected, const Object& desired) const {
        return call_ours("compare_exchange", key, expected, desired).as_bool();
    }
};

/// A list. Places count from 0, negative ones from the end.
class ListProxy : public BaseProxy {
public:
    using Element = ProxyElement<detail::ItemAccess>;
    using Iterator = detail::CopyIterator<Object>;

    explicit ListProxy(const Object& object) : ListProxy(detail::reference_from(object, "ListProxy")) {}
    explicit ListProxy(detail::ProxyRef reference) : BaseProxy(std::move(reference)) {}

    /// `list[i] = value`, and `list[i]` as an Object. Throws IndexError when it is used and there is none.
    Element operator[](std::int64_t index) const { return Element({*this}, index); }
    Object at(std::int64_t index) const { return call("__getitem__", index); }
    void set(std::int64_t index, const Object& value) const { call("__setitem__", index, value); }
    void erase(std::int64_t index) const { call("__delitem__", index); }
    /// Python's `list[start:stop:step]`; None for what is left out.
    Object slice(const Object& start, const Object& stop, const Object& step = {}) const {
        return call("__getitem__", detail::slice(start, stop, step));
    }
    void set_slice(const Object& start, const Object& stop, const Object& elements) const {
        call("__setitem__", detail::slice(start, stop, {}), elements);
    }
    void erase_slice(const Object& start, const Object& stop) const {
        call("__delitem__", detail::slice(start, stop, {}));
    }

    std::size_t size() const { return call("__len__").as<std::size_t>(); }
    bool empty() const { return size() == 0; }
    void clear() const { erase_slice({}, {}); }
    /// A copy of it, here.
    Object copy() const { return slice({}, {}); }
    bool contains(const Object& value) const { return call("__contains__", value).as_bool(); }
    std::size_t count(const Object& value) const { return call("count", value).as<std::size_t>(); }
    /// The first place of the value from `start` to before `stop`. Throws ValueError when there is none.
    std::size_t index(const Object& value, std::int64_t start = 0,
                      std::int64_t stop = std::numeric_limits<std::int64_t>::max()) const {
        return call("index", value, start, stop).as<std::size_t>();
    }

    void append(const Object& value) const { call("append", value); }
    template <detail::ToConvert T>
    void append(const T& value) const {
        append(to_object(value));
    }
    void push_back(const Object& value) const { append(value); }
    template <std::ranges::input_range Range>
    void extend(Range&& elements) const {
        call("extend", std::forward<Range>(elements));
    }
    void extend(const Object& elements) const { call("extend", elements); }
    void insert(std::int64_t index, const Object& value) const { call("insert", index, value); }
    /// Takes an element out, the last one by default. Throws IndexError when there is none.
    Object pop(std::int64_t index = -1) const { return call("pop", index); }
    /// Takes the first equal element out. Throws ValueError when there is none.
    void remove(const Object& value) const { call("remove", value); }
    void reverse() const { call("reverse"); }
    /// Throws TypeError when the elements can't be ordered.
    void sort(bool reverse = false) const;
    /// A copy of it in the other order.
    std::vector<Object> reversed() const { return detail::elements_of(slice({}, {}, -1)); }

    Object operator+(const Object& other) const { return call("__add__", other); }
    Object operator*(std::int64_t times) const { return call("__mul__", times); }
    const ListProxy& operator+=(const Object& elements) const {
        extend(elements);
        return *this;
    }
    const ListProxy& operator*=(std::int64_t times) const;

    Iterator begin() const { return Iterator(detail::elements_of(copy())); }
    std::default_sentinel_t end() const noexcept { return {}; }

    // In one step each: see DictProxy.

    template <class... Args>
    Object update(std::int64_t index, std::string_view function, Args&&... args) const {
        return call_ours("apply", index, function, std::forward<Args>(args)...);
    }
    Object add(std::int64_t index, const Object& amount = 1) const { return call_ours("add", index, amount); }
    bool compare_exchange(std::int64_t index, const Object& expected, const Object& desired) const {
        return call_ours("compare_exchange", index, expected, desired).as_bool();
    }
};

/// A set. Python before 3.14 has no proxy class of its own for it: to older clients it is an AutoProxy.
class SetProxy : public BaseProxy {
public:
    using Iterator = detail::CopyIterator<Object>;

    explicit SetProxy(const Object& object) : SetProxy(detail::reference_from(object, "SetProxy")) {}
    explicit SetProxy(detail::ProxyRef reference) : BaseProxy(std::move(reference)) {}

    void add(const Object& element) const { call("add", element); }
    /// Takes an element out. Throws KeyError when it is not there; discard() does not.
    void remove(const Object& element) const { call("remove", element); }
    void discard(const Object& element) const { call("discard", element); }
    /// Takes some element out. Throws KeyError when there is none.
    Object pop() const { return call("pop"); }
    bool contains(const Object& element) const { return call("__contains__", element).as_bool(); }
    std::size_t size() const { return call("__len__").as<std::size_t>(); }
    bool empty() const { return size() == 0; }
    void clear() const { call("clear"); }
    /// A copy of it, here.
    Object copy() const { return call("copy"); }

    Object union_with(const Object& other) const { return call("union", other); }
    Object intersection(const Object& other) const { return call("intersection", other); }
    Object difference(const Object& other) const { return call("difference", other); }
    Object symmetric_difference(const Object& other) const { return call("symmetric_difference", other); }
    bool isdisjoint(const Object& other) const { return call("isdisjoint", other).as_bool(); }
    bool issubset(const Object& other) const { return call("issubset", other).as_bool(); }
    bool issuperset(const Object& other) const { return call("issuperset", other).as_bool(); }
    void update(const Object& other) const { call("update", other); }
    void intersection_update(const Object& other) const { call("intersection_update", other); }
    void difference_update(const Object& other) const { call("difference_update", other); }
    void symmetric_difference_update(const Object& other) const { call("symmetric_difference_update", other); }

    Iterator begin() const { return Iterator(detail::elements_of(copy())); }
    std::default_sentinel_t end() const noexcept { return {}; }
};

/// Values by name: `ns["greeting"]` is Python's `ns.greeting`.
class NamespaceProxy : public BaseProxy {
public:
    using Element = ProxyElement<detail::AttributeAccess>;

    explicit NamespaceProxy(const Object& object) : NamespaceProxy(detail::reference_from(object, "NamespaceProxy")) {}
    explicit NamespaceProxy(detail::ProxyRef reference) : BaseProxy(std::move(reference)) {}

    /// Reading throws AttributeError when there is none of that name.
    Element operator[](std::string_view name) const { return Element({*this}, name); }
    Object at(std::string_view name) const { return call("__getattribute__", name); }
    void set(std::string_view name, const Object& value) const { call("__setattr__", name, value); }
    void erase(std::string_view name) const { call("__delattr__", name); }
    bool contains(std::string_view name) const;
};

/// One value.
class ValueProxy : public BaseProxy {
public:
    explicit ValueProxy(const Object& object) : ValueProxy(detail::reference_from(object, "ValueProxy")) {}
    explicit ValueProxy(detail::ProxyRef reference) : BaseProxy(std::move(reference)) {}

    Object get() const { return call("get"); }
    void set(const Object& value) const { call("set", value); }
    template <detail::ToConvert T>
    void set(const T& value) const {
        set(to_object(value));
    }
    template <class T>
    T as() const {
        return from_object<T>(get());
    }

    // In one step each: see DictProxy.

    template <class... Args>
    Object update(std::string_view function, Args&&... args) const {
        return call_ours("apply", function, std::forward<Args>(args)...);
    }
    Object add(const Object& amount = 1) const { return call_ours("add", amount); }
    bool compare_exchange(const Object& expected, const Object& desired) const {
        return call_ours("compare_exchange", expected, desired).as_bool();
    }
};

/// Numbers of one type and of a fixed count, as Python's array.array.
class ArrayProxy : public BaseProxy {
public:
    using Element = ProxyElement<detail::ItemAccess>;
    using Iterator = detail::CopyIterator<Object>;

    explicit ArrayProxy(const Object& object) : ArrayProxy(detail::reference_from(object, "ArrayProxy")) {}
    explicit ArrayProxy(detail::ProxyRef reference) : BaseProxy(std::move(reference)) {}

    Element operator[](std::int64_t index) const { return Element({*this}, index); }
    Object at(std::int64_t index) const { return call("__getitem__", index); }
    void set(std::int64_t index, const Object& value) const { call("__setitem__", index, value); }
    std::size_t size() const { return call("__len__").as<std::size_t>(); }
    bool empty() const { return size() == 0; }
    /// A copy of the numbers, here.
    std::vector<Object> values() const { return detail::elements_of(call("__getitem__", detail::slice({}, {}, {}))); }

    Iterator begin() const { return Iterator(values()); }
    std::default_sentinel_t end() const noexcept { return {}; }
};

}    // namespace multihull
