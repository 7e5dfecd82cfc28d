// Bytes that are cut short, damaged or made up: CodecError and nothing else, and no more memory than they are worth.
#include "codec/samples.hpp"

#include <multihull/error.hpp>

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <limits>
#include <new>
#include <random>
#include <type_traits>

namespace {

thread_local std::size_t allocated = 0;    // bytes that this thread asked for since it was last set to 0

}    // namespace

// Not inlined, or the compiler sees new and free() side by side and warns.
[[gnu::noinline]] void* operator new(std::size_t size) {
    allocated += size;
    if (void* const memory = std::malloc(size == 0 ? 1 : size)) {
        return memory;
    }
    throw std::bad_alloc();
}
[[gnu::noinline]] void operator delete(void* memory) noexcept { std::free(memory); }
[[gnu::noinline]] void operator delete(void* memory, std::size_t) noexcept { std::free(memory); }

namespace {

using multihull::CodecError;
using samples::Bytes;
using samples::decoded;
using samples::encoded;

// How many bytes a decoder may ask for in all, for each byte that it is given: nodes, tables, strings that start small.
constexpr std::size_t kBytesPerByte = 512;

template <class T>
void expect_sane(std::span<const std::byte> bytes) {
    allocated = 0;
    try {
        multihull::detail::Reader reader(bytes);
        static_cast<void>(multihull::detail::decode<T>(reader));
    } catch (const CodecError&) {}
    EXPECT_LE(allocated, 4096 + sizeof(T) + kBytesPerByte * bytes.size()) << multihull::detail::type_name<T>();
}

// The samples, and what can't be compared.
template <class Visit>
void for_each_sample(Visit visit) {
    samples::for_each(visit);
    auto list = std::make_unique<samples::Link>();
    list->next = std::make_unique<samples::Link>();
    visit(list);
    const auto shared = std::make_shared<std::string>("shared");
    visit(std::vector{shared, shared, std::shared_ptr<std::string>()});
    visit(std::tuple(shared, std::make_shared<int>(1), shared));
    visit(std::make_exception_ptr(std::out_of_range("far out")));
}

TEST(Hostile, EveryTruncationIsNoticed) {
    for_each_sample([]<class T>(const T& value) {
        const Bytes whole = encoded(value);
        for (std::size_t size = 0; size < whole.size(); size += size < 2000 ? 1 : 97) {
            const Bytes cut(whole.begin(), whole.begin() + static_cast<std::ptrdiff_t>(size));
            EXPECT_THROW(decoded<T>(cut), CodecError) << multihull::detail::type_name<T>() << " cut to " << size;
            expect_sane<T>(cut);
        }
    });
}

TEST(Hostile, DamagedBytes) {
    std::mt19937 random(4711);
    for_each_sample([&]<class T>(const T& value) {
        const Bytes whole = encoded(value);
        for (int round = 0; round < 300; ++round) {
            Bytes damaged = whole;
            for (unsigned flips = random() % 4 + 1; flips != 0; --flips) {
                // Lengths stand at the beginning.
                const std::size_t range =
                    random() % 2 == 0 ? std::min<std::size_t>(damaged.size(), 16) : damaged.size();
                damaged[random() % range] ^= static_cast<std::byte>(1U << random() % 8);
            }
            expect_sane<T>(damaged);
        }
    });
}

TEST(Hostile, BytesOfAnythingElse) {
    std::mt19937 random(815);
    for_each_sample([&]<class T>(const T&) {
        for (int round = 0; round < 300; ++round) {
            Bytes bytes(random() % 200);
            const bool small = random() % 2 == 0;    // counts that could be true
            for (std::byte& byte : bytes) {
                byte = static_cast<std::byte>(small ? (random() % 4 == 0 ? random() % 8 : 0) : random() % 256);
            }
            expect_sane<T>(bytes);
        }
    });
}

template <class T>
Bytes with_length(std::uint64_t length) {
    Bytes bytes(200);
    std::memcpy(bytes.data(), &length, sizeof length);
    return bytes;
}

TEST(Hostile, LengthsThatTheRestCannotHold) {
    for (const std::uint64_t length :
         {std::uint64_t{193}, std::uint64_t{1} << 32, std::uint64_t{1} << 61, (std::uint64_t{1} << 61) + 1,
          (std::uint64_t{1} << 63) + 24, std::numeric_limits<std::uint64_t>::max()}) {
        const auto refused = [&]<class T>(std::type_identity<T>) {
            EXPECT_THROW(decoded<T>(with_length<T>(length)), CodecError)
                << multihull::detail::type_name<T>() << ' ' << length;
            expect_sane<T>(with_length<T>(length));
        };
        refused(std::type_identity<std::string>{});
        refused(std::type_identity<std::vector<char>>{});
        refused(std::type_identity<std::vector<double>>{});
        refused(std::type_identity<std::vector<samples::Empty>>{});
        refused(std::type_identity<std::vector<std::tuple<>>>{});
        refused(std::type_identity<std::vector<samples::Silent>>{});
        refused(std::type_identity<std::vector<std::string>>{});
        refused(std::type_identity<std::vector<std::pair<char, double>>>{});
        refused(std::type_identity<std::deque<char>>{});
        refused(std::type_identity<std::forward_list<char>>{});
        refused(std::type_identity<std::unordered_set<char>>{});
        refused(std::type_identity<std::map<char, char>>{});
        refused(std::type_identity<std::filesystem::path>{});
    }
    EXPECT_THROW(decoded<std::vector<bool>>(with_length<std::vector<bool>>(8 * 192 + 1)), CodecError);
    EXPECT_THROW(decoded<std::vector<bool>>(with_length<std::vector<bool>>(std::numeric_limits<std::uint64_t>::max())),
                 CodecError);
}

TEST(Hostile, ASizeTagIsBoundedByWhatFollows) {
    Bytes bytes = encoded(samples::Matrix(2, {1, 2, 3, 4}));
    const std::uint64_t length = bytes.size();    // the tag stands behind a mark and a number
    std::memcpy(bytes.data() + 1 + sizeof(std::size_t), &length, sizeof length);
    EXPECT_THROW(decoded<samples::Matrix>(bytes), CodecError);
}

TEST(Hostile, ManyElementsOfABigTypeTakeNoMemoryAhead) {
    using Element = std::optional<std::array<double, 1000>>;    // 8 KB, or one byte when encoded
    Bytes bytes(30'000, std::byte{7});
    const std::uint64_t length = 29'992;
    std::memcpy(bytes.data(), &length, sizeof length);
    allocated = 0;
    EXPECT_THROW(decoded<std::vector<Element>>(bytes), CodecError);
    EXPECT_LE(allocated, 16 * bytes.size());
}

TEST(Hostile, NestingIsBounded) {
    // A link that never ends: number, then "there is another one".
    Bytes endless(100'000, std::byte{1});
    EXPECT_THROW(decoded<std::unique_ptr<samples::Link>>(endless), CodecError);
    expect_sane<std::unique_ptr<samples::Link>>(endless);
}

TEST(Hostile, BoolsAndFlagsAreOneOrZero) {
    EXPECT_THROW(decoded<bool>(Bytes{std::byte{2}}), CodecError);
    EXPECT_THROW(decoded<std::optional<char>>(Bytes{std::byte{2}, std::byte{0}}), CodecError);
    EXPECT_THROW((decoded<std::tuple<char, bool>>(Bytes{std::byte{2}, std::byte{255}})), CodecError);
    EXPECT_THROW((decoded<std::variant<char, bool>>(Bytes{std::byte{2}, std::byte{0}, std::byte{0}})), CodecError);
}

TEST(Hostile, SharedPointersOfAnotherType) {
    // The second pointer is made to name the first, which is of another type.
    Bytes bytes = encoded(std::tuple(std::make_shared<int>(1), std::make_shared<std::string>("")));
    const std::uint32_t first = 1;
    std::memcpy(bytes.data() + 8, &first, sizeof first);
    EXPECT_THROW((decoded<std::tuple<std::shared_ptr<int>, std::shared_ptr<std::string>>>(bytes)), CodecError);
}

struct Ring {
    std::shared_ptr<Ring> next;
};

TEST(Hostile, ASharedPointerToWhatIsBeingRead) {
    Bytes bytes = encoded(std::make_shared<Ring>());
    const std::uint32_t itself = 1;
    std::memcpy(bytes.data() + 4, &itself, sizeof itself);
    EXPECT_THROW(decoded<std::shared_ptr<Ring>>(bytes), CodecError);
}

TEST(Hostile, LeftOverBytesAreNoticedWhenAskedFor) { EXPECT_THROW(decoded<int>(Bytes(5)), CodecError); }

}    // namespace
