// Objects that live in a server process of their own, reached from any process, and from Python, through proxies.
//
// The server speaks CPython's own protocol: `multiprocessing.managers.SyncManager(address, authkey).connect()` reaches ours, and
// SyncManager::connect() reaches Python's. Who connects must know the key.
//
// A manager may be used by several threads. It belongs to the process that made it: a forked child's copy does nothing when it ends;
// its proxies may be sent anywhere. See docs/manager.md.
#pragma once

#include <multihull/container_proxy.hpp>
#include <multihull/detail/manager_method.hpp>
#include <multihull/process.hpp>
#include <multihull/proxy.hpp>
#include <multihull/queue_proxy.hpp>
#include <multihull/sync_proxy.hpp>
#include <multihull/typed_proxy.hpp>

#include <chrono>
#include <concepts>
#include <cstddef>
#include <initializer_list>
#include <memory>
#include <optional>
#include <ranges>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

namespace multihull {

namespace detail {
class ManagerServer;
}    // namespace detail

/// Settings of a manager.
struct ManagerOptions {
    /// Where its server listens: a path, `@name`, `host:port` (port 0: any); empty: a random abstract unix socket, which leaves nothing
    /// behind.
    std::string address{};
    /// What clients must know, kept out of logs and errors; empty: random, known to the processes that proxies are sent to.
    std::string authkey{};
    std::optional<StartMethod> start_method{};    ///< Of the server's process: the default one where empty.
    std::size_t threads = 0;                      ///< Of the server; 0: one for every two processors, at most 8.
    std::chrono::nanoseconds shutdown_timeout =
        std::chrono::seconds(1);    ///< For the server to end by itself, before it is killed.
};

/// A class for register_type(): its name, whether its methods may be called by several clients at once, and whether an instance may
/// keep a proxy that it was given (as an Object, beyond the call).
struct TypeOptions {
    std::string name;
    bool thread_safe = false;    ///< Otherwise calls of one instance follow one another.
    /// Whether what a proxy among the arguments stands for lives as long as the instance does. Where false, it may be gone once no client
    /// has it: for a class of mere functions, to which many are given.
    bool keeps_proxies = true;

    TypeOptions(const char* type_name) : name(type_name) {}
    TypeOptions(std::string type_name, bool is_thread_safe = false, bool may_keep_proxies = true)
        : name(std::move(type_name)), thread_safe(is_thread_safe), keeps_proxies(may_keep_proxies) {}
};

/// A manager's server in this process: what get_server() answers.
class Server {
public:
    Server(Server&&) noexcept;
    Server& operator=(Server&&) noexcept;
    ~Server();

    /// Where it listens, with the port that the system chose.
    const std::string& address() const;
    /// Serves until a client asks for a shutdown or stop() is called. Once only.
    void serve_forever();
    /// Ends serve_forever(); from any thread, or a signal handler.
    void stop() noexcept;

private:
    friend class BaseManager;
    explicit Server(std::unique_ptr<detail::ManagerServer> server);
    std::unique_ptr<detail::ManagerServer> server_;
};

/// A manager of the types that are registered with it, and of SyncManager's.
///
/// ```cpp
/// multihull::BaseManager manager({.address = "127.0.0.1:5000", .authkey = "secret"});
/// manager.register_type<Counter>("Counter", multihull::method<&Counter::add>("add"));
/// manager.get_server().serve_forever();
/// ```
class BaseManager {
public:
    explicit BaseManager(ManagerOptions options = {});
    BaseManager(const BaseManager&) = delete;
    BaseManager& operator=(const BaseManager&) = delete;
    /// Shuts down the server that start() started.
    ~BaseManager();

    /// Lets clients make instances of a class in the server, and call these methods of it: `method<&T::name>("name")`, and
    /// `constructor<Args...>()` where it is not the default one. Arguments and results are converted as object_conversion.hpp says; a
    /// method that answers a Future answers its value when it is there. Before start() or get_server().
    template <class T, class... Parts>
    void register_type(const TypeOptions& options, const Parts&... parts) {
        detail::RegisteredType type;
        type.name = options.name;
        type.thread_safe = options.thread_safe;
        type.keeps_proxies = options.keeps_proxies;
        if constexpr (std::default_initializable<T>) constructor<>().template add_to<T>(type);
        (parts.template add_to<T>(type), ...);
        if (type.constructor.make == nullptr) throw_no_constructor(type.name);
        add_type(std::move(type));
    }
    /// Lets clients update a value in one step by a function: `register_function<&increased>("increased")`, then
    /// `dict.update("n", "increased", 5)` puts `increased(old, 5)`. Before start() or get_server().
    template <auto kFunction>
    void register_function(std::string name) {
        add_function({std::move(name), &detail::UpdateCall<kFunction>::call});
    }
    /// Makes one object for all clients under a name: who creates a `name`, as C++ by create() and Python by its registered method, gets
    /// a proxy of that one. It is made by the first, as a `type` from these arguments, and lives as long as the server. Before start()
    /// or get_server().
    template <class... Args>
    void register_object(std::string name, std::string type, Args&&... args) {
        add_object({std::move(name), std::move(type), detail::arguments(std::forward<Args>(args)...)});
    }

    /// Starts a server in a process of its own, which dies with this one. Throws StartError when it can't be started, Error when the
    /// address can't be used.
    void start();
    /// Connects to a server that runs already, ours or Python's. Throws ManagerGone when none does, AuthenticationError.
    void connect();
    /// The server, to be run here.
    Server get_server();
    /// Ends the server and everything in it. Nothing to do where it has ended.
    void shutdown();
    /// Waits for the server's process to end, for at most `timeout`; false when it still runs.
    bool join(std::chrono::nanoseconds timeout = std::chrono::nanoseconds::max());

