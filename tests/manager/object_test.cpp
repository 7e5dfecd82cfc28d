#include <multihull/object.hpp>

#include "manager/object_table.hpp"
#include "support/python.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <random>
#include <ranges>
#include <sstream>
#include <unordered_map>

namespace {

using multihull::Object;
using Type = Object::Type;

std::string printed(const Object& object) {
    std::ostringstream out;
    out << object;
    return out.str();
}

Object travelled(const Object& object) {
    multihull::detail::VectorGrowth growth;
    multihull::detail::Writer writer({}, growth);
    multihull::detail::encode(writer, object);
    multihull::detail::Reader reader(writer.bytes());
    Object copy = multihull::detail::decode<Object>(reader);
    reader.expect_end();
    return copy;
}

// Random values.

class Values {
public:
    explicit Values(unsigned seed) : random_(seed) {}

    /// With `ordered`, no set has more than one element: Python's order is another one.
    Object any(int depth, bool ordered) {
        switch (below(depth > 0 ? 14 : 8)) {
            case 0:
                return nullptr;
            case 1:
                return below(2) == 0;
            case 2:
                return static_cast<std::int64_t>(bits()) >> below(64);
            case 3:
                return std::bit_cast<double>(bits());
            case 4:
                return below(2) == 0 ? nearby() : std::ldexp(static_cast<double>(below(1000)), -3);
            case 5:
            case 6:
                return text();
            case 7:
                return Object::bytes(random_bytes());
            case 8:
            case 9:
                return Object::list(several(depth, ordered));
            case 10:
            case 11:
                return Object::tuple(several(depth, ordered));
            case 12: {
                Object set = Object::set();
                for (auto n = below(ordered ? 2 : 5); n > 0; --n) set.add(hashable(depth - 1));
                return set;
            }
            default: {
                Object dict = Object::dict();
                for (auto n = below(5); n > 0; --n) dict[hashable(depth - 1)] = any(depth - 1, ordered);
                return dict;
            }
        }
    }

    /// Numbers where rounding, signs and Python's ways to write floats change.
    Object nearby() {
        static const std::vector<Object> kNumbers{0,
                                                  1,
                                                  -1,
                                                  true,
                                                  false,
                                                  0.0,
                                                  -0.0,
                                                  1.0,
                                                  0.1,
                                                  1e15,
                                                  1e16,
                                                  1e17,
                                                  123456789012345680.0,
                                                  0.0001,
                                                  0.00001,
                                                  1e-5,
                                                  5e-324,
                                                  std::numeric_limits<double>::max(),
                                                  std::numeric_limits<double>::infinity(),
                                                  -std::numeric_limits<double>::infinity(),
                                                  std::numeric_limits<double>::quiet_NaN(),
                                                  std::numeric_limits<std::int64_t>::max(),
                                                  std::numeric_limits<std::int64_t>::min(),
                                                  9223372036854775808.0,
                                                  -9223372036854775808.0,
                                                  9007199254740992.0,
                                                  std::int64_t{9007199254740993},
                                                  1e22,
                                                  2.5,
                                                  9999999999999998.0};
        return kNumbers[below(kNumbers.size())];
    }

private:
    std::uint64_t bits() { return random_(); }
    std::size_t below(std::size_t end) { return random_() % end; }

    Object hashable(int depth) {
        for (;;) {
            Object value = any(depth, true);
            try {
                static_cast<void>(value.hash());
                return value;
            } catch (const multihull::TypeError&) {
                // A list, say: another one.
            }
        }
    }

    std::vector<Object> several(int depth, bool ordered) {
        std::vector<Object> elements;
        for (auto n = below(4); n > 0; --n) elements.push_back(any(depth - 1, ordered));
        return elements;
    }

    std::string random_bytes() {
        std::string bytes;
        for (auto n = below(9); n > 0; --n) bytes += static_cast<char>(below(256));
        return bytes;
    }

    std::string text() {
        std::string text;
        for (auto n = below(7); n > 0; --n) {
            switch (below(4)) {
                case 0:
                    text += "'\"\\\n\t\r\x7f\x01 ab"[below(11)];
                    break;
                case 1:
                    text += static_cast<char>(below(128));
                    break;
                case 2:
                    append_utf8(text, static_cast<std::uint32_t>(below(0x3000)));
                    break;
                default:
                    append_utf8(text, static_cast<std::uint32_t>(below(0x110000)));
                    break;
            }
        }
        return text;
    }

