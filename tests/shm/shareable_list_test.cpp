// ShareableList: Python's layout, its rules of size and equality, and the real Python at the other end.
#include <multihull/codec.hpp>
#include <multihull/error.hpp>
#include <multihull/shareable_list.hpp>

#include "support/board.hpp"
#include "support/python_peer.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <random>
#include <ranges>
#include <stdexcept>
#include <string>
#include <sys/wait.h>
#include <unistd.h>
#include <vector>

namespace {

using multihull::Error;
using multihull::ShareableList;
using multihull::SharedMemory;
using None = ShareableList::None;
using Bytes = ShareableList::Bytes;
using Value = ShareableList::Value;

static_assert(std::ranges::input_range<const ShareableList>);
static_assert(multihull::Travels<ShareableList>);

constexpr auto kLargest = std::numeric_limits<std::int64_t>::max();

Bytes bytes(const std::string& text) {
    const auto view = std::as_bytes(std::span(text));
    return {view.begin(), view.end()};
}

std::vector<Value> samples() {
    return {None(),
            true,
            false,
            0,
            -1,
            kLargest,
            -kLargest - 1,
            2.5,
            -0.0,
            1e308,
            std::string(),
            "seven77",
            "eight888",
            "Ahoj, \xc5\xa1koda \xf0\x9f\x9a\xa2",
            bytes(""),
            bytes("\x01\xff\x02")};
}

TEST(ShareableListTest, values_come_back_as_they_were_put) {
    const std::vector<Value> values = samples();
    const ShareableList list(values);
    ASSERT_EQ(list.size(), values.size());
    for (std::size_t i = 0; i < values.size(); ++i) {
        EXPECT_EQ(list.get(i), values[i]) << i;
        EXPECT_EQ(list[static_cast<std::ptrdiff_t>(i) - static_cast<std::ptrdiff_t>(values.size())], values[i]) << i;
    }
    EXPECT_EQ(list.values(), values);
    EXPECT_TRUE(list.memory().name().empty());
    EXPECT_TRUE(ShareableList({}).empty());
    EXPECT_EQ(ShareableList({}).format(), "");
}

TEST(ShareableListTest, formats_are_pythons) {
    const ShareableList list({1, 2.0, true, None(), "", "1234567", "12345678", bytes("123456789")});
    EXPECT_EQ(list.format(), "qdxxxxxxx?xxxxxx?x8s8s16s16s");
}

TEST(ShareableListTest, an_element_changes_its_type_within_its_room) {
    ShareableList list({"a text of some length", 1});
    list.set(0, 5);
    EXPECT_EQ(list.get<std::int64_t>(0), 5);
    list.set(0, "24 bytes fit in here now");
    EXPECT_EQ(list.get<std::string>(0), "24 bytes fit in here now");
    EXPECT_THROW(list.set(0, "24 bytes fit in here now!"), std::length_error);
    EXPECT_EQ(list.get<std::string>(0), "24 bytes fit in here now");
    list.set(1, "12345678");
    EXPECT_EQ(list.get<std::string>(-1), "12345678");
    EXPECT_THROW(list.set(1, bytes("123456789")), std::length_error);
    list.set(1, None());
    EXPECT_EQ(list.get(1), Value(None()));
    list.set(1, false);
    EXPECT_EQ(list.get(1), Value(false));
    list.set(0, "short");
    EXPECT_EQ(list.get<std::string>(0), "short") << "what was longer before shows through";
    EXPECT_EQ(list.format(), "24sxxxxxxx?");
}

TEST(ShareableListTest, what_is_asked_wrongly_is_refused_with_a_sentence) {
    ShareableList list({1, "two"});
    EXPECT_THROW(list.get(2), std::out_of_range);
    EXPECT_THROW(list.get(~std::size_t{0}), std::out_of_range);
    EXPECT_THROW(list.get(-3), std::out_of_range);
    EXPECT_THROW(list.set(2, 1), std::out_of_range);
    EXPECT_THROW(ShareableList({}).get(0), std::out_of_range);
    EXPECT_THROW(list.get<double>(0), Error);
    for (const char* bad : {"\xff", "\xc5", "\xed\xa0\x80", "\xc0\x80", "\xf4\x90\x80\x80", "\xe0\x80\x80"}) {
        EXPECT_THROW(list.set(1, bad), Error) << bad;
        EXPECT_THROW(ShareableList({1, bad}), Error) << bad;
    }
    EXPECT_EQ(list.get<std::string>(1), "two");
    EXPECT_THROW(ShareableList({std::string(10'000'000, 'x')}), std::length_error);
    EXPECT_THROW(ShareableList().size(), Error);
    const std::string longest(9'999'991, 'x');
    EXPECT_EQ(ShareableList({longest}).get<std::string>(0), longest);
}

TEST(ShareableListTest, equality_is_pythons) {
    const ShareableList list({1, true, 1.0, "1", bytes("1"), None(), 0, std::nan(""), kLargest, 9223372036854775808.0});
    EXPECT_EQ(list.count(1), 3u);
    EXPECT_EQ(list.count(true), 3u);
    EXPECT_EQ(list.count(1.0), 3u);
    EXPECT_EQ(list.count(false), 1u);
    EXPECT_EQ(list.count("1"), 1u);
    EXPECT_EQ(list.count(std::nan("")), 0u);
    EXPECT_EQ(list.count(kLargest), 1u);
    EXPECT_EQ(list.count(9223372036854775808.0), 1u);
    EXPECT_EQ(list.index("1"), 3u);
    EXPECT_EQ(list.index(bytes("1")), 4u);
    EXPECT_EQ(list.index(None()), 5u);
    EXPECT_EQ(list.index(7), std::nullopt);
}

TEST(ShareableListTest, a_child_sees_and_changes_the_same_list) {
    ShareableList list({1, "text"});
    const pid_t child = ::fork();
    if (child == 0) {
        list.set(0, list.get<std::int64_t>(0) + 41);
        ::_exit(0);
    }
    int status = 0;
    ::waitpid(child, &status, 0);
    EXPECT_EQ(list.get<std::int64_t>(0), 42);
}

TEST(ShareableListTest, a_named_list_travels_by_its_name) {
    const ShareableList list = ShareableList::create_named({1, "text"});
    multihull::detail::VectorGrowth growth;
    multihull::detail::Writer writer({}, growth);
    multihull::detail::encode(writer, list);
    multihull::detail::Reader reader(writer.bytes());
    auto received = multihull::detail::decode<ShareableList>(reader);
    received.set(0, 2);
    EXPECT_EQ(list.get<std::int64_t>(0), 2);
}

TEST(ShareableListTest, nothing_in_the_memory_makes_it_read_outside) {
    // Random damage in every word: what comes back is a value or a sentence, and the address sanitizer has nothing to say.
    std::mt19937_64 random(5);
    const std::vector<Value> values = samples();
    for (int round = 0; round < 3'000; ++round) {
        ShareableList list(values);
        SharedMemory memory = list.memory();
        const auto words = memory.as<std::uint64_t>();
        for (int i = 0; i < 3; ++i) {
            constexpr std::uint64_t kValues[] = {0,         1, 7, 8, 16, 1 << 20, ~std::uint64_t{0}, ~std::uint64_t{7},
                                                 1ull << 62};
            const std::size_t place = random() % words.size();
            words[place] = random() % 2 == 0 ? random() : kValues[random() % std::size(kValues)];
        }
        for (const bool fresh : {false, true}) {
            try {
                ShareableList seen = fresh ? ShareableList(memory) : list;
                for (std::int64_t i = 0; std::cmp_less(i, seen.size()); ++i) {
                    try {
                        static_cast<void>(seen.get(i));
                    } catch (const Error&) {}
                    seen.set(i, i);
                    EXPECT_EQ(seen.get<std::int64_t>(i), i);
                }
            } catch (const Error&) {
                EXPECT_TRUE(fresh);
            }
        }
    }
}

TEST(ShareableListTest, memory_without_a_list_is_refused) {
    for (const std::size_t size : {1u, 7u, 8u, 15u}) EXPECT_THROW(ShareableList{SharedMemory(size)}, Error) << size;
    EXPECT_TRUE(ShareableList(SharedMemory(16)).empty());
    const SharedMemory memory(1'000);
    memory.as<std::uint64_t>()[0] = 1'000;
    EXPECT_THROW(ShareableList{memory}, Error);
}

TEST(ShareableListTest, python_reads_and_changes_ours) {
    ShareableList list = ShareableList::create_named(samples());
    const auto python = test::run_python(R"(
import sys
from multiprocessing import resource_tracker, shared_memory
seen = shared_memory.ShareableList(name=sys.argv[1])
resource_tracker.unregister(seen.shm._name, "shared_memory")
expected = [None, True, False, 0, -1, 2**63 - 1, -2**63, 2.5, -0.0, 1e308, "", "seven77", "eight888",
            "Ahoj, \u0161koda \U0001f6a2", b"", b"\x01\xff\x02"]
assert list(seen) == expected, list(seen)
assert [type(value) for value in seen] == [type(value) for value in expected]
print(seen.format)
for i, value in enumerate(["None", 1, None, 1.5, True, b"bytes", "max", False, "text", -7, 77, "seven", "sixteen charact.", 3,
                           "empty", None]):
    seen[i] = value
seen.shm.close()
)",
                                         {list.memory().name()});
    EXPECT_EQ(python.status, 0) << python.output;
    EXPECT_EQ(python.output, ShareableList(samples()).format() + "\n");
    const std::vector<Value> expected{"None",  1,      None(), 1.5, true,    bytes("bytes"),     "max",
                                      false,   "text", -7,     77,  "seven", "sixteen charact.", 3,
                                      "empty", None()};
    EXPECT_EQ(list.values(), expected);
}

TEST(ShareableListTest, we_read_and_change_pythons) {
    test::PythonPeer python(R"(
import sys
from multiprocessing import shared_memory
mine = shared_memory.ShareableList([None, True, 7, 2.5, "text", b"\x00bytes\x00", "a longer text, of 33 characters.."])
print(mine.shm.name, mine.format, flush=True)
sys.stdin.readline()
print(list(mine), mine.format, flush=True)
mine.shm.close()
mine.shm.unlink()
)");
    const std::string line = python.read_line();
    ShareableList list = ShareableList::attach(line.substr(0, line.find(' ')));
    EXPECT_EQ(list.format(), line.substr(line.find(' ') + 1));
    const std::vector<Value> expected{
        None(), true, 7, 2.5, "text", bytes(std::string("\0bytes", 6)), "a longer text, of 33 characters.."};
    EXPECT_EQ(list.values(), expected);
    EXPECT_THROW(list.set(4, "123456789"), std::length_error);
    list.set(0, "eight888");
    list.set(1, None());
    list.set(2, false);
    list.set(3, -1);
    list.set(4, 0.5);
    list.set(5, "string");
    list.set(6, bytes("bytes"));
    python.write_line("go");
    EXPECT_EQ(python.read_line(), "['eight888', None, False, -1, 0.5, 'string', b'bytes'] 8sxxxxxx?xxxxxxxx?qd8s40s");
    EXPECT_EQ(python.wait(), 0);
}

}    // namespace