    /// Where the server listens.
    const std::string& address() const;
    /// The key that clients must know, for who has no proxy that brings it along.
    const std::string& authkey() const;

    /// Makes an object in the server: `manager.create("Counter", 5)`.
    template <class Proxy = AutoProxy, class... Args>
    Proxy create(std::string_view type, Args&&... args) {
        return Proxy(create_with(type, detail::arguments(std::forward<Args>(args)...), Object::dict()));
    }
    /// How many objects live in the server.
    std::size_t number_of_objects();
    /// A line or two for each of them: its name, how many hold it, its value.
    std::string debug_info();

protected:
    detail::ProxyRef create_with(std::string_view type, const Object& args, Object kwargs);

private:
    struct State;
    void add_type(detail::RegisteredType type);
    void add_function(detail::RegisteredFunction function);
    void add_object(detail::RegisteredObject object);
    [[noreturn]] static void throw_no_constructor(const std::string& name);
    State& unused_state(const char* what);

    std::unique_ptr<State> state_;
};

/// A manager of Python's SyncManager's types, and of those registered with it. Use start() or connect() first.
class SyncManager : public BaseManager {
public:
    using BaseManager::BaseManager;

    // NOLINTBEGIN(readability-identifier-naming): as Python has them
    DictProxy dict(const Object& items = Object::dict()) { return create<DictProxy>("dict", items); }
    DictProxy dict(std::initializer_list<std::pair<Object, Object>> items) { return dict(Object::dict(items)); }
    /// One whose keys and values have these types.
    template <class K, class V>
    TypedDictProxy<K, V> dict() {
        return create<TypedDictProxy<K, V>>("dict");
    }
    ListProxy list() { return create<ListProxy>("list"); }
    ListProxy list(std::initializer_list<Object> elements) { return list(std::vector<Object>(elements)); }
    template <std::ranges::input_range Range>
    ListProxy list(Range&& elements) {
        return create<ListProxy>("list", std::forward<Range>(elements));
    }
    /// One whose elements have that type.
    template <class T>
    TypedListProxy<T> list() {
        return create<TypedListProxy<T>>("list");
    }
    SetProxy set() { return create<SetProxy>("set"); }
    SetProxy set(std::initializer_list<Object> elements) { return set(std::vector<Object>(elements)); }
    template <std::ranges::input_range Range>
    SetProxy set(Range&& elements) {
        return create<SetProxy>("set", std::forward<Range>(elements));
    }
    /// With values by name: `manager.Namespace({{"x", 1}})`.
    NamespaceProxy Namespace(std::initializer_list<std::pair<Object, Object>> values = {}) {
        return NamespaceProxy(create_with("Namespace", Object::tuple(), Object::dict(values)));
    }
    /// A value; the typecode is array.array's, and only kept.
    ValueProxy Value(const Object& value) { return Value("d", value); }
    ValueProxy Value(std::string_view typecode, const Object& value) {
        return create<ValueProxy>("Value", typecode, value);
    }
    template <class T>
    TypedValueProxy<T> Value(const T& value) {
        return create<TypedValueProxy<T>>("Value", "d", value);
    }
    /// Numbers of the typecode's type: `manager.Array("i", numbers)`.
    template <std::ranges::input_range Range>
    ArrayProxy Array(std::string_view typecode, Range&& numbers) {
        return create<ArrayProxy>("Array", typecode, std::forward<Range>(numbers));
    }
    /// A queue of up to `maxsize` values; 0: as many as memory does.
    QueueProxy Queue(std::size_t maxsize = 0) { return create<QueueProxy>("Queue", maxsize); }
    template <class T>
    TypedQueueProxy<T> Queue(std::size_t maxsize = 0) {
        return create<TypedQueueProxy<T>>("Queue", maxsize);
    }
    JoinableQueueProxy JoinableQueue(std::size_t maxsize = 0) {
        return create<JoinableQueueProxy>("JoinableQueue", maxsize);
    }
    LockProxy Lock() { return create<LockProxy>("Lock"); }
    RLockProxy RLock() { return create<RLockProxy>("RLock"); }
    SemaphoreProxy Semaphore(std::size_t value = 1) { return create<SemaphoreProxy>("Semaphore", value); }
    BoundedSemaphoreProxy BoundedSemaphore(std::size_t value = 1) {
        return create<BoundedSemaphoreProxy>("BoundedSemaphore", value);
    }
    /// With a lock of its own, or one that others have too.
    ConditionProxy Condition() { return create<ConditionProxy>("Condition"); }
    ConditionProxy Condition(const LockProxy& lock) { return create<ConditionProxy>("Condition", lock); }
    ConditionProxy Condition(const RLockProxy& lock) { return create<ConditionProxy>("Condition", lock); }
    EventProxy Event() { return create<EventProxy>("Event"); }
    /// Throws ValueError for 0 parties.
    BarrierProxy Barrier(std::size_t parties) { return create<BarrierProxy>("Barrier", parties); }
    // NOLINTEND(readability-identifier-naming)
};

/// A SyncManager whose server runs already, until it ends.
class Manager : public SyncManager {
public:
    /// Starts the server, as start() does.
    explicit Manager(ManagerOptions options = {}) : SyncManager(std::move(options)) { start(); }
};

}    // namespace multihull