    static void append_utf8(std::string& out, std::uint32_t c) {
        if (c < 0x80) {
            out += static_cast<char>(c);
        } else if (c < 0x800) {
            out += static_cast<char>(0xc0 | c >> 6);
            out += static_cast<char>(0x80 | (c & 63));
        } else if (c < 0x10000) {
            out += static_cast<char>(0xe0 | c >> 12);
            out += static_cast<char>(0x80 | (c >> 6 & 63));
            out += static_cast<char>(0x80 | (c & 63));
        } else {
            out += static_cast<char>(0xf0 | c >> 18);
            out += static_cast<char>(0x80 | (c >> 12 & 63));
            out += static_cast<char>(0x80 | (c >> 6 & 63));
            out += static_cast<char>(0x80 | (c & 63));
        }
    }

    std::mt19937_64 random_;
};

// Names stand for new floats each time: Python takes a nan for equal to itself when it is one and the same object.
constexpr const char* kEvaluate = R"(
import sys
class Names(dict):
    def __missing__(self, name):
        if name in ('nan', 'inf'):
            return float(name)
        raise KeyError(name)
def value(text):
    return eval(text, {}, Names())
lines = sys.stdin.read().split('\n')[:-1]
)";

// Against Python.

TEST(ObjectAgainstPython, PrintsAsPythonDoes) {
    Values values(1);
    std::string input;
    for (int i = 0; i < 6000; ++i) input += values.any(3, true).repr() + "\n";
    EXPECT_EQ(test::python(std::string(kEvaluate) + R"(
import unicodedata
# Another version of Unicode shows other characters as themselves.
same = unicodedata.unidata_version == '14.0.0'
for line in lines:
    if repr(value(line)) != line and (same or (line.isascii() and '\\u' not in line and '\\U' not in line)):
        print('printed', ascii(line), 'where Python prints', ascii(repr(value(line))))
        break
print(len(lines))
)",
                           input),
              "6000\n");
}

TEST(ObjectAgainstPython, KnowsWhichCharactersArePrintable) {
    std::string input;
    for (std::uint32_t c = 0x80; c < 0x110000; c += 0x80) {
        std::string text;
        for (std::uint32_t i = c; i < c + 0x80; ++i) {
            if (i >= 0x10000) {
                text += {static_cast<char>(0xf0 | i >> 18), static_cast<char>(0x80 | (i >> 12 & 63)),
                         static_cast<char>(0x80 | (i >> 6 & 63)), static_cast<char>(0x80 | (i & 63))};
            } else if (i >= 0x800) {
                text += {static_cast<char>(0xe0 | i >> 12), static_cast<char>(0x80 | (i >> 6 & 63)),
                         static_cast<char>(0x80 | (i & 63))};
            } else {
                text += {static_cast<char>(0xc0 | i >> 6), static_cast<char>(0x80 | (i & 63))};
            }
        }
        input += Object(text).repr() + "\n";
    }
    // Another Python may know another version of Unicode: then only that the text is right.
    EXPECT_EQ(test::python(std::string(kEvaluate) + R"(
import unicodedata
for i, line in enumerate(lines):
    text = ''.join(chr(c) for c in range((i + 1) * 128, (i + 2) * 128))
    if value(line) != text or (unicodedata.unidata_version == '14.0.0' and repr(text) != line):
        print('from', hex(ord(text[0])), line.encode())
print(len(lines))
)",
                           input),
              "8703\n");
}

