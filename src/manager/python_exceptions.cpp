#include "manager/python_exceptions.hpp"
#include "manager/pickle.hpp"

#include <multihull/connection.hpp>
#include <multihull/detail/manager_type.hpp>

#include <algorithm>
#include <array>
#include <new>
#include <stdexcept>
#include <system_error>
#include <typeinfo>

namespace multihull::detail {

namespace {

constexpr std::string_view kBuiltins = "builtins";

// Types of exceptions that mean the same. Where several are of one name, or one is derived from another, the first one counts.
struct Pair {
    std::string_view module;
    std::string_view name;
    bool (*is_ours)(const std::exception&);                 // null where Python's comes here and ours goes elsewhere
    std::exception_ptr (*make)(const std::string& text);    // null for the other way
};

template <class E>
bool is(const std::exception& error) {
    return dynamic_cast<const E*>(&error) != nullptr;
}
template <class E>
std::exception_ptr make(const std::string& text) {
    return std::make_exception_ptr(E(text));
}
std::exception_ptr make_key_error(const std::string& text) {
    return std::make_exception_ptr(KeyError("there is no key " + text));
}
std::exception_ptr make_bad_alloc(const std::string&) { return std::make_exception_ptr(std::bad_alloc()); }

constexpr Pair kPairs[] = {
    {kBuiltins, "KeyError", is<KeyError>, make_key_error},
    {kBuiltins, "IndexError", is<IndexError>, make<IndexError>},
    {kBuiltins, "TypeError", is<TypeError>, make<TypeError>},
    {kBuiltins, "ValueError", is<ValueError>, make<ValueError>},
    {kBuiltins, "AttributeError", is<AttributeError>, make<AttributeError>},
    {kBuiltins, "EOFError", is<EndOfFile>, make<EndOfFile>},
    {"_queue", "Empty", is<QueueEmpty>, make<QueueEmpty>},
    {"queue", "Empty", nullptr, make<QueueEmpty>},
    {"queue", "Full", is<QueueFull>, make<QueueFull>},
    {"queue", "ShutDown", nullptr, make<QueueClosed>},    // which Python before 3.13 does not know
    {kBuiltins, "ValueError", is<QueueClosed>, nullptr},
    {"threading", "BrokenBarrierError", is<BrokenBarrier>, make<BrokenBarrier>},
    {kBuiltins, "TimeoutError", is<WaitTimeout>, make<WaitTimeout>},
    {"multiprocessing.context", "TimeoutError", nullptr, make<WaitTimeout>},
    {"multiprocessing.context", "AuthenticationError", is<AuthenticationError>, make<AuthenticationError>},
    {"_pickle", "UnpicklingError", is<UnpicklingError>, make<UnpicklingError>},
    {"_pickle", "PicklingError", is<PicklingError>, make<PicklingError>},
    {kBuiltins, "MemoryError", is<std::bad_alloc>, make_bad_alloc},
    {kBuiltins, "OverflowError", is<std::overflow_error>, make<std::overflow_error>},
    {kBuiltins, "IndexError", is<std::out_of_range>, nullptr},
    {kBuiltins, "ValueError", is<std::invalid_argument>, nullptr},
    {kBuiltins, "ValueError", is<std::domain_error>, nullptr},
    {kBuiltins, "ValueError", is<std::length_error>, nullptr},
    {kBuiltins, "TypeError", is<std::bad_cast>, nullptr},
};

// Python's own names of errors that carry what the system said.
bool is_os_error(std::string_view name) {
    static constexpr std::string_view kNames[] = {"OSError",
                                                  "BlockingIOError",
                                                  "ChildProcessError",
                                                  "ConnectionError",
                                                  "BrokenPipeError",
                                                  "ConnectionAbortedError",
                                                  "ConnectionRefusedError",
                                                  "ConnectionResetError",
                                                  "FileExistsError",
                                                  "FileNotFoundError",
                                                  "InterruptedError",
                                                  "IsADirectoryError",
                                                  "NotADirectoryError",
                                                  "PermissionError",
                                                  "ProcessLookupError"};
    return std::ranges::find(kNames, name) != std::end(kNames);
}

// A RemoteError that came from Python goes back as what it was.
PythonException from_remote(const RemoteError& error) {
    const std::string_view type = error.type_name();
    const std::size_t dot = type.rfind('.');
    const std::string_view module = dot == type.npos ? kBuiltins : type.substr(0, dot);
    const std::string_view name = dot == type.npos ? type : type.substr(dot + 1);
    const bool is_exception = name.ends_with("Error") || name.ends_with("Exception") || name.ends_with("Iteration") ||
                              name.ends_with("Exit") || name.ends_with("Warning") || name.ends_with("Interrupt");
    if (is_exception && PickleGlobals::of_server().allows(module, name)) {
        return {std::string(module), std::string(name), {Object(error.text())}};
    }
    return {"RuntimeError", error.what()};
}

PythonException to_python(const std::exception& error) {
    if (const auto* const raised = dynamic_cast<const PythonException*>(&error)) return *raised;
    if (const auto* const remote = dynamic_cast<const RemoteError*>(&error)) return from_remote(*remote);
    if (const auto* const too_short = dynamic_cast<const BufferTooShort*>(&error)) {
        return {"multiprocessing.context", "BufferTooShort", {Object::bytes(too_short->message())}};
    }
    if (const auto* const system = dynamic_cast<const std::system_error*>(&error)) {
        // Python makes FileNotFoundError and the like of the number.
        return {std::string(kBuiltins), "OSError", {system->code().value(), system->what()}};
    }
    for (const Pair& pair : kPairs) {
        if (pair.is_ours == nullptr || !pair.is_ours(error)) continue;
        // Python's queues and barriers say nothing.
        if (pair.module != kBuiltins && !pair.module.ends_with("context") && !pair.module.ends_with("pickle")) {
            return {std::string(pair.module), std::string(pair.name), {}};
        }
        return {std::string(pair.module), std::string(pair.name), {Object(error.what())}};
    }
    return {"RuntimeError", error.what()};
}

std::exception_ptr remote(const std::string& type, const std::string& text) {
    return std::make_exception_ptr(RemoteError(type, text, Stack()));
}

}    // namespace

PythonException python_exception(const std::exception_ptr& error) {
    try {
        std::rethrow_exception(error);
    } catch (const std::exception& exception) {
        return to_python(exception);
    } catch (...) {
        return {"RuntimeError", "a C++ exception that is no std::exception"};
    }
}

std::string exception_text(const Object::Instance& error) {
    if (error.args.is_none() || error.args.empty()) return {};
    const auto args = error.args.elements();
    if (args.size() > 1) {
        const bool is_system = is_os_error(error.name) && args[0].type() == Object::Type::integer;
        return is_system ? "[Errno " + args[0].repr() + "] " + args[1].to_string() : error.args.repr();
    }
    return error.name == "KeyError" ? args[0].repr() : args[0].to_string();
}

std::exception_ptr exception_from_python(const Object& error) {
    if (error.type() != Object::Type::instance || error.as_instance().args.is_none()) {
        return remote("Exception", error.to_string());
    }
    const Object::Instance& instance = error.as_instance();
    const auto args = instance.args.elements();
    const std::string text = exception_text(instance);
    if (instance.module == kBuiltins && is_os_error(instance.name) && args.size() > 1 &&
        args[0].type() == Object::Type::integer && std::in_range<int>(args[0].as_int())) {
        return std::make_exception_ptr(std::system_error(static_cast<int>(args[0].as_int()), std::generic_category(),
                                                         args[1].to_string()));
    }
    if (instance.name == "BufferTooShort" && args.size() == 1 && args[0].type() == Object::Type::bytes) {
        const auto bytes = args[0].as_bytes();
        return std::make_exception_ptr(
            BufferTooShort("a message did not fit where it was received: this error's message() holds it",
                           std::vector<std::byte>(bytes.begin(), bytes.end())));
    }
    for (const Pair& pair : kPairs) {
        const bool same = pair.name == instance.name &&
                          (pair.module == instance.module || (pair.module == "_pickle" && instance.module == "pickle"));
        if (pair.make != nullptr && same) return pair.make(text.empty() ? instance.name : text);
    }
    return remote(instance.module == kBuiltins ? instance.name : instance.module + "." + instance.name, text);
}

}    // namespace multihull::detail
