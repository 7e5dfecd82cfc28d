// Equal contents have equal hashes, other contents others, whatever lies in padding and in whichever order a container keeps things.
#include <multihull/content_hash.hpp>
#include <multihull/error.hpp>
#include <multihull/queue.hpp>

#include <gtest/gtest.h>

#include <array>
#include <bit>
#include <chrono>
#include <complex>
#include <cstring>
#include <deque>
#include <filesystem>
#include <forward_list>
#include <limits>
#include <list>
#include <map>
#include <memory>
#include <new>
#include <optional>
#include <set>
#include <string>
#include <tuple>
#include <unordered_map>
#include <unordered_set>
#include <variant>
#include <vector>

// Named, as clang has no use for a stand-in of an optional of what it can't name elsewhere.
namespace samples {

struct Padded {
    char letter = 'a';
    double number = 1;
    std::int16_t small = 2;
};
struct Packed {
    std::int32_t a = 1;
    float b = 2;
};
struct Nested {
    std::vector<Padded> many;
    std::optional<Packed> maybe;
    std::array<Padded, 2> two;
    std::int8_t raw[3] = {1, 2, 3};
};
struct Tree {
    int value = 0;
    std::vector<Tree> children;
};

}    // namespace samples

namespace {

using multihull::content_hash;
using multihull::Hash128;
using multihull::Hashable;
using samples::Nested;
using samples::Packed;
using samples::Padded;
using samples::Tree;

// The same fields, with other bytes between them.
template <class T>
struct WithPadding {
    explicit WithPadding(unsigned char fill) {
        std::memset(bytes, fill, sizeof bytes);
        value = new (bytes) T;
    }
    alignas(T) unsigned char bytes[sizeof(T)];
    T* value;
};

TEST(ContentHash, DoesNotSeePadding) {
    // Fields are assigned one by one: whatever the compiler copies with a struct, padding is not meant.
    WithPadding<Padded> zeros(0);
    WithPadding<Padded> ones(0xff);
    EXPECT_EQ(content_hash(*zeros.value), content_hash(*ones.value));
    WithPadding<std::array<Padded, 3>> zero_array(0);
    WithPadding<std::array<Padded, 3>> one_array(0xff);
    EXPECT_EQ(content_hash(*zero_array.value), content_hash(*one_array.value));

    std::vector<Padded> many(3);
    std::vector<Padded> others(3);
    std::memset(static_cast<void*>(others.data()), 0xff, others.size() * sizeof(Padded));
    for (Padded& one : others) {
        one.letter = 'a';
        one.number = 1;
        one.small = 2;
    }
    EXPECT_EQ(content_hash(many), content_hash(others));
    others[2].small = 3;
    EXPECT_NE(content_hash(many), content_hash(others));
    static_assert(!multihull::detail::kHashedAsBytes<Padded> && multihull::detail::kHashedAsBytes<Packed>);
    static_assert(multihull::detail::kHashedAsBytes<double> && !multihull::detail::kHashedAsBytes<long double>);

    long double a;
    long double b;
    std::memset(&a, 0, sizeof a);
    std::memset(&b, 0xff, sizeof b);
    a = 1.5L;
    b = 1.5L;
    EXPECT_EQ(content_hash(a), content_hash(b));
}

TEST(ContentHash, GoesByBitsOfNumbers) {
    EXPECT_NE(content_hash(0.0), content_hash(-0.0));
    const double nan = std::numeric_limits<double>::quiet_NaN();
    EXPECT_EQ(content_hash(nan), content_hash(nan));
    EXPECT_NE(content_hash(nan), content_hash(-nan));
    EXPECT_NE(content_hash(1.0), content_hash(1.0000000000000002));
    EXPECT_NE(content_hash(std::complex<double>(1, 2)), content_hash(std::complex<double>(2, 1)));
}

TEST(ContentHash, TellsTypesApart) {
    std::set<Hash128> hashes{content_hash(1),
                             content_hash(1L),
                             content_hash(1U),
                             content_hash('\1'),
                             content_hash(true),
                             content_hash(std::vector<int>{1}),
                             content_hash(std::deque<int>{1}),
                             content_hash(std::set<int>{1}),
                             content_hash(std::optional<int>(1)),
                             content_hash(std::tuple<int>(1)),
                             content_hash(std::tuple<int, int>(1, 0)),
                             content_hash(std::vector<long>{1}),
                             content_hash(std::string("\1", 1)),
                             content_hash(std::chrono::seconds(1)),
                             content_hash(std::chrono::milliseconds(1))};
    EXPECT_EQ(hashes.size(), 15U);
}

TEST(ContentHash, KeepsPartsApart) {
    using Words = std::vector<std::string>;
    EXPECT_NE(content_hash(Words{"ab", "c"}), content_hash(Words{"a", "bc"}));
    EXPECT_NE(content_hash(Words{}), content_hash(Words{""}));
    EXPECT_NE(content_hash(std::pair<Words, Words>{{"a"}, {}}), content_hash(std::pair<Words, Words>{{}, {"a"}}));
    EXPECT_NE(content_hash(std::optional<int>()), content_hash(std::optional<int>(0)));
    EXPECT_NE(content_hash(std::variant<int, int>(std::in_place_index<0>, 1)),
              content_hash(std::variant<int, int>(std::in_place_index<1>, 1)));
    EXPECT_NE(content_hash(std::vector<bool>{true}), content_hash(std::vector<bool>{true, false}));
    EXPECT_EQ(content_hash(std::vector<bool>{true, false}), content_hash(std::vector<bool>{true, false}));
}

TEST(ContentHash, DoesNotSeeTheOrderOfUnorderedContainers) {
    std::unordered_map<std::string, std::vector<int>> one;
    std::unordered_map<std::string, std::vector<int>> other;
    other.reserve(10'000);
    for (int i = 0; i < 100; ++i) one[std::to_string(i)] = {i, i};
    for (int i = 99; i >= 0; --i) other[std::to_string(i)] = {i, i};
    EXPECT_EQ(content_hash(one), content_hash(other));
    other["7"].push_back(0);
    EXPECT_NE(content_hash(one), content_hash(other));

    const std::unordered_multiset<int> twice{1, 1, 2};
    const std::unordered_multiset<int> other_twice{1, 2, 2};
    EXPECT_NE(content_hash(twice), content_hash(other_twice));
    using Sets = std::unordered_map<int, std::unordered_set<int>>;
    EXPECT_EQ(content_hash(Sets{{1, {1, 2, 3}}, {2, {4}}}), content_hash(Sets{{2, {4}}, {1, {3, 2, 1}}}));
}

TEST(ContentHash, LooksThroughPointers) {
    EXPECT_EQ(content_hash(std::make_unique<int>(3)), content_hash(std::make_unique<int>(3)));
    EXPECT_NE(content_hash(std::make_unique<int>(3)), content_hash(std::unique_ptr<int>()));
    EXPECT_EQ(content_hash(std::make_shared<Padded>()), content_hash(std::make_shared<Padded>()));

    Tree tree{1, {{2, {{3, {}}}}, {4, {}}}};
    EXPECT_EQ(content_hash(tree), content_hash(Tree(tree)));
    Tree other = tree;
    other.children[0].children[0].value = 5;
    EXPECT_NE(content_hash(tree), content_hash(other));
    EXPECT_NE(content_hash(Tree{1, {{2, {{3, {}}}}}}), content_hash(Tree{1, {{2, {}}, {3, {}}}}));

    EXPECT_NE(content_hash(Nested{}), content_hash(Nested{{}, Packed{}, {}, {1, 2, 3}}));
    EXPECT_NE(content_hash(Nested{}), content_hash(Nested{{}, {}, {}, {1, 2, 4}}));
}

struct Link {
    std::shared_ptr<Link> next;
};

TEST(ContentHash, EndsInCircles) {
    auto link = std::make_shared<Link>();
    link->next = link;
    EXPECT_THROW(content_hash(link), multihull::Error);
    link->next.reset();
}

class WithCereal {
public:
    WithCereal() = default;
    WithCereal(int number, std::unordered_set<int> numbers, Padded padded)
        : number_(number), numbers_(std::move(numbers)), padded_(padded) {}
    template <class Archive>
    void serialize(Archive& archive) {
        archive(cereal::make_nvp("number", number_), numbers_, padded_);
    }

private:
    int number_ = 0;
    std::unordered_set<int> numbers_;
    Padded padded_;
};

class Minimal {
public:
    explicit Minimal(int number = 0) : number_(number) {}
    template <class Archive>
    std::string save_minimal(const Archive&) const {
        return std::to_string(number_);
    }
    template <class Archive>
    void load_minimal(const Archive&, const std::string& text) {
        number_ = std::stoi(text);
    }

private:
    int number_;
};

TEST(ContentHash, TakesWhatCerealFunctionsHandIt) {
    EXPECT_EQ(content_hash(WithCereal(1, {1, 2, 3}, {})), content_hash(WithCereal(1, {3, 2, 1}, {})));
    EXPECT_NE(content_hash(WithCereal(1, {1, 2, 3}, {})), content_hash(WithCereal(1, {1, 2}, {})));
    EXPECT_NE(content_hash(WithCereal(1, {}, {})), content_hash(WithCereal(2, {}, {})));
    EXPECT_EQ(content_hash(Minimal(1)), content_hash(Minimal(1)));
    EXPECT_NE(content_hash(Minimal(1)), content_hash(Minimal(2)));
}

class Opaque {
public:
    explicit Opaque(double number, bool ignored) : number_(number), ignored_(ignored) {}
    double number() const { return number_; }
    bool ignored() const { return ignored_; }

private:
    double number_;
    bool ignored_;
};

class Private {
public:
    explicit Private(int number) : number_(number) {}
    int number() const { return number_; }

private:
    int number_;
};

class Unknown {
public:
    explicit Unknown(double number) : number_(number) {}
    double number() const { return number_; }

private:
    double number_;
};

}    // namespace

template <>
struct multihull::ContentHash<Opaque> {
    static void update(Hasher& hasher, const Opaque& value) { hasher.add(value.number()); }
};

namespace {

TEST(ContentHash, CanBeGivenByTheUser) {
    EXPECT_EQ(content_hash(Opaque(1, true)), content_hash(Opaque(1, false)));
    EXPECT_NE(content_hash(Opaque(1, true)), content_hash(Opaque(2, true)));
    EXPECT_EQ(content_hash(std::vector{Opaque(1, true)}), content_hash(std::vector{Opaque(1, false)}));
    EXPECT_NE(content_hash(Private(1)), content_hash(Private(2)));
}

TEST(ContentHash, KnowsWhatItCanHash) {
    static_assert(Hashable<std::map<std::string, std::list<std::forward_list<int>>>>);
    static_assert(Hashable<std::filesystem::path> && Hashable<std::chrono::duration<double>>);
    static_assert(Hashable<std::chrono::system_clock::time_point> && Hashable<Tree> && Hashable<Private>);
    static_assert(!Hashable<int*> && !Hashable<std::vector<int*>> && !Hashable<void (*)()> && !Hashable<Unknown>);
    static_assert(!Hashable<std::vector<Unknown>> && !Hashable<std::pair<int, Unknown>>);
    EXPECT_NE(content_hash(std::filesystem::path("/a")), content_hash(std::filesystem::path("/b")));
}

TEST(ContentHash, RefusesHandles) {
    const multihull::Queue<int> queue;
    EXPECT_THROW(content_hash(queue), multihull::Error);
}

TEST(ContentHash, IsTheSameInEveryBuild) {
    EXPECT_EQ(content_hash(std::uint32_t{1}).to_string(), content_hash(std::uint32_t{1}).to_string());
    multihull::Hasher hasher;
    EXPECT_EQ(hasher.digest().to_string(), "99aa06d3014798d86001c324468d497f");    // XXH3-128 of nothing
    hasher.bytes("abc", 3);
    EXPECT_EQ(hasher.digest().to_string(), "06b05ab6733a618578af5f94892f3950");
}

}    // namespace