TEST(ObjectAgainstPython, ComparesAsPythonDoes) {
    Values values(7);
    std::vector<Object> objects;
    for (int i = 0; i < 60; ++i) objects.push_back(values.nearby());
    for (int i = 0; i < 140; ++i) objects.push_back(values.any(2, false));
    // Short sets, tuples and lists of few different numbers are often equal, or parts of one another.
    for (int i = 0; i < 60; ++i) {
        std::vector<Object> few;
        for (int n = i % 4; n > 0; --n) few.push_back((i * n) % 3 == 0 ? Object(n % 2) : Object(n % 3 + 0.0));
        objects.push_back(i % 3 == 0 ? Object::set(few) : i % 3 == 1 ? Object::tuple(few) : Object::list(few));
        objects.push_back(Object::dict({{i % 2, i % 3}, {i % 5, true}}));
    }

    std::string input;
    for (const Object& object : objects) input += object.repr() + "\n";
    const std::string expected = test::python(std::string(kEvaluate) + R"(
def letter(compare):
    try:
        return '1' if compare() else '0'
    except TypeError:
        return 'T'
for a in map(value, lines):
    for b in map(value, lines):
        print(letter(lambda: a == b) + letter(lambda: a < b) + letter(lambda: a <= b), end='')
    print()
for a in map(value, lines):
    try:
        hash(a)
        print('1', end='')
    except TypeError:
        print('0', end='')
)",
                                              input);
    const auto letter = [](auto compare) {
        try {
            return compare() ? '1' : '0';
        } catch (const multihull::TypeError&) {
            return 'T';
        }
    };
    std::size_t at = 0;
    for (const Object& a : objects) {
        for (const Object& b : objects) {
            const std::string got{letter([&] { return a == b; }), letter([&] { return a < b; }),
                                  letter([&] { return a <= b; })};
            ASSERT_EQ(got, expected.substr(at, 3)) << a.repr() << "   " << b.repr();
            at += 3;
        }
        ++at;
    }
    for (const Object& a : objects) {
        const char hashable = letter([&] { return a.hash() == a.hash(); }) == '1' ? '1' : '0';
        ASSERT_EQ(hashable, expected[at++]) << a.repr();
        for (const Object& b : objects) {
            if (a == b && hashable == '1') {
                ASSERT_EQ(a.hash(), b.hash()) << a.repr() << "   " << b.repr();
            }
        }
    }
    EXPECT_EQ(at, expected.size());
}

TEST(ObjectAgainstPython, FindsKeysAsPythonDoes) {
    Values values(3);
    Object dict = Object::dict();
    std::string script = "d = {}\n";
    for (int i = 0; i < 3000; ++i) {
        const Object key = i % 2 == 0 ? Object::tuple({values.nearby(), i % 7}) : Object(i % 50 * 0.5);
        if (key.repr().find("nan") != std::string::npos) continue;
        if (i % 5 == 4) {
            if (dict.contains(key)) dict.erase(key);
            script += "d.pop(" + key.repr() + ", None)\n";
        } else {
            dict[key] = i;
            script += "d[" + key.repr() + "] = " + std::to_string(i) + "\n";
        }
    }
    EXPECT_EQ(test::python("inf = float('inf')\n" + script + "print(d)"), printed(dict) + "\n");
}

// The server's dicts leave gaps where keys were.
TEST(ObjectAgainstPython, FindsKeysBesideGapsAsPythonDoes) {
    std::mt19937 random(4);
    multihull::detail::GappedKeys dict(Object::dict());
    std::string script = "d = {}\n";
    for (int i = 0; i < 5000; ++i) {
        // Grows, shrinks to nothing, grows.
        const bool erases = i / 1000 % 2 == 1 ? i % 5 != 0 : i % 3 == 0;
        const Object key(static_cast<int>(random() % 400));
        if (erases && i % 7 == 0 && dict.last() != nullptr) {
            const Object newest = *dict.last();
            EXPECT_TRUE(dict.erase(newest));
            script += "d.popitem()\n";
        } else if (erases) {
            const bool held = dict.contains(key);
            EXPECT_EQ(dict.erase(key), held);
            EXPECT_EQ(dict.find(key), nullptr);
            script += "d.pop(" + key.repr() + ", None)\n";
        } else {
            dict[key] = i;
            script += "d[" + key.repr() + "] = " + std::to_string(i) + "\n";
        }
        if (i % 500 == 499) {
            EXPECT_EQ(dict.size(), dict.whole().size());
        }
    }
    EXPECT_EQ(test::python(script + "print(d)"), printed(dict.whole()) + "\n");
}

// By itself.

