#include "manager/python_exceptions.hpp"
#include "manager/pickle.hpp"

#include <multihull/connection.hpp>
#include <multihull/detail/manager_type.hpp>

#include "support/python.hpp"

#include <gtest/gtest.h>

#include <new>
#include <stdexcept>
#include <system_error>
#include <typeindex>
#include <variant>

namespace {

using multihull::Object;
using multihull::detail::exception_from_python;
using multihull::detail::python_exception;
using multihull::detail::PythonException;

Object instance(const PythonException& exception) {
    return Object::instance({.module = exception.module(),
                             .name = exception.name(),
                             .args = Object::tuple(exception.args())});
}

template <class E>
Object to_python(E error) {
    return instance(python_exception(std::make_exception_ptr(std::move(error))));
}

struct Caught {
    std::string type;
    std::string text;
};

Caught caught(const std::exception_ptr& error) {
    try {
        std::rethrow_exception(error);
    } catch (const multihull::RemoteError& remote) {
        return {"RemoteError " + remote.type_name(), remote.text()};
    } catch (const std::exception& exception) {
        return {typeid(exception).name(), exception.what()};
    }
}

template <class E>
std::string name() {
    return typeid(E).name();
}

TEST(PythonExceptions, ComeAsOurs) {
    const std::string bytes = test::python(R"(
import multiprocessing, pickle, queue, sys, threading
def raised(call):
    try: call()
    except Exception as error: return error
    raise AssertionError('nothing was raised')
errors = [
    raised(lambda: {}['k']), raised(lambda: [][1]), raised(lambda: 1 + 'a'), raised(lambda: int('x')), raised(lambda: (1).x),
    EOFError(), queue.Empty(), raised(lambda: queue.Queue().get_nowait()), queue.Full(), threading.BrokenBarrierError(),
    TimeoutError('late'), multiprocessing.TimeoutError('late too'), multiprocessing.AuthenticationError('digest'),
    multiprocessing.BufferTooShort(b'abc'), pickle.UnpicklingError('bad'), pickle.PicklingError('bad too'),
    raised(lambda: 2.0 ** 5000), MemoryError(), raised(lambda: open('/no/such/file')), OSError('no number'),
    StopIteration(7), AssertionError('it is so'), NotImplementedError(), RuntimeError('a', 2), raised(lambda: 1 // 0),
    UnicodeDecodeError('utf-8', b'\xff', 0, 1, 'invalid start byte'),
]
sys.stdout.buffer.write(pickle.dumps(errors))
)");
    const Object errors =
        multihull::detail::unpickle(std::as_bytes(std::span(bytes)), multihull::detail::PickleGlobals::of_client());
    using namespace multihull;
    const std::vector<Caught> expected{
        {name<KeyError>(), "there is no key 'k'"},
        {name<IndexError>(), "list index out of range"},
        {name<TypeError>(), "unsupported operand type(s) for +: 'int' and 'str'"},
        {name<ValueError>(), "invalid literal for int() with base 10: 'x'"},
        {name<AttributeError>(), "'int' object has no attribute 'x'"},
        {name<EndOfFile>(), "EOFError"},
        {name<QueueEmpty>(), "Empty"},
        {name<QueueEmpty>(), "Empty"},
        {name<QueueFull>(), "Full"},
        {name<BrokenBarrier>(), "BrokenBarrierError"},
        {name<WaitTimeout>(), "late"},
        {name<WaitTimeout>(), "late too"},
        {name<AuthenticationError>(), "digest"},
        {name<BufferTooShort>(), "a message did not fit where it was received: this error's message() holds it"},
        {name<UnpicklingError>(), "bad"},
        {name<PicklingError>(), "bad too"},
        {name<std::overflow_error>(), "(34, 'Numerical result out of range')"},
        {name<std::bad_alloc>(), std::bad_alloc().what()},
        {name<std::system_error>(), "No such file or directory: No such file or directory"},
        {"RemoteError OSError", "no number"},
        {"RemoteError StopIteration", "7"},
        {"RemoteError AssertionError", "it is so"},
        {"RemoteError NotImplementedError", ""},
        {"RemoteError RuntimeError", "('a', 2)"},
        {"RemoteError ZeroDivisionError", "integer division or modulo by zero"},
        {"RemoteError UnicodeDecodeError", "('utf-8', b'\\xff', 0, 1, 'invalid start byte')"},
    };
    ASSERT_EQ(errors.size(), expected.size());
    for (std::size_t i = 0; i < expected.size(); ++i) {
        const Caught got = caught(exception_from_python(errors.at(i)));
        EXPECT_EQ(got.type, expected[i].type) << errors.at(i);
        EXPECT_EQ(got.text, expected[i].text) << errors.at(i);
    }
    EXPECT_EQ(caught(exception_from_python(
                         Object::instance({.module = "app.core", .name = "Oops", .args = Object::tuple({"no"})})))
                  .type,
              "RemoteError app.core.Oops");
    EXPECT_EQ(caught(exception_from_python("a str")).type, "RemoteError Exception");
    try {
        std::rethrow_exception(exception_from_python(errors.at(13)));
    } catch (const BufferTooShort& error) {
        EXPECT_EQ(error.message().size(), 3U);
    }
    try {
        std::rethrow_exception(exception_from_python(errors.at(18)));
    } catch (const std::system_error& error) {
        EXPECT_EQ(error.code(), std::errc::no_such_file_or_directory);
    }
}

TEST(PythonExceptions, OursComeAsPythons) {
    using namespace multihull;
    std::string input;
    const auto add = [&](const Object& error) {
        for (const char byte : detail::pickle(error)) {
            input += "0123456789abcdef"[static_cast<unsigned char>(byte) >> 4];
            input += "0123456789abcdef"[static_cast<unsigned char>(byte) & 15U];
        }
        input += '\n';
    };
    add(to_python(KeyError("a sentence")));
    add(to_python(IndexError("a sentence")));
    add(to_python(std::out_of_range("a sentence")));
    add(to_python(TypeError("a sentence")));
    add(to_python(std::bad_variant_access()));
    add(to_python(std::bad_cast()));
    add(to_python(ValueError("a sentence")));
    add(to_python(std::invalid_argument("a sentence")));
    add(to_python(QueueClosed("a sentence")));
    add(to_python(AttributeError("a sentence")));
    add(to_python(EndOfFile("a sentence")));
    add(to_python(QueueEmpty("a sentence")));
    add(to_python(QueueFull("a sentence")));
    add(to_python(BrokenBarrier("a sentence")));
    add(to_python(WaitTimeout("a sentence")));
    add(to_python(AuthenticationError("a sentence")));
    add(to_python(UnpicklingError("a sentence")));
    add(to_python(std::bad_alloc()));
    add(to_python(std::system_error(ENOENT, std::generic_category(), "a file")));
    add(to_python(BufferTooShort("a sentence", {std::byte{'x'}})));
    add(to_python(RemoteError("ZeroDivisionError", "division by zero", Stack())));
    add(to_python(RemoteError("my::Failure", "it failed", Stack())));
    add(to_python(std::runtime_error("a sentence")));
    add(to_python(42));
    EXPECT_EQ(
        test::python(R"(
import pickle, sys
for line in sys.stdin:
    error = pickle.loads(bytes.fromhex(line))
    print(type(error).__module__, type(error).__name__, error.args if type(error).__name__ == 'FileNotFoundError' else len(error.args))
)",
                     input),
        "builtins KeyError 1\nbuiltins IndexError 1\nbuiltins IndexError 1\nbuiltins TypeError 1\n"
        "builtins RuntimeError 1\nbuiltins TypeError 1\nbuiltins ValueError 1\nbuiltins ValueError 1\nbuiltins "
        "ValueError 1\n"
        "builtins AttributeError 1\nbuiltins EOFError 1\n_queue Empty 0\nqueue Full 0\nthreading BrokenBarrierError 0\n"
        "builtins TimeoutError 1\nmultiprocessing.context AuthenticationError 1\n_pickle UnpicklingError 1\n"
        "builtins MemoryError 1\nbuiltins FileNotFoundError (2, 'a file: No such file or directory')\n"
        "multiprocessing.context BufferTooShort 1\nbuiltins ZeroDivisionError 1\nbuiltins RuntimeError 1\n"
        "builtins RuntimeError 1\nbuiltins RuntimeError 1\n");
}

}    // namespace
