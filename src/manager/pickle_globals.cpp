// Which globals a pickle may name.
#include "manager/pickle.hpp"

#include <algorithm>
#include <array>

namespace multihull::detail {

namespace {

using namespace std::string_view_literals;

constexpr std::array kBuiltins{
    // Data.
    "slice"sv, "complex"sv, "range"sv, "iter"sv, "reversed"sv, "object"sv,
    // The exceptions of Python 3.14.
    "ArithmeticError"sv, "AssertionError"sv, "AttributeError"sv, "BaseException"sv, "BaseExceptionGroup"sv,
    "BlockingIOError"sv, "BrokenPipeError"sv, "BufferError"sv, "BytesWarning"sv, "ChildProcessError"sv,
    "ConnectionAbortedError"sv, "ConnectionError"sv, "ConnectionRefusedError"sv, "ConnectionResetError"sv,
    "DeprecationWarning"sv, "EOFError"sv, "EncodingWarning"sv, "Exception"sv, "ExceptionGroup"sv, "FileExistsError"sv,
    "FileNotFoundError"sv, "FloatingPointError"sv, "FutureWarning"sv, "GeneratorExit"sv, "ImportError"sv,
    "ImportWarning"sv, "IndentationError"sv, "IndexError"sv, "InterruptedError"sv, "IsADirectoryError"sv, "KeyError"sv,
    "KeyboardInterrupt"sv, "LookupError"sv, "MemoryError"sv, "ModuleNotFoundError"sv, "NameError"sv,
    "NotADirectoryError"sv, "NotImplementedError"sv, "OSError"sv, "OverflowError"sv, "PendingDeprecationWarning"sv,
    "PermissionError"sv, "ProcessLookupError"sv, "PythonFinalizationError"sv, "RecursionError"sv, "ReferenceError"sv,
    "ResourceWarning"sv, "RuntimeError"sv, "RuntimeWarning"sv, "StopAsyncIteration"sv, "StopIteration"sv,
    "SyntaxError"sv, "SyntaxWarning"sv, "SystemError"sv, "SystemExit"sv, "TabError"sv, "TimeoutError"sv, "TypeError"sv,
    "UnboundLocalError"sv, "UnicodeDecodeError"sv, "UnicodeEncodeError"sv, "UnicodeError"sv, "UnicodeTranslateError"sv,
    "UnicodeWarning"sv, "UserWarning"sv, "ValueError"sv, "Warning"sv, "ZeroDivisionError"sv};
constexpr std::array kArrays{"array"sv, "_array_reconstructor"sv};
constexpr std::array kManagers{"Token"sv,         "RebuildProxy"sv,   "Namespace"sv,     "Value"sv,
                               "AutoProxy"sv,     "BaseProxy"sv,      "BaseListProxy"sv, "_BaseListProxy"sv,
                               "ListProxy"sv,     "_BaseDictProxy"sv, "DictProxy"sv,     "_BaseSetProxy"sv,
                               "SetProxy"sv,      "NamespaceProxy"sv, "AcquirerProxy"sv, "ConditionProxy"sv,
                               "EventProxy"sv,    "BarrierProxy"sv,   "ValueProxy"sv,    "ArrayProxy"sv,
                               "IteratorProxy"sv, "BasePoolProxy"sv,  "PoolProxy"sv};
constexpr std::array kQueue{"Empty"sv, "Full"sv, "ShutDown"sv};
constexpr std::array kThreading{"BrokenBarrierError"sv};
constexpr std::array kContext{"ProcessError"sv, "BufferTooShort"sv, "TimeoutError"sv, "AuthenticationError"sv};
constexpr std::array kPickle{"PickleError"sv, "PicklingError"sv, "UnpicklingError"sv};
// Opens what it names, and so comes from servers only.
constexpr std::array kSharedMemory{"SharedMemory"sv, "ShareableList"sv};

constexpr std::array<PickleGlobals::Module, 10> kClient{{{"builtins", kBuiltins},
                                                         {"array", kArrays},
                                                         {"multiprocessing.managers", kManagers},
                                                         {"_queue", kQueue},
                                                         {"queue", kQueue},
                                                         {"threading", kThreading},
                                                         {"multiprocessing.context", kContext},
                                                         {"_pickle", kPickle},
                                                         {"pickle", kPickle},
                                                         {"multiprocessing.shared_memory", kSharedMemory}}};
constexpr std::span kServer = std::span(kClient).first(kClient.size() - 1);

}    // namespace

const PickleGlobals& PickleGlobals::none() noexcept {
    static constexpr PickleGlobals kNone{std::span<const Module>()};
    return kNone;
}

const PickleGlobals& PickleGlobals::of_server() noexcept {
    static constexpr PickleGlobals kGlobals{kServer};
    return kGlobals;
}

const PickleGlobals& PickleGlobals::of_client() noexcept {
    static constexpr PickleGlobals kGlobals{kClient};
    return kGlobals;
}

const PickleGlobals& PickleGlobals::any() noexcept {
    static constexpr PickleGlobals kAny;
    return kAny;
}

bool PickleGlobals::allows(std::string_view module, std::string_view name) const noexcept {
    if (any_) return true;
    return std::ranges::any_of(modules_, [&](const Module& candidate) {
        return candidate.name == module && std::ranges::find(candidate.globals, name) != candidate.globals.end();
    });
}

}    // namespace multihull::detail
