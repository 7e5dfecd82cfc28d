#include "manager/pickle.hpp"

#include "support/python.hpp"

#include <gtest/gtest.h>

#include <array>
#include <cstdint>
#include <sstream>
#include <string>
#include <string_view>
#include <vector>

namespace {

using multihull::Object;
using multihull::PicklingError;
using multihull::UnpicklingError;
using multihull::detail::pickle;
using multihull::detail::PickleGlobals;
using multihull::detail::PickleLimits;
using namespace std::string_literals;

std::string hex(std::string_view bytes) {
    std::string text;
    for (const char byte : bytes) {
        text += "0123456789abcdef"[static_cast<unsigned char>(byte) >> 4];
        text += "0123456789abcdef"[static_cast<unsigned char>(byte) & 15U];
    }
    return text;
}

std::string unhex(std::string_view text) {
    std::string bytes;
    for (std::size_t i = 0; i + 1 < text.size(); i += 2) {
        bytes += static_cast<char>(std::stoi(std::string(text.substr(i, 2)), nullptr, 16));
    }
    return bytes;
}

Object unpickle(std::string_view bytes, const PickleGlobals& allowed = PickleGlobals::of_client(),
                const PickleLimits& limits = {}) {
    return multihull::detail::unpickle(std::as_bytes(std::span(bytes)), allowed, limits);
}

// The last ones are not printed as Python prints them: their parts are looked at by tests of their own.
constexpr const char* kValues = R"(
import array, pickle, queue, threading, sys
from multiprocessing import context, managers
shared = [1, 'shared']
token = managers.Token('dict', ('localhost', 5000), '7f00')
values = [
    None, True, False, 0, 1, -1, 255, 256, 65535, 65536, -129, 2**31 - 1, -2**31, 2**31, -2**31 - 1, 2**63 - 1, -2**63, 2**55,
    0.0, -0.0, 1.5, -2.25e-300, float('inf'), -float('inf'), float('nan'), 1e16, 0.1,
    '', 'a', 'a' * 255, 'a' * 256, 'a' * 70000, 'h\u00e9llo', '\u20ac', '\U0001f600', 'x\n\t\0"\'', '\ud800', 'z' * 20 + '\u00e9',
    b'', b'a', b'\x00\xff', b'q' * 255, b'q' * 256, b'q' * 70000,
    [], [1], [1, 2, 3], list(range(2500)), [[[[]]]], (), (1,), (1, 2), (1, 2, 3), (1, 2, 3, 4), ((), ((),)),
    {}, {1: 2}, {'a': [1, {'b': None}], (1, 'x'): 2.5}, {i: str(i) for i in range(2500)},
    set(), {1}, {'a'}, [shared, shared], {'x': shared, 'y': shared}, ['same'] * 3000,
    (None, 'dummy', (), {}), ('0x7f', 'put', (1, 'two'), {'timeout': 1.5}),
    slice(1, 2, None), bytearray(b''), bytearray(b'ab\xff'), range(0, 10, 3), [bytearray(b'x')] * 2,
    KeyError('k'), IndexError('list index out of range'), ValueError(), StopIteration(), StopIteration(5), EOFError(),
    TypeError('a', 1), queue.Empty(), queue.Full(), threading.BrokenBarrierError(), context.TimeoutError('t'),
    context.BufferTooShort(b'x'), pickle.UnpicklingError('u'),
]
described = [
    complex(1.0, -2.0), frozenset([3, 1, 2]), {frozenset([1]): 2}, array.array('i', [1, -2, 3]), array.array('d', [0.5]),
    token, managers.Namespace(a=1, b='x'), managers.Value('i', 3), managers.DictProxy, OSError(2, 'text', 'file'),
]
)";

// Lines of fields in hexadecimal digits.
std::vector<std::vector<std::string>> parse(const std::string& output) {
    std::vector<std::vector<std::string>> lines;
    std::istringstream in(output);
    for (std::string line; std::getline(in, line);) {
        std::istringstream fields(line);
        lines.emplace_back();
        for (std::string field; fields >> field;) lines.back().push_back(unhex(field.substr(1)));
    }
    return lines;
}

