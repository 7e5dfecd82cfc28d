// Proxies of queues in a manager's server: between processes of any family and any language, on any machine that reaches the server.
//
// What they have in common with other proxies, and what their calls throw: see proxy.hpp.
#pragma once

#include <multihull/proxy.hpp>

#include <chrono>
#include <cstddef>
#include <optional>
#include <utility>

namespace multihull {

/// A first-in, first-out queue.
class QueueProxy : public BaseProxy {
public:
    explicit QueueProxy(const Object& object) : QueueProxy(detail::reference_from(object, "AutoProxy")) {}
    explicit QueueProxy(detail::ProxyRef reference) : BaseProxy(std::move(reference)) {}

    /// Puts a value, waiting for room where there is a limit.
    void put(const Object& value) const { call("put", value); }
    template <detail::ToConvert T>
    void put(const T& value) const {
        put(to_object(value));
    }
    /// The same, but throws QueueFull when there is no room for that long.
    void put(const Object& value, std::chrono::nanoseconds timeout) const {
        call("put", value, true, detail::seconds(timeout));
    }
    /// The same, at once.
    void put_nowait(const Object& value) const { call("put_nowait", value); }
    /// Puts the value if there is room now, or within that time; false otherwise.
    bool try_put(const Object& value) const;
    bool try_put_for(const Object& value, std::chrono::nanoseconds timeout) const;

    /// Takes the oldest value, waiting for one.
    Object get() const { return call("get"); }
    /// The same, but throws QueueEmpty when there is none for that long.
    Object get(std::chrono::nanoseconds timeout) const { return call("get", true, detail::seconds(timeout)); }
    /// The same, at once.
    Object get_nowait() const { return call("get_nowait"); }
    /// Takes the oldest value if there is one now, or within that time; empty otherwise.
    std::optional<Object> try_get() const;
    std::optional<Object> try_get_for(std::chrono::nanoseconds timeout) const;

    std::size_t qsize() const { return call("qsize").as<std::size_t>(); }
    bool empty() const { return call("empty").as_bool(); }
    bool full() const { return call("full").as_bool(); }

    /// Says that one value that was taken is dealt with. Throws ValueError when that was said of all.
    void task_done() const { call("task_done"); }
    /// Waits until every value that was put has been taken and dealt with.
    void join() const { call("join"); }
};

/// Python's name for a queue whose takers say when they are done: in a manager every queue's can.
class JoinableQueueProxy : public QueueProxy {
public:
    using QueueProxy::QueueProxy;
};

}    // namespace multihull
