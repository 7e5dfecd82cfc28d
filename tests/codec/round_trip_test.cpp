// Every kind of value that travels arrives as it was sent.
#include "codec/samples.hpp"

#include <multihull/error.hpp>

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <new>
#include <numeric>
#include <ranges>
#include <thread>

namespace {

using multihull::CodecError;
using multihull::detail::Reader;
using multihull::detail::VectorGrowth;
using multihull::detail::Writer;
using samples::decoded;
using samples::encoded;

TEST(RoundTrip, EveryKindOfValue) {
    samples::for_each([]<class T>(const T& value) {
        static_assert(multihull::Travels<T>);
        EXPECT_TRUE(decoded<T>(encoded(value)) == value) << multihull::detail::type_name<T>();
    });
}

TEST(RoundTrip, EveryKindOfValueFromAnyAddress) {
    // Arguments stand behind one another, at addresses that suit none of them.
    samples::for_each([]<class T>(const T& value) {
        VectorGrowth growth;
        Writer writer({}, growth);
        multihull::detail::encode(writer, 'x');
        multihull::detail::encode(writer, value);
        Reader reader(writer.bytes());
        EXPECT_EQ(multihull::detail::decode<char>(reader), 'x');
        EXPECT_TRUE(multihull::detail::decode<T>(reader) == value) << multihull::detail::type_name<T>();
        EXPECT_EQ(reader.remaining(), 0U);
        // Where the bytes themselves stand is the transport's choice.
        std::vector<std::byte> moved(writer.size() + 1);
        std::ranges::copy(writer.bytes(), moved.begin() + 1);
        Reader odd(std::span<const std::byte>(moved).subspan(2));
        EXPECT_TRUE(multihull::detail::decode<T>(odd) == value) << multihull::detail::type_name<T>();
    });
}

TEST(RoundTrip, BigVectorsFromAnyAddress) {
    std::vector<double> values(100'000);
    std::iota(values.begin(), values.end(), 0.5);
    const auto sent = std::make_tuple('x', values, std::string(70'001, 's'), values);
    EXPECT_EQ(decoded<std::remove_const_t<decltype(sent)>>(encoded(sent)), sent);
}

TEST(RoundTrip, BytesAreCopiedWholeWhereverInAPageTheyBegin) {
    constexpr std::size_t kRoom = 16'384;
    std::vector<std::byte> from(kRoom);
    for (std::size_t i = 0; i < kRoom; ++i) from[i] = static_cast<std::byte>(i * 7 % 251);
    for (const std::size_t size : {0U, 1U, 2048U, 2049U, 3072U, 5000U, 9000U}) {
        for (std::size_t ahead = 0; ahead < 40; ++ahead) {
            std::vector<std::byte> to(kRoom, std::byte{0xff});
            const auto odd =
                (reinterpret_cast<std::uintptr_t>(from.data()) - reinterpret_cast<std::uintptr_t>(to.data()));
            const std::size_t at = (odd + ahead) % 4096;
            multihull::detail::copy_bytes(to.data() + at, from.data(), size);
            EXPECT_TRUE(std::equal(from.begin(), from.begin() + static_cast<std::ptrdiff_t>(size),
                                   to.begin() + static_cast<std::ptrdiff_t>(at)));
            EXPECT_EQ(std::ranges::count(to, std::byte{0xff}), static_cast<std::ptrdiff_t>(kRoom - size));
            EXPECT_EQ(multihull::detail::copies_slowly(to.data() + at, from.data(), size),
                      size > 2048 && ahead > 0 && ahead < 32);
        }
    }
}

TEST(RoundTrip, BigVectorsArriveWhereverTheirBytesBegin) {
    // The vector that is made lies in the same place of a page each time, so some of these bytes are copied to it in pieces.
    std::vector<std::array<char, 12>> values(30'000);
    for (std::size_t i = 0; i < values.size(); ++i) values[i] = {static_cast<char>(i), 'x', static_cast<char>(i / 256)};
    for (std::size_t before = 0; before < 64; ++before) {
        const auto sent = std::make_tuple(std::string(before, 'b'), values, std::string(20'000, 's'));
        EXPECT_EQ(decoded<std::remove_const_t<decltype(sent)>>(encoded(sent)), sent);
    }
}

TEST(RoundTrip, ASpanIsReadInPlaceWhereItStandsAsInAnArray) {
    using multihull::detail::SpanHolder;
    const std::vector<double> values{1.5, 2.5, 3.5};
    std::vector<std::byte> bytes = encoded(std::make_tuple('x', values));
    for (const std::size_t shift : {0U, 1U, 8U}) {
        std::vector<std::byte> moved(bytes.size() + 8);
        std::ranges::copy(bytes, moved.begin() + static_cast<std::ptrdiff_t>(shift));
        Reader reader(std::span<const std::byte>(moved).subspan(shift, bytes.size()));
        EXPECT_EQ(multihull::detail::decode<char>(reader), 'x');
        SpanHolder<double> first = SpanHolder<double>::decode(reader);
        const SpanHolder<double> holder = std::move(first);
        const std::span<const double> elements = holder;
        EXPECT_TRUE(std::ranges::equal(elements, values));
        const auto* const place = reinterpret_cast<const std::byte*>(elements.data());
        EXPECT_EQ(place >= moved.data() && place < moved.data() + moved.size(), shift % alignof(double) == 0) << shift;
        EXPECT_EQ(reader.remaining(), 0U);
    }
    for (std::size_t size = 0; size < bytes.size(); ++size) {
        Reader cut(std::span<const std::byte>(bytes).first(size).subspan(size == 0 ? 0 : 1));
        EXPECT_THROW(SpanHolder<double>::decode(cut), CodecError) << size;
    }
}

TEST(RoundTrip, AGeneratedRangeTravelsAsItsDescription) {
    const auto bytes = encoded(std::views::iota(3, 1'000'000));
    EXPECT_EQ(bytes.size(), 2 * sizeof(int));
    EXPECT_TRUE(std::ranges::equal(decoded<std::ranges::iota_view<int, int>>(bytes), std::views::iota(3, 1'000'000)));
}

TEST(RoundTrip, AnEmptyValueIsEncodedTheSameWhateverItsByteHolds) {
    using Either = std::variant<std::monostate, int>;
    alignas(Either) std::array<std::byte, sizeof(Either)> memory;
    memory.fill(std::byte{0xa5});
    const auto* const value = new (memory.data()) Either;
    EXPECT_EQ(encoded(*value), samples::Bytes(3));
}

TEST(RoundTrip, Pointers) {
    auto list = std::make_unique<samples::Link>();
    list->value = 1;
    list->next = std::make_unique<samples::Link>();
    list->next->value = 2;
    const auto back = decoded<std::unique_ptr<samples::Link>>(encoded(list));
    ASSERT_NE(back, nullptr);
    EXPECT_EQ(back->value, 1);
    ASSERT_NE(back->next, nullptr);
    EXPECT_EQ(back->next->value, 2);
    EXPECT_EQ(back->next->next, nullptr);
    EXPECT_EQ(decoded<std::unique_ptr<const int>>(encoded(std::unique_ptr<const int>())), nullptr);
}

TEST(RoundTrip, SharedPointersStayShared) {
    const auto person = std::make_shared<const samples::Person>(samples::Person{"Ada", 36, {}, {}});
    const std::tuple sent(person, std::vector{person, std::shared_ptr<const samples::Person>()},
                          std::make_shared<const samples::Person>(*person));
    const auto [first, list, other] = decoded<std::remove_const_t<decltype(sent)>>(encoded(sent));
    EXPECT_EQ(first->name, "Ada");
    EXPECT_EQ(list.at(0), first);
    EXPECT_EQ(list.at(1), nullptr);
    EXPECT_NE(other, first);
    EXPECT_EQ(*other, *first);
}

TEST(RoundTrip, SharedPointersOfTwoValuesAreApart) {
    // Two values written one after another can be read by two readers.
    const auto number = std::make_shared<int>(5);
    VectorGrowth growth;
    Writer writer({}, growth);
    multihull::detail::encode(writer, number);
    const std::size_t half = writer.size();
    multihull::detail::encode(writer, number);
    Reader second(writer.bytes().subspan(half));
    EXPECT_EQ(*multihull::detail::decode<std::shared_ptr<int>>(second), 5);
}

struct Ring {
    std::shared_ptr<Ring> next;
};

TEST(RoundTrip, ACircleOfSharedPointersIsRefused) {
    auto ring = std::make_shared<Ring>();
    ring->next = ring;
    EXPECT_THROW(encoded(ring), CodecError);
    ring->next = nullptr;
}

TEST(RoundTrip, ListsAreRefusedWhenTooDeep) {
    std::unique_ptr<samples::Link> list;
    const auto add = [&] {
        auto link = std::make_unique<samples::Link>();
        link->next = std::move(list);
        list = std::move(link);
    };
    for (std::uint32_t i = 0; i + 1 < multihull::detail::kMaxDepth; ++i) add();
    EXPECT_EQ(encoded(decoded<decltype(list)>(encoded(list))), encoded(list));
    add();
    add();
    EXPECT_THROW(encoded(list), CodecError);
}

TEST(RoundTrip, TheVersionOfACerealTypeTravels) {
    EXPECT_EQ(decoded<samples::Versioned>(encoded(samples::Versioned{1})).seen, 7U);
}

TEST(RoundTrip, ATypeThatCanOnlyBeMovedTravelsByItsCodec) {
    static_assert(multihull::Travels<samples::Ticket>);
    std::vector<samples::Ticket> tickets;
    tickets.emplace_back(17);
    tickets.emplace_back(18);
    const auto bytes = encoded(tickets);
    EXPECT_EQ(tickets[0].number(), 0);
    const auto back = decoded<std::vector<samples::Ticket>>(bytes);
    EXPECT_EQ(back.at(0).number(), 17);
    EXPECT_EQ(back.at(1).number(), 18);
}

class Descriptors final : public multihull::detail::Attachments {
public:
    multihull::detail::DescriptorTicket put(int descriptor) override {
        descriptors_.push_back(descriptor);
        return {0, static_cast<std::uint32_t>(descriptors_.size()), 0};
    }
    int take(const multihull::detail::DescriptorTicket& ticket) override { return descriptors_.at(ticket.number - 1); }

private:
    std::vector<int> descriptors_;
};

TEST(RoundTrip, DescriptorsTravelBesideTheBytes) {
    Descriptors descriptors;
    VectorGrowth growth;
    Writer writer({}, growth, &descriptors);
    writer.attach(5);
    writer.attach(9);
    Reader reader(writer.bytes(), &descriptors);
    EXPECT_EQ(reader.detach(), 5);
    EXPECT_EQ(reader.detach(), 9);
    Reader blind(writer.bytes());
    EXPECT_THROW(blind.detach(), CodecError);
}

// Counts what is copied when room runs out.
class CountingGrowth final : public multihull::detail::Growth {
public:
    std::span<std::byte> grow(std::span<const std::byte> used, std::size_t capacity) override {
        copied += used.size();
        ++times;
        last = capacity;
        return under_.grow(used, capacity);
    }
    std::size_t copied = 0;
    std::size_t last = 0;
    int times = 0;

private:
    VectorGrowth under_;
};

TEST(Writer, ABigVectorIsCopiedOnceIntoARoomOfItsSize) {
    std::array<std::byte, 64> first;
    CountingGrowth growth;
    Writer writer(first, growth);
    const std::vector<double> values(1'000'000, 0.5);
    multihull::detail::encode(writer, values);
    EXPECT_EQ(growth.times, 1);
    EXPECT_LE(growth.copied, 8U);
    EXPECT_LT(growth.last, values.size() * sizeof(double) * 11 / 10);
}

TEST(Writer, ElementsStandWhereAnArrayWould) {
    VectorGrowth growth;
    Writer writer({}, growth);
    const std::tuple sent(std::string("abc"), std::vector<double>{1, 2}, 'x', std::vector<std::complex<long double>>(2),
                          'y', std::vector<double>{});
    multihull::detail::encode(writer, sent);
    EXPECT_EQ(encoded(sent).size(), writer.size());
    const auto offset_of = [&](double value) {
        std::array<std::byte, sizeof value> bytes;
        std::memcpy(bytes.data(), &value, sizeof value);
        return std::ranges::search(writer.bytes(), bytes).begin() - writer.bytes().begin();
    };
    EXPECT_EQ(offset_of(1) % 8, 0);
    EXPECT_EQ(offset_of(2), offset_of(1) + 8);
    EXPECT_EQ(decoded<std::remove_const_t<decltype(sent)>>(writer.bytes()), sent);
}

TEST(Writer, ManySmallValuesDouble) {
    CountingGrowth growth;
    Writer writer({}, growth);
    for (int i = 0; i < 1'000'000; ++i) multihull::detail::encode(writer, i);
    EXPECT_LT(growth.times, 25);
    EXPECT_LT(growth.copied, 2 * writer.size());
}

TEST(Writer, StaysInTheSpanItWasGiven) {
    std::array<std::byte, 12> room;
    CountingGrowth growth;
    Writer writer(room, growth);
    multihull::detail::encode(writer, std::tuple(1, 2.5));
    EXPECT_EQ(growth.times, 0);
    EXPECT_EQ(writer.bytes().data(), room.data());
    EXPECT_EQ(writer.size(), 12U);
}

TEST(Writer, KeepsWhatItHasWhenThereIsNoRoom) {
    struct NoGrowth final : multihull::detail::Growth {
        std::span<std::byte> grow(std::span<const std::byte>, std::size_t) override { throw std::bad_alloc(); }
    } none;
    std::array<std::byte, 16> room;
    Writer writer(room, none);
    multihull::detail::encode(writer, 7);
    EXPECT_THROW(multihull::detail::encode(writer, std::vector<int>(100)), std::bad_alloc);
    writer.truncate(4);
    multihull::detail::encode(writer, 8);
    EXPECT_EQ((decoded<std::pair<int, int>>(writer.bytes())), std::pair(7, 8));
}

TEST(RoundTrip, FromManyThreadsAtOnce) {
    std::vector<std::jthread> threads;
    for (int i = 0; i < 4; ++i) {
        threads.emplace_back([] {
            for (int round = 0; round < 200; ++round) {
                const std::vector<samples::Versioned> sent{samples::Versioned{round}};
                EXPECT_EQ(decoded<std::vector<samples::Versioned>>(encoded(sent)), sent);
            }
        });
    }
}

}    // namespace
