// SharedMemory: who sees whose bytes, who unlinks which name, and what is refused with a sentence.
#include <multihull/codec.hpp>
#include <multihull/error.hpp>
#include <multihull/shared_memory.hpp>

#include "support/board.hpp"
#include "support/in_child.hpp"
#include "support/python_peer.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <csignal>
#include <fcntl.h>
#include <filesystem>
#include <limits>
#include <string>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>
#include <vector>

namespace {

using multihull::Error;
using multihull::SharedMemory;
using test::in_child;
namespace detail = multihull::detail;

bool exists(const std::string& name) { return std::filesystem::exists("/dev/shm/" + name); }

// A name that no other run of this test uses.
std::string fresh_name() {
    static int count = 0;
    return "multihull_test_" + std::to_string(::getpid()) + "_" + std::to_string(++count);
}

template <class Function>
std::string sentence_of(Function function) {
    const std::string text = test::thrown_by<Error>(function).what();
    EXPECT_GT(text.size(), 30u) << text;
    return text;
}

// Carries descriptors within this process, as a socket would between two.
class Carried final : public detail::Attachments {
public:
    detail::DescriptorTicket put(int descriptor) override {
        descriptors_.push_back(::fcntl(descriptor, F_DUPFD_CLOEXEC, 0));
        return {0, static_cast<std::uint32_t>(descriptors_.size() - 1), 0};
    }
    int take(const detail::DescriptorTicket& ticket) override {
        const std::size_t number = ticket.number;
        if (number >= descriptors_.size() || descriptors_[number] < 0) detail::throw_damaged("no such descriptor");
        return std::exchange(descriptors_[number], -1);
    }
    ~Carried() {
        for (const int descriptor : descriptors_) {
            if (descriptor >= 0) ::close(descriptor);
        }
    }

private:
    std::vector<int> descriptors_;
};

SharedMemory sent(const SharedMemory& memory) {
    Carried carried;
    detail::VectorGrowth growth;
    detail::Writer writer({}, growth, &carried);
    detail::encode(writer, memory);
    detail::Reader reader(writer.bytes(), &carried);
    auto received = detail::decode<SharedMemory>(reader);
    reader.expect_end();
    return received;
}

TEST(SharedMemoryTest, anonymous_memory_is_zero_has_its_size_and_is_seen_by_a_child) {
    const SharedMemory memory(10'000);
    EXPECT_EQ(memory.size(), 10'000u);
    EXPECT_EQ(memory.bytes().size(), 10'000u);
    EXPECT_TRUE(memory.name().empty());
    EXPECT_TRUE(std::ranges::all_of(memory.bytes(), [](std::byte byte) { return byte == std::byte{0}; }));
    const auto numbers = memory.as<int>();
    EXPECT_EQ(numbers.size(), 2'500u);
    EXPECT_EQ(in_child([&] {
                  numbers[2'499] = 7;
                  return 0;
              }),
              0);
    EXPECT_EQ(numbers[2'499], 7);
    memory.check();
}

TEST(SharedMemoryTest, a_copy_is_the_same_memory_and_outlives_the_first) {
    SharedMemory first(100);
    const SharedMemory second = first;
    first.data()[5] = std::byte{9};
    first.close();
    EXPECT_FALSE(first);
    EXPECT_TRUE(second);
    EXPECT_EQ(second.data()[5], std::byte{9});
}

TEST(SharedMemoryTest, nobody_can_change_the_size_of_anonymous_memory) {
    const SharedMemory memory(4096);
    EXPECT_NE(::ftruncate(memory.fileno(), 0), 0);
    EXPECT_NE(::ftruncate(memory.fileno(), 1 << 20), 0);
    memory.check();
}

TEST(SharedMemoryTest, an_empty_handle_says_so) {
    SharedMemory memory;
    EXPECT_FALSE(memory);
    sentence_of([&] { memory.data(); });
    sentence_of([&] { static_cast<void>(memory.size()); });
    sentence_of([&] { memory.unlink(); });
    memory.close();
}

TEST(SharedMemoryTest, impossible_sizes_and_names_are_refused_with_a_sentence) {
    sentence_of([] { SharedMemory memory(0); });
    sentence_of([] { SharedMemory memory(std::numeric_limits<std::size_t>::max()); });
    sentence_of([] { SharedMemory memory(std::size_t{1} << 60); });
    const std::string name = fresh_name();
    sentence_of([&] { SharedMemory::create(name, 0); });
    sentence_of([&] { SharedMemory::create(name, std::numeric_limits<std::size_t>::max()); });
    const std::string no_room = sentence_of([&] { SharedMemory::create(name, std::size_t{1} << 50); });
    EXPECT_NE(no_room.find(name), std::string::npos) << no_room;
    EXPECT_FALSE(exists(name)) << "a segment that could not be made left its name behind";
    for (const std::string& bad : {std::string(), std::string("/"), std::string("a/b"), std::string(".."),
                                   std::string("a\0b", 3), std::string(300, 'x')}) {
        sentence_of([&] { SharedMemory::create(bad, 10); });
        sentence_of([&] { SharedMemory::attach(bad); });
    }
}

TEST(SharedMemoryTest, a_named_segment_is_unlinked_by_its_creator_and_by_nobody_else) {
    const std::string name = fresh_name();
    {
        const SharedMemory memory = SharedMemory::create(name, 5'000);
        EXPECT_EQ(memory.name(), name);
        EXPECT_TRUE(exists(name));
        memory.as<char>()[0] = 'x';
        {
            const SharedMemory attached = SharedMemory::attach(name);
            EXPECT_EQ(attached.size(), 5'000u);
            EXPECT_EQ(attached.as<char>()[0], 'x');
            EXPECT_NE(attached.data(), memory.data());
        }
        EXPECT_TRUE(exists(name)) << "attaching took the name away";
        // A forked copy of the creator's handle has no duty, and neither has a child that attaches.
        EXPECT_EQ(in_child([&] {
                      SharedMemory copy = memory;
                      const_cast<SharedMemory&>(memory).close();
                      copy.close();
                      SharedMemory::attach("/" + name).close();
                      return 0;
                  }),
                  0);
        EXPECT_TRUE(exists(name)) << "a child took the name away";
        const SharedMemory copy = memory;
    }
    EXPECT_FALSE(exists(name)) << "the creator's last handle left the name behind";
    EXPECT_FALSE(SharedMemory::try_attach(name));
    EXPECT_NE(sentence_of([&] { SharedMemory::attach(name); }).find(name), std::string::npos);
}

TEST(SharedMemoryTest, keep_and_release_leave_the_name_to_somebody_else) {
    const std::string name = fresh_name();
    SharedMemory::create(name, 10, {.keep = true}).close();
    EXPECT_TRUE(exists(name));
    SharedMemory attached = SharedMemory::attach(name);
    attached.unlink();
    EXPECT_FALSE(exists(name));
    sentence_of([&] { attached.unlink(); });

    SharedMemory memory = SharedMemory::create(name, 10);
    memory.release();
    memory.close();
    EXPECT_TRUE(exists(name));
    SharedMemory::attach(name).unlink();
    EXPECT_FALSE(exists(name));
}

TEST(SharedMemoryTest, a_taken_name_is_refused_and_its_segment_left_alone) {
    const std::string name = fresh_name();
    const SharedMemory memory = SharedMemory::create(name, 10);
    memory.as<char>()[0] = 'x';
    sentence_of([&] { SharedMemory::create(name, 20); });
    EXPECT_TRUE(exists(name));
    EXPECT_EQ(SharedMemory::attach(name).as<char>()[0], 'x');
}

TEST(SharedMemoryTest, a_name_that_means_another_segment_by_now_is_left_alone) {
    const std::string name = fresh_name();
    SharedMemory first = SharedMemory::create(name, 10);
    ASSERT_EQ(::shm_unlink(("/" + name).c_str()), 0);
    const SharedMemory second = SharedMemory::create(name, 10);
    first.close();
    EXPECT_TRUE(exists(name));
    SharedMemory third = SharedMemory::attach(name);
    ASSERT_EQ(::shm_unlink(("/" + name).c_str()), 0);
    sentence_of([&] { third.unlink(); });
}

TEST(SharedMemoryTest, chosen_names_look_as_pythons_and_differ) {
    const SharedMemory first = SharedMemory::create_named(10);
    const SharedMemory second = SharedMemory::create_named(10);
    EXPECT_EQ(first.name().size(), 12U);
    EXPECT_EQ(first.name().find_first_not_of("0123456789abcdef", 4), std::string::npos) << first.name();
    EXPECT_TRUE(first.name().starts_with("psm_")) << first.name();
    EXPECT_NE(first.name(), second.name());
}

TEST(SharedMemoryTest, a_segment_that_is_too_small_is_not_attached_to) {
    const std::string name = fresh_name();
    const SharedMemory memory = SharedMemory::create(name, 100);
    EXPECT_EQ(SharedMemory::attach(name, 100).size(), 100u);
    sentence_of([&] { SharedMemory::attach(name, 101); });
    // Between making a segment and sizing it, it has no byte yet.
    ASSERT_EQ(::ftruncate(memory.fileno(), 0), 0);
    sentence_of([&] { SharedMemory::attach(name); });
    sentence_of([&] { SharedMemory::attach(name, 0); });
}

TEST(SharedMemoryTest, a_segment_that_another_program_cut_short_is_noticed) {
    const SharedMemory memory = SharedMemory::create(fresh_name(), 3 * 4096);
    memory.check();
    ASSERT_EQ(::ftruncate(memory.fileno(), 4096), 0);
    const std::string text = sentence_of([&] { memory.check(); });
    EXPECT_NE(text.find("SIGBUS"), std::string::npos);
    memory.data()[0] = std::byte{1};
}

TEST(SharedMemoryTest, a_handle_travels_by_descriptor_or_by_name) {
    static_assert(multihull::Travels<SharedMemory>);
    const SharedMemory anonymous(1'000);
    anonymous.as<char>()[999] = 'a';
    const SharedMemory received = sent(anonymous);
    EXPECT_EQ(received.size(), 1'000u);
    EXPECT_NE(received.data(), anonymous.data());
    EXPECT_EQ(received.as<char>()[999], 'a');
    EXPECT_FALSE(sent(SharedMemory()));

    SharedMemory named = SharedMemory::create(fresh_name(), 1'000);
    named.as<char>()[999] = 'n';
    {
        const SharedMemory attached = sent(named);
        EXPECT_EQ(attached.name(), named.name());
        EXPECT_EQ(attached.as<char>()[999], 'n');
    }
    EXPECT_TRUE(exists(named.name())) << "who received it took the name away";
    named.unlink();
    EXPECT_EQ(sent(named).as<char>()[999], 'n') << "an unlinked segment is still there for who holds it";
}

TEST(SharedMemoryTest, a_name_that_was_used_again_on_the_way_is_noticed) {
    const std::string name = fresh_name();
    SharedMemory first = SharedMemory::create(name, 10);
    detail::VectorGrowth growth;
    detail::Writer writer({}, growth);
    detail::encode(writer, first);
    ASSERT_EQ(::shm_unlink(("/" + name).c_str()), 0);
    const SharedMemory second = SharedMemory::create(name, 10);
    detail::Reader reader(writer.bytes());
    sentence_of([&] { detail::decode<SharedMemory>(reader); });
}

TEST(SharedMemoryTest, damaged_bytes_are_refused) {
    const SharedMemory anonymous(1'000);
    for (const std::size_t wrong : {std::size_t{0}, std::size_t{1'001}, std::size_t{1} << 60}) {
        Carried carried;
        detail::VectorGrowth growth;
        detail::Writer writer({}, growth, &carried);
        detail::encode(writer, anonymous);
        writer.patch(2, wrong);    // behind the mark of a Codec, and the form
        detail::Reader reader(writer.bytes(), &carried);
        EXPECT_THROW(detail::decode<SharedMemory>(reader), multihull::CodecError);
    }
    const std::array<std::byte, 2> unknown{std::byte{detail::kUserMark}, std::byte{4}};
    detail::Reader reader(unknown);
    EXPECT_THROW(detail::decode<SharedMemory>(reader), multihull::CodecError);
}

TEST(SharedMemoryTest, python_attaches_by_name_and_numpy_computes_in_it) {
    const SharedMemory memory = SharedMemory::create(fresh_name(), 1'000 * sizeof(double));
    const auto numbers = memory.as<double>();
    for (std::size_t i = 0; i < numbers.size(); ++i) numbers[i] = static_cast<double>(i);
    const auto python = test::run_python(R"(
import sys
from multiprocessing import resource_tracker, shared_memory
shm = shared_memory.SharedMemory(sys.argv[1])
# Python before 3.13 tracks what it attaches to, and would unlink it at its end.
resource_tracker.unregister(shm._name, "shared_memory")
assert shm.size == 8000, shm.size
try:
    import numpy
    array = numpy.ndarray((1000,), dtype=numpy.float64, buffer=shm.buf)
    array *= 2
    print("numpy", array.sum())
    del array
except ImportError:
    import array
    numbers = shm.buf.cast("d")
    for i in range(1000): numbers[i] *= 2
    print("plain", sum(numbers))
    numbers.release()
shm.close()
)",
                                         {memory.name()});
    EXPECT_EQ(python.status, 0) << python.output;
    EXPECT_NE(python.output.find("999000.0"), std::string::npos) << python.output;
    if (test::python_has("numpy")) {
        EXPECT_NE(python.output.find("numpy"), std::string::npos) << python.output;
    }
    EXPECT_EQ(numbers[999], 1998.0);
    EXPECT_TRUE(exists(memory.name()));
}

TEST(SharedMemoryTest, we_attach_to_pythons_segment) {
    test::PythonPeer python(R"(
import sys
from multiprocessing import shared_memory
shm = shared_memory.SharedMemory(create=True, size=100)
shm.buf[:5] = b"hello"
print(shm.name, flush=True)
sys.stdin.readline()
print(bytes(shm.buf[5:11]).decode(), flush=True)
shm.close()
shm.unlink()
)");
    const std::string name = python.read_line();
    {
        const SharedMemory memory = SharedMemory::attach(name);
        EXPECT_GE(memory.size(), 100u);
        const auto text = memory.as<char>();
        EXPECT_EQ(std::string(text.data(), 5), "hello");
        std::ranges::copy(std::string(" there"), text.data() + 5);
    }
    EXPECT_TRUE(exists(name)) << "attaching took Python's name away";
    python.write_line("go");
    EXPECT_EQ(python.read_line(), " there");
    EXPECT_EQ(python.wait(), 0);
    EXPECT_FALSE(exists(name));
}

}    // namespace