TEST(Object, IsWrittenAsCxxWritesValues) {
    EXPECT_EQ((Object{42, nullptr, "hello"}).repr(), "[42, None, 'hello']");
    EXPECT_EQ(printed(Object{}), "None");
    EXPECT_EQ(printed("hello"), "hello");
    EXPECT_EQ(Object("hello").repr(), "'hello'");
    EXPECT_EQ(printed(true), "True");
    EXPECT_EQ(printed(1.0F), "1.0");
    EXPECT_EQ(printed(std::uint8_t{200}), "200");
    EXPECT_EQ(printed(Object::tuple({1})), "(1,)");
    EXPECT_EQ(printed(Object::tuple()), "()");
    EXPECT_EQ(printed(Object::set()), "set()");
    EXPECT_EQ(printed(Object::set({3, 3.0, "x"})), "{3, 'x'}");
    EXPECT_EQ(printed(Object::dict({{1, "1"}, {"2", 2}, {0.25, nullptr}})), "{1: '1', '2': 2, 0.25: None}");
    EXPECT_EQ(printed(Object::dict()), "{}");
    EXPECT_EQ(printed(Object::bytes("a\xff'")), "b\"a\\xff'\"");
    EXPECT_EQ(printed(Object::list(std::views::iota(0, 4))), "[0, 1, 2, 3]");
    EXPECT_EQ(printed(Object{Object{1, 2}, Object{"a"}}), "[[1, 2], ['a']]");
    const auto take = [](Object&& object) { return object.repr(); };
    EXPECT_EQ(take({42, nullptr, "hello"}), "[42, None, 'hello']");
    EXPECT_EQ(Object("a\xff").repr(), "'a\\udcff'");
}

TEST(Object, GivesWhatItHoldsAndNothingElse) {
    EXPECT_EQ(Object(7).as<int>(), 7);
    EXPECT_EQ(Object(true).as<int>(), 1);
    EXPECT_EQ(Object(7).as<double>(), 7.0);
    EXPECT_EQ(Object("x").as<std::string>(), "x");
    EXPECT_EQ(Object(std::uint64_t{1} << 62).as<std::uint64_t>(), std::uint64_t{1} << 62);
    EXPECT_THROW(Object(300).as<std::uint8_t>(), multihull::Error);
    EXPECT_THROW(Object(-1).as<unsigned>(), multihull::Error);
    EXPECT_THROW(Object(~std::uint64_t{0}), multihull::Error);
    EXPECT_THROW(Object(1).as<bool>(), multihull::TypeError);
    EXPECT_THROW(Object(1.5).as_int(), multihull::TypeError);
    EXPECT_THROW(Object("x").as_list(), multihull::TypeError);
    EXPECT_THROW(Object(1).as_str(), multihull::TypeError);
    EXPECT_THROW(Object("x").as_bytes(), multihull::TypeError);
    EXPECT_THROW(Object(1).size(), multihull::TypeError);
    EXPECT_THROW(Object(1).begin(), multihull::TypeError);
    EXPECT_EQ(Object("n\xc3\xa4h").size(), 3U);
    EXPECT_EQ(Object::bytes("n\xc3\xa4h").size(), 4U);
    EXPECT_EQ(Object(nullptr).type_name(), std::string("NoneType"));
}

TEST(Object, IsChangedAsAContainerIs) {
    Object list{1, 2};
    list.append("x");
    list[0] = Object{nullptr};
    list[-1] = 3;
    EXPECT_EQ(list.repr(), "[[None], 2, 3]");
    list.erase(1);
    EXPECT_EQ(list.repr(), "[[None], 3]");
    EXPECT_THROW(list[2], multihull::IndexError);
    EXPECT_THROW(list.at(-3), multihull::IndexError);
    EXPECT_THROW(list["x"], multihull::TypeError);

    Object dict = Object::dict();
    dict["a"] = 1;
    dict[2.0] = "two";
    EXPECT_EQ(dict[2], "two");
    EXPECT_EQ(std::as_const(dict)["a"], 1);
    EXPECT_THROW(std::as_const(dict)["b"], multihull::KeyError);
    EXPECT_THROW(dict.at("b"), multihull::KeyError);
    EXPECT_THROW((dict[Object{1}]), multihull::TypeError);
    EXPECT_EQ(dict.size(), 2U);
    dict["c"] = Object(dict);
    EXPECT_EQ(dict.repr(), "{'a': 1, 2.0: 'two', 'c': {'a': 1, 2.0: 'two'}}");
    dict.erase(2);
    std::string keys;
    for (const Object& key : dict) keys += key.as_str();
    EXPECT_EQ(keys, "ac");
    EXPECT_EQ(dict.values()[0], 1);

    Object set = Object::set({1});
    EXPECT_FALSE(set.add(true));
    EXPECT_TRUE(set.add(Object::tuple({1, 2})));
    EXPECT_THROW(set.add(Object::list()), multihull::TypeError);
    EXPECT_TRUE(set.contains(1.0));
    EXPECT_THROW(set.erase(9), multihull::KeyError);
    set.erase(1);
    EXPECT_EQ(set.size(), 1U);
    EXPECT_TRUE(Object("hello").contains("ell"));
    EXPECT_TRUE(Object::bytes("abc").contains(98));
    EXPECT_THROW(Object("hello").contains(1), multihull::TypeError);
}

