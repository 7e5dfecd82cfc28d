// What a manager's server keeps: referents, and the types that they are made from.
//
// A referent is called by any of the server's threads, by several at once, and locks itself. Nobody may wait inside a call, as that
// would hold up the other clients of the same thread: a call that can't be answered yet is parked, and answered later from any thread.
//
// Invariants
// (1) A parked call is answered once: by whoever claims it. Its time-out and the end of its client claim it too.
// (2) Calls and ends of one caller are told to a referent in their order.
// (3) A referent is told that a caller has ended only if it asked for that in one of the caller's calls.
#pragma once

#include <multihull/error.hpp>
#include <multihull/object.hpp>

#include <atomic>
#include <cstdint>
#include <exception>
#include <functional>
#include <initializer_list>
#include <map>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

namespace multihull::detail {

/// An exception as a Python client raises it: `PythonException("builtins", "KeyError", {key})`.
class PythonException : public Error {
public:
    PythonException(std::string module, std::string name, std::vector<Object> args);
    /// With a sentence as its one argument.
    PythonException(std::string name, std::string sentence);

    const std::string& module() const noexcept { return raised_->module; }
    const std::string& name() const noexcept { return raised_->name; }
    const std::vector<Object>& args() const noexcept { return raised_->args; }

private:
    struct Raised {
        std::string module;
        std::string name;
        std::vector<Object> args;
    };
    std::shared_ptr<const Raised> raised_;    // copying an exception must not throw
};

/// What a client raises for a C++ exception: Python's of the same meaning, with its text (KeyError for our KeyError, _queue.Empty
/// for QueueEmpty, ValueError for std::invalid_argument, OSError for std::system_error, ...); a RemoteError that came from Python as
/// what it was; anything else as RuntimeError.
PythonException python_exception(const std::exception_ptr& error);

class Referent;

/// A function that `apply` calls on an element, by its name: the new value for the old one (None where there was none).
using UpdateFunction = std::function<Object(Object old, std::span<const Object> args)>;

/// Who calls: a client's thread, as a server sees it, which is by its connection.
struct Caller {
    std::uint64_t connection = 0;
    std::uint64_t process = 0;    ///< The same for all connections of a process, where the server can tell.

    friend bool operator==(const Caller&, const Caller&) = default;
};

/// Answer with a proxy to a new referent, whose type clients know by this name.
struct NewProxy {
    std::string type;
    std::shared_ptr<Referent> referent;
};

/// What comes of a call that is answered: a value, a proxy or an exception.
using Answer = std::variant<Object, NewProxy, std::exception_ptr>;

/// A call that waits for its answer. Thread-safe.
class ParkedCall {
public:
    virtual ~ParkedCall() = default;

    /// Takes the right and the duty to answer: true for one caller only.
    bool claim() noexcept { return !claimed_.exchange(true, std::memory_order_acq_rel); }
    /// Sends the answer; behind a claim() that said true. Never waits.
    virtual void answer(Answer answer) noexcept = 0;

private:
    std::atomic<bool> claimed_{false};
};

/// What a call may ask of the server. Only valid during the call.
class CallContext {
public:
    virtual const Caller& caller() const noexcept = 0;
    /// Lets the call wait: the referent answers it later, from any thread. When `deadline` (monotonic ns; os::kNever: none) has passed,
    /// `expired` is called on a thread of the server, which then claims and answers, or finds it claimed.
    virtual std::shared_ptr<ParkedCall> park(std::int64_t deadline, std::function<void()> expired) = 0;
    /// Has the referent told when the caller ends (Referent::caller_ended).
    virtual void tell_end_to(const std::shared_ptr<Referent>& referent) = 0;
    /// The referent that a proxy among the arguments stands for; null where it is no proxy of this server.
    virtual std::shared_ptr<Referent> referent_of(const Object& object) const = 0;
    /// Of the server's types: what was registered under a name; null where nothing was.
    virtual const UpdateFunction* find_function(std::string_view name) const = 0;

protected:
    ~CallContext() = default;
};

/// One call of a method. The arguments may be moved from.
struct Call {
    std::string_view method;
    std::vector<Object> args;
    Object kwargs;    ///< A dict, or None for none.
    CallContext& context;

    /// The arguments by the names of the method's parameters, null where one is not given. Throws TypeError, as Python words it, for one
    /// too many, one given twice, an unknown one, or fewer than `required`.
    std::vector<Object*> bind(std::initializer_list<std::string_view> parameters, std::size_t required);
};

/// The call is parked.
struct Parked {};

/// What comes of a call at once.
using Reply = std::variant<Object, NewProxy, Parked>;

/// Something that lives in a server and is reached through proxies.
class Referent : public std::enable_shared_from_this<Referent> {
public:
    Referent() = default;
    Referent(const Referent&) = delete;
    Referent& operator=(const Referent&) = delete;
    virtual ~Referent() = default;

    /// Calls a method that its type exposes. What it throws is raised by the client (python_exception()).
    virtual Reply call(Call& call) = 0;
    /// As Python's repr() shows it; `str(proxy)` asks for it.
    virtual std::string repr() = 0;
    /// A copy of its value, for copy.deepcopy(proxy) and for calls that take its proxy as an argument. Throws where it has none.
    virtual Object value() = 0;
    /// A caller has ended: its connection is closed. Where `process_ended` is false, other threads of that process go on.
    virtual void caller_ended(const Caller& caller, bool process_ended);
    /// A process has given up its last reference by itself, alive: what it took out of the referent it means to keep.
    virtual void let_go(std::uint64_t process);
    /// Calls the visitor with each value that it holds, so that proxies inside are found.
    virtual void visit(const std::function<void(const Object&)>& visitor);
};

/// What `create` makes referents from.
struct ManagerType {
    std::string name;
    std::vector<std::string> exposed;    ///< The methods that clients may call.
    /// Makes one; `call.method` is the type's name. Empty: clients can't make any, they only get them from other referents' methods.
    std::function<std::shared_ptr<Referent>(Call& call)> create;
    /// Whether methods may wait or take long: they are then called on threads of their own.
    bool slow = false;
    /// Whether `create` answers the same referent always, which lives as long as the server.
    bool permanent = false;
};

/// The types and functions that a server knows. Changed before the server starts.
class ManagerTypes {
public:
    /// None.
    ManagerTypes() = default;
    /// Those of Python's SyncManager, and set.
    static ManagerTypes sync_manager();

    /// Takes the place of one of the same name.
    void add(ManagerType type);
    void add_function(std::string name, UpdateFunction function);
    /// Null where there is none.
    const ManagerType* find(std::string_view name) const;
    const UpdateFunction* find_function(std::string_view name) const;

private:
    std::map<std::string, ManagerType, std::less<>> types_;
    std::map<std::string, UpdateFunction, std::less<>> functions_;
};

}    // namespace multihull::detail