TEST(Pickle, WhatPythonWritesIsReadInEveryProtocol) {
    const auto lines = parse(test::python(std::string(kValues) + R"(
for value in values:
    print('x' + repr(value).encode().hex(), *('x' + pickle.dumps(value, protocol).hex() for protocol in (2, 3, 4, 5)))
)"));
    ASSERT_GT(lines.size(), 80U);
    for (const auto& line : lines) {
        ASSERT_EQ(line.size(), 5U);
        for (std::size_t protocol = 2; protocol <= 5; ++protocol) {
            SCOPED_TRACE(line[0].substr(0, 100) + " in protocol " + std::to_string(protocol));
            const Object value = unpickle(line[protocol - 1]);
            EXPECT_TRUE(value.repr() == line[0]) << value.repr().substr(0, 200);
            // And ours says the same.
            EXPECT_TRUE(unpickle(pickle(value)).repr() == line[0]);
        }
    }
}

TEST(Pickle, WhatWeWritePythonReads) {
    const auto lines = parse(test::python(std::string(kValues) + R"(
for value in values + described:
    print('x' + pickle.dumps(value).hex())
)"));
    std::string input;
    for (const auto& line : lines) input += hex(pickle(unpickle(line[0]))) + "\n";
    EXPECT_EQ(test::python(std::string(kValues) + R"(
count = 0
for value, line in zip(values + described, sys.stdin, strict=True):
    data = bytes.fromhex(line)
    assert data[:2] == b'\x80\x04', data
    again = pickle.loads(data)
    assert type(again) is type(value) and repr(again) == repr(value), (value, again)
    count += 1
print(count > 90)
)",
                           input),
              "True\n");
}

TEST(Pickle, DescribesInstancesOfOtherClasses) {
    const auto lines = parse(test::python(std::string(kValues) + R"(
for protocol in 2, 3, 4, 5:
    print(*('x' + pickle.dumps(value, protocol).hex() for value in described))
)"));
    ASSERT_EQ(lines.size(), 4U);
    for (const auto& line : lines) {
        ASSERT_EQ(line.size(), 10U);
        EXPECT_EQ(unpickle(line[0]),
                  Object::instance({.module = "builtins", .name = "complex", .args = Object::tuple({1.0, -2.0})}));

        const Object set = unpickle(line[1]);
        EXPECT_TRUE(set.is_a("builtins", "frozenset"));
        EXPECT_EQ(Object::set(set.as_instance().args.at(0).elements()), Object::set({1, 2, 3}));
        EXPECT_EQ(unpickle(line[2]).at(unpickle(pickle(unpickle(line[2]).begin()[0]))), 2) << "a key of a dict";

        const Object array = unpickle(line[3]);
        EXPECT_TRUE(array.is_a("array", "array"));
        if (array.as_instance().args.at(1).type() == Object::Type::bytes) {
            EXPECT_EQ(array.repr(), R"(array('i', b'\x01\x00\x00\x00\xfe\xff\xff\xff\x03\x00\x00\x00'))");
        } else {
            EXPECT_EQ(array.repr(), "array('i', [1, -2, 3])") << "protocol 2";
        }

        const Object token = unpickle(line[5]);
        EXPECT_TRUE(token.is_a("multiprocessing.managers", "Token"));
        EXPECT_TRUE(token.as_instance().by_new);
        EXPECT_EQ(token.as_instance().state.repr(), "('dict', ('localhost', 5000), '7f00')");
        EXPECT_EQ(unpickle(line[6]).as_instance().state.repr(), "{'a': 1, 'b': 'x'}");
        EXPECT_EQ(unpickle(line[7]).as_instance().state.at("_value"), 3);

        const Object proxy_class = unpickle(line[8]);
        EXPECT_EQ(proxy_class.repr(), "<class 'multiprocessing.managers.DictProxy'>");
        EXPECT_FALSE(proxy_class.is_a("multiprocessing.managers", "DictProxy")) << "the class is no instance of itself";
        EXPECT_EQ(unpickle(line[9]).as_instance().args.repr(), "(2, 'text', 'file')");
    }
}

TEST(Pickle, ProxiesAreWhatAServerTakes) {
    // A proxy that knows its server only by its address: pickling it needs no server.
    const auto lines = parse(test::python(R"(
import pickle
from multiprocessing import managers
token = managers.Token('list', '/tmp/socket', 'ab12')
for proxy_type in managers.ListProxy, managers.DictProxy, managers.AcquirerProxy, managers.BarrierProxy:
    proxy = object.__new__(proxy_type)
    proxy._token, proxy._serializer, proxy._isauto = token, 'pickle', False
    print(*('x' + pickle.dumps(proxy, protocol).hex() for protocol in (2, 3, 4, 5)))
auto = managers.MakeProxyType('AutoProxy[list]', ('append', 'pop'))
proxy = object.__new__(auto)
proxy._token, proxy._serializer, proxy._isauto = token, 'pickle', True
print(*('x' + pickle.dumps(proxy, protocol).hex() for protocol in (2, 3, 4, 5)))
)"));
    ASSERT_EQ(lines.size(), 5U);
    for (const auto& line : lines) {
        for (const std::string& bytes : line) {
            const Object proxy = unpickle(bytes, PickleGlobals::of_server());
            EXPECT_TRUE(proxy.is_a("multiprocessing.managers", "RebuildProxy"));
            EXPECT_EQ(proxy.as_instance().args.at(1).as_instance().state,
                      Object::tuple({"list", "/tmp/socket", "ab12"}));
        }
    }
    EXPECT_EQ(unpickle(lines[4][2], PickleGlobals::of_server()).as_instance().args.at(3).repr(),
              "{'exposed': ('append', 'pop')}");
}

std::string refusal(std::string_view bytes, const PickleGlobals& allowed = PickleGlobals::of_client(),
                    const PickleLimits& limits = {}) {
    try {
        return "it was read: " + unpickle(bytes, allowed, limits).repr().substr(0, 200);
    } catch (const UnpicklingError& error) {
        return error.what();
    }
}

#define EXPECT_REFUSED(bytes, part) EXPECT_NE(refusal(bytes).find(part), std::string::npos) << refusal(bytes)

TEST(Pickle, NamesWhatItRefuses) {
    const auto lines = parse(test::python(R"(
import collections, datetime, decimal, os, pickle, subprocess
class Attack:
    def __init__(self, *call): self.call = call
    def __reduce__(self): return self.call
for protocol in 3, 4, 5:
    for value in (Attack(os.system, ('touch /tmp/owned',)), Attack(eval, ('1',)), Attack(getattr, ('a', 'b')),
                  [1, {2: Attack(subprocess.Popen, ('ls',))}], datetime.date(2020, 1, 1), collections.OrderedDict(),
                  decimal.Decimal(1), os.system, int):
        print('x' + pickle.dumps(value, protocol).hex())
)"));
    ASSERT_EQ(lines.size(), 27U);
    constexpr std::array kNames{"posix.system",     "builtins.eval", "builtins.getattr",
                                "subprocess.Popen", "datetime.date", "collections.OrderedDict",
                                "decimal.Decimal",  "posix.system",  "builtins.int"};
    for (std::size_t i = 0; i < lines.size(); ++i) {
        const std::string name = kNames[i % kNames.size()];
        for (const auto* allowed : {&PickleGlobals::none(), &PickleGlobals::of_server(), &PickleGlobals::of_client()}) {
            const std::string sentence = refusal(lines[i][0], *allowed);
            EXPECT_NE(sentence.find("names " + name + ","), std::string::npos) << name << ": " << sentence;
        }
    }
    // Where everything may be named it is a description still.
    EXPECT_EQ(unpickle(lines[18][0], PickleGlobals::any()).repr(), "system('touch /tmp/owned')");
    // Only a server can send what is opened where it is read.
    const std::string memory = pickle(Object::instance({.module = "multiprocessing.shared_memory",
                                                        .name = "SharedMemory",
                                                        .args = Object::tuple({"name", false, 4096})}));
    EXPECT_EQ(unpickle(memory).repr(), "SharedMemory('name', False, 4096)");
    EXPECT_NE(refusal(memory, PickleGlobals::of_server()).find("shared_memory.SharedMemory"), std::string::npos);
    EXPECT_REFUSED(
        "\x80\x04\x8c\x08"
        "builtins"
        "\x8c\x03"
        "set\x93.",
        "class set itself");
}

TEST(Pickle, RefusesIntegersOfMoreThan64Bits) {
    const auto lines = parse(test::python(R"(
import pickle
for value in 2**63, -2**63 - 1, 2**64, 10**100, -10**1000:
    print(*('x' + pickle.dumps([value], protocol).hex() for protocol in (2, 3, 4, 5)))
)"));
    for (const auto& line : lines) {
        for (const auto& bytes : line) EXPECT_REFUSED(bytes, "64 bits");
    }
    EXPECT_EQ(unpickle("\x80\x04\x8a\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff."), -1) << "more bytes than it needs";
    EXPECT_EQ(unpickle("\x80\x04\x8a\x0a\x01\0\0\0\0\0\0\0\0\0."s), 1);
    EXPECT_EQ(unpickle("\x80\x04\x8a\0."s), 0);
}

TEST(Pickle, CopiesWhatIsSharedAndRefusesWhatHoldsItself) {
    const auto lines = parse(test::python(R"(
import pickle
def cyclic():
    a = [1]; a.append(a); yield a
    d = {}; d[1] = d; yield d
    t = ([],); t[0].append(t); yield t
    x, y = [], []; x.append(y); y.append({'x': x}); yield x
    e = ValueError([]); e.args[0].append(e); yield e
for value in cyclic():
    print(*('x' + pickle.dumps(value, protocol).hex() for protocol in (2, 3, 4, 5)))
bomb = ['lol']
for _ in range(100): bomb = [bomb] * 10
print('x' + pickle.dumps(bomb).hex())
long = ['x' * 1000000] * 1000
print('x' + pickle.dumps(long).hex())
)"));
    ASSERT_EQ(lines.size(), 7U);
    for (std::size_t i = 0; i < 5; ++i) {
        for (const auto& bytes : lines[i]) EXPECT_REFUSED(bytes, "a part of itself");
    }
    EXPECT_REFUSED(lines[5][0], "so often");
    EXPECT_REFUSED(lines[6][0], "so often");
    PickleLimits generous;
    generous.copied = std::size_t{2} << 30;
    generous.depth = 2;
    EXPECT_EQ(unpickle(lines[6][0], PickleGlobals::none(), generous).size(), 1000U);
}

std::string nested(std::size_t depth) {
    return "\x80\x04" + std::string(depth, ']') + std::string(depth - 1, 'a') + ".";
}

TEST(Pickle, KeepsItsLimits) {
    EXPECT_EQ(unpickle(nested(1000)).size(), 1U);
    EXPECT_REFUSED(nested(1001), "deeper");
    EXPECT_REFUSED(nested(1000000), "deeper");
    EXPECT_REFUSED("\x80\x04)" + std::string(1000000, '\x85') + ".", "deeper");
    EXPECT_NE(refusal(nested(3), PickleGlobals::none(), {.depth = 2}).find("deeper"), std::string::npos);
    EXPECT_NE(refusal(nested(50), PickleGlobals::none(), {.bytes = 100}).find("at most 100"), std::string::npos);
    EXPECT_NE(refusal("\x80\x04N\x94\x94.", PickleGlobals::none(), {.memo = 1}).find("numbers more"),
              std::string::npos);

    Object deep = Object::list();
    for (int i = 0; i < 999; ++i) deep = Object::list({std::move(deep)});
    EXPECT_EQ(unpickle(pickle(deep)), deep);
    deep = Object::list({std::move(deep)});
    EXPECT_THROW(pickle(deep), PicklingError);
    std::string out = "before";
    EXPECT_THROW(pickle(Object{1, 2, "\xff"}, out), PicklingError) << "not UTF-8";
    EXPECT_EQ(out, "before");
}

TEST(Pickle, RefusesWhatIsDamaged) {
    EXPECT_REFUSED("", "protocol");
    EXPECT_REFUSED("N.", "protocol");
    EXPECT_REFUSED("(lp0\nI1\na.", "protocol");
    EXPECT_REFUSED("\x80\x01N.", "protocol 1");
    EXPECT_REFUSED("\x80\x06N.", "protocol 6");
    EXPECT_REFUSED("\x80", "cut short");
    EXPECT_REFUSED("\x80\x04.", "where there is none");
    EXPECT_REFUSED("\x80\x04NN.", "left over");
    EXPECT_REFUSED("\x80\x04(N.", "left over");
    EXPECT_REFUSED("\x80\x04N.N", "behind its end");
    EXPECT_REFUSED("\x80\x04N", "cut short");
    EXPECT_REFUSED("\x80\x04h\0."s, "gave to no value");
    EXPECT_REFUSED("\x80\x04Nq\1h\0."s, "gave to no value");
    EXPECT_REFUSED("\x80\x04j\xff\xff\xff\xff.", "gave to no value");
    EXPECT_REFUSED("\x80\x04Nr\xff\xff\xff\xff.", "numbers more");
    EXPECT_REFUSED("\x80\x04\x94.", "where there is none");
    EXPECT_REFUSED("\x80\x04(\x94.", "where there is none");
    EXPECT_REFUSED(
        "\x80\x04"
        "0.",
        "where there is none");
    EXPECT_REFUSED(
        "\x80\x04N(0(0"
        "0.",
        "where there is none");
    EXPECT_REFUSED("\x80\x04N(.", "where there is none");
    EXPECT_REFUSED(
        "\x80\x04"
        "1.",
        "mark where there is none");
    EXPECT_REFUSED("\x80\x04t.", "mark where there is none");
    EXPECT_REFUSED("\x80\x04N\x86.", "where there is none");
    EXPECT_REFUSED("\x80\x04N(\x85.", "where there is none");
    EXPECT_REFUSED("\x80\x04](e(.", "where there is none");
    EXPECT_REFUSED("\x80\x04Na.", "where there is none");
    EXPECT_REFUSED("\x80\x04NNa.", "something else");
    EXPECT_REFUSED("\x80\x04)Na.", "something else");
    EXPECT_REFUSED("\x80\x04}(Nu.", "without a value");
    EXPECT_REFUSED("\x80\x04(Nd.", "without a value");
    EXPECT_REFUSED("\x80\x04}]Ns.", "can't be hashed");
    EXPECT_REFUSED("\x80\x04\x8f(]\x90.", "can't be hashed");
    EXPECT_REFUSED("\x80\x04(]\x91.", "can't be hashed");
    EXPECT_REFUSED("\x80\x04K\1)R.", "no class");
    EXPECT_REFUSED(
        "\x80\x04"
        "cbuiltins\nslice\n]R.",
        "no tuple");
    EXPECT_REFUSED(
        "\x80\x04"
        "cbuiltins\nslice",
        "cut short");
    EXPECT_REFUSED("\x80\x04NN\x93.", "no str");
    EXPECT_REFUSED(
        "\x80\x04"
        "cbuiltins\nslice\n)RK\1bK\1b.",
        "has one");
    EXPECT_REFUSED("\x80\x04NNb.", "something else");
    EXPECT_REFUSED(
        "\x80\x04"
        "cbuiltins\nset\n(K\1tR.",
        "does not");
    EXPECT_REFUSED(
        "\x80\x04"
        "c_codecs\nencode\nX\1\0\0\0aX\3\0\0\0hex\x86R."s,
        "does not");
    EXPECT_REFUSED(
        "\x80\x04"
        "c_codecs\nencode\nX\3\0\0\0\xe2\x82\xacX\6\0\0\0latin1\x86R."s,
        "Latin-1");
    EXPECT_REFUSED(
        "\x80\x04"
        "carray\n_array_reconstructor\n(carray\narray\nX\1\0\0\0iK\x09"
        "C\0tR."s,
        "another kind");
    EXPECT_REFUSED("\x80\x04\x8c\1\xff.", "not UTF-8");
    EXPECT_REFUSED("\x80\x04\x8c\2\xc0\x80.", "not UTF-8");
    EXPECT_REFUSED("\x80\x04\x95\xff\0\0\0\0\0\0\0N."s, "cut short");
    EXPECT_REFUSED("\x80\x04U\1a.", "instruction 85");
    EXPECT_REFUSED("\x80\x04Q.", "instruction 81");
    EXPECT_REFUSED("\x80\x05\x97.", "instruction 151");
    // Lengths that are claimed cost nothing.
    EXPECT_REFUSED("\x80\x04X\xff\xff\xff\xff.", "cut short");
    EXPECT_REFUSED(
        "\x80\x04"
        "B\xff\xff\xff\xff.",
        "cut short");
    EXPECT_REFUSED("\x80\x04\x8d\xff\xff\xff\xff\xff\xff\xff\xff.", "cut short");
    EXPECT_REFUSED("\x80\x04\x8e\xff\xff\xff\xff\xff\xff\xff\x7f.", "cut short");
    EXPECT_REFUSED("\x80\x05\x96\xff\xff\xff\xff\xff\xff\xff\xff.", "cut short");
    EXPECT_REFUSED("\x80\x04\x8b\xff\xff\xff\x7f.", "cut short");
    EXPECT_REFUSED("\x80\x04\x8b\xff\xff\xff\xff.", "negative");
    // A manager's dict.keys().
    EXPECT_EQ(unpickle("\x80\x04"
                       "cbuiltins\nlist\n](K\1K\2e\x85R."),
              (Object{1, 2}));
    // What Python itself would read, but never writes, is read: POP, DUP, a mark that is popped.
    EXPECT_EQ(unpickle("\x80\x04(K\1K\2"
                       "1K\3"
                       "2\x86."),
              Object::tuple({3, 3}));
    EXPECT_EQ(unpickle("\x80\x04K\1(0K\2"
                       "0."),
              1);
}

TEST(Pickle, IsWholeOrRefused) {
    const auto lines = parse(test::python(std::string(kValues) + R"(
for protocol in 2, 3, 4, 5:
    print('x' + pickle.dumps([token, {'a': (1.5, b'x', 'y')}, {1}, 2**40, KeyError(1), array.array('d', [1])], protocol).hex())
)"));
    for (const auto& line : lines) {
        const std::string& bytes = line[0];
        EXPECT_NO_THROW(unpickle(bytes));
        for (std::size_t size = 0; size < bytes.size(); ++size) {
            EXPECT_THROW(unpickle(std::string_view(bytes).substr(0, size)), UnpicklingError) << size;
        }
    }
}

}    // namespace