TEST(Object, MayBecomeAPartOfItself) {
    Object list{Object{1, 2}, 3};
    list = Object(list[0]);
    EXPECT_EQ(list.repr(), "[1, 2]");
    list = list[0];
    EXPECT_EQ(list, 1);
    Object nested{Object{5, 6}, 7};
    nested = std::move(nested[0]);
    EXPECT_EQ(nested.repr(), "[5, 6]");
    const Object taken = std::move(nested);
    EXPECT_TRUE(nested.is_none());    // NOLINT(bugprone-use-after-move): that is what is asked
    EXPECT_EQ(taken.size(), 2U);
}

TEST(Object, IsAKeyOfUnorderedContainers) {
    std::unordered_map<Object, int> map;
    map[1] = 1;
    ++map[true];
    ++map[1.0];
    EXPECT_EQ(map.at(1), 3);
}

TEST(Object, FindsAmongMany) {
    Object dict = Object::dict();
    for (int i = 0; i < 100'000; ++i) dict[i * 8] = i;
    for (int i = 0; i < 100'000; ++i) ASSERT_EQ(dict[i * 8], i);
    EXPECT_FALSE(dict.contains(3));
}

TEST(ObjectCodec, BringsBackWhatWasSent) {
    Values values(11);
    for (int i = 0; i < 3000; ++i) {
        const Object object = values.any(4, false);
        ASSERT_EQ(travelled(object).repr(), object.repr());
    }
}

TEST(ObjectCodec, RefusesDamagedBytes) {
    Values values(12);
    std::mt19937 random(5);
    for (int i = 0; i < 3000; ++i) {
        multihull::detail::VectorGrowth growth;
        multihull::detail::Writer writer({}, growth);
        multihull::detail::encode(writer, values.any(4, false));
        std::vector<std::byte> bytes(writer.bytes().begin(), writer.bytes().end());
        if (i % 2 == 0) {
            bytes.resize(random() % (bytes.size() + 1));
        } else {
            bytes[random() % bytes.size()] = static_cast<std::byte>(random());
        }
        multihull::detail::Reader reader(bytes);
        try {
            static_cast<void>(multihull::detail::decode<Object>(reader).repr());
        } catch (const multihull::CodecError&) {
            // As it should be, mostly.
        }
    }
}

TEST(ObjectCodec, RefusesTooManyLevels) {
    Object deep;
    for (int i = 0; i < 2000; ++i) deep = Object::list({std::move(deep)});
    EXPECT_THROW(travelled(deep), multihull::CodecError);
    // A list of a list of a list ...: 2000 levels that nobody encoded.
    std::vector<std::byte> bytes(1, std::byte{multihull::detail::kUserMark});
    for (int i = 0; i < 2000; ++i) {
        bytes.push_back(std::byte{6});
        bytes.push_back(std::byte{1});
        bytes.insert(bytes.end(), 7, std::byte{0});
    }
    bytes.push_back(std::byte{0});
    multihull::detail::Reader reader(bytes);
    EXPECT_THROW(multihull::detail::decode<Object>(reader), multihull::CodecError);
}

TEST(ObjectCodec, RefusesLengthsThatNobodySent) {
    for (const int type : {4, 5, 6, 7, 8, 9}) {
        std::vector<std::byte> bytes{std::byte{multihull::detail::kUserMark}, static_cast<std::byte>(type)};
        bytes.insert(bytes.end(), 8, std::byte{0x3f});
        bytes.insert(bytes.end(), 100, std::byte{0});
        multihull::detail::Reader reader(bytes);
        EXPECT_THROW(multihull::detail::decode<Object>(reader), multihull::CodecError);
    }
}

}    // namespace
