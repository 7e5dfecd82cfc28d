// Values of every kind that travels, for the tests that go over all of them.
#pragma once

#include <multihull/codec.hpp>

#include <bitset>
#include <chrono>
#include <compare>
#include <complex>
#include <cstdint>
#include <deque>
#include <filesystem>
#include <forward_list>
#include <list>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <system_error>
#include <tuple>
#include <unordered_map>
#include <unordered_set>
#include <variant>
#include <vector>

namespace samples {

using Bytes = std::vector<std::byte>;

template <class T>
Bytes encoded(T&& value) {
    multihull::detail::VectorGrowth growth;
    multihull::detail::Writer writer({}, growth);
    multihull::detail::encode(writer, value);
    return {writer.bytes().begin(), writer.bytes().end()};
}

template <class T>
T decoded(std::span<const std::byte> bytes) {
    multihull::detail::Reader reader(bytes);
    T value = multihull::detail::decode<T>(reader);
    reader.expect_end();
    return value;
}

enum class Colour : short { red = 1, green = -2 };

struct Point {
    double x = 0;
    double y = 0;
    bool operator==(const Point&) const = default;
};

struct Padded {
    char letter = 0;
    int number = 0;
    bool flag = false;
    bool operator==(const Padded&) const = default;
};

struct Person {
    std::string name;
    int age = 0;
    std::vector<Point> path;
    std::optional<std::string> nickname;
    bool operator==(const Person&) const = default;
};

struct WithArrays {
    int numbers[3];
    std::string words[2];
    Point grid[2][2];
    char name[300];
    bool flags[2];
    int last;
    bool operator==(const WithArrays&) const = default;
};

struct Tree {
    std::string name;
    std::vector<Tree> children;
    bool operator==(const Tree&) const = default;
};

struct Link {
    int value = 0;
    std::unique_ptr<Link> next;
};

struct Constant {
    const int number;
    const std::string text;
    bool operator==(const Constant&) const = default;
};

struct Empty {
    bool operator==(const Empty&) const = default;
};

class Opaque {
public:
    Opaque() = default;
    Opaque(int a, double b) : a_(a), b_(b) {}
    bool operator==(const Opaque&) const = default;

private:
    int a_ = 0;
    double b_ = 0;
};

struct alignas(256) Page {
    int number = 0;
    bool operator==(const Page&) const = default;
};

// Without a default constructor, and not an aggregate.
class Metre {
public:
    explicit Metre(double length) : length_(length) {}
    bool operator==(const Metre&) const = default;

private:
    double length_;
};

struct Room {
    Metre width;
    std::string name;
    bool operator==(const Room&) const = default;
};

// A cereal member function.
class Account {
public:
    Account() = default;
    Account(std::string owner, std::vector<int> amounts) : owner_(std::move(owner)), amounts_(std::move(amounts)) {}
    bool operator==(const Account&) const = default;

    template <class Archive>
    void serialize(Archive& archive) {
        archive(cereal::make_nvp("owner", owner_), CEREAL_NVP(amounts_));
    }

private:
    std::string owner_;
    std::vector<int> amounts_;
};

// Cereal functions beside the type, of which save() and load() differ.
class Matrix {
public:
    Matrix() = default;
    Matrix(std::size_t rows, std::vector<double> cells) : rows_(rows), cells_(std::move(cells)) {}
    bool operator==(const Matrix&) const = default;

    template <class Archive>
    friend void save(Archive& archive, const Matrix& matrix) {
        archive(matrix.rows_, cereal::make_size_tag(matrix.cells_.size()));
        archive(cereal::binary_data(matrix.cells_.data(), matrix.cells_.size() * sizeof(double)));
    }
    template <class Archive>
    friend void load(Archive& archive, Matrix& matrix) {
        cereal::size_type size = 0;
        archive(matrix.rows_, cereal::make_size_tag(size));
        matrix.cells_.resize(static_cast<std::size_t>(size));
        archive(cereal::binary_data(matrix.cells_.data(), matrix.cells_.size() * sizeof(double)));
    }

private:
    std::size_t rows_ = 0;
    std::vector<double> cells_;
};

// Holds another cereal type, containers of it, an aggregate and a C array.
struct Bank {
    std::map<std::string, Account> accounts;
    Account reserve;
    Person director;
    int digits[3] = {0, 0, 0};
    std::optional<std::variant<int, Account>> maybe;
    bool operator==(const Bank&) const = default;

    template <class Archive>
    void serialize(Archive& archive) {
        archive(accounts, reserve);
        archive& director& digits;
        archive(maybe);
    }
};

// A version, and a type that travels as another.
struct Versioned {
    int value = 0;
    std::uint32_t seen = 0;
    bool operator==(const Versioned& other) const { return value == other.value; }

    template <class Archive>
    void serialize(Archive& archive, std::uint32_t version) {
        archive(value);
        seen = version;
    }
};

struct Label {
    std::string text;
    bool operator==(const Label&) const = default;

    template <class Archive>
    std::string save_minimal(const Archive&) const {
        return text;
    }
    template <class Archive>
    void load_minimal(const Archive&, const std::string& value) {
        text = value;
    }
};

// Derives, and says so to cereal.
struct Titled : Label {
    int rank = 0;
    bool operator==(const Titled&) const = default;

    template <class Archive>
    void save(Archive& archive) const {
        archive(static_cast<const Label&>(*this), rank);
    }
    template <class Archive>
    void load(Archive& archive) {
        archive(static_cast<Label&>(*this), rank);
    }
};

struct Base {
    int base = 0;
    bool operator==(const Base&) const = default;

    template <class Archive>
    void serialize(Archive& archive) {
        archive(base);
    }
};
struct Child : Base {
    int own = 0;
    bool operator==(const Child&) const = default;

    template <class Archive>
    void serialize(Archive& archive) {
        archive(cereal::base_class<Base>(this), own);
    }
};

// Writes nothing at all.
struct Silent {
    bool operator==(const Silent&) const = default;

    template <class Archive>
    void serialize(Archive&) {}
};

// Has a Codec.
class Ticket {
public:
    explicit Ticket(int number) : number_(number) {}
    Ticket(Ticket&& other) noexcept : number_(std::exchange(other.number_, 0)) {}
    Ticket& operator=(Ticket&& other) noexcept {
        number_ = std::exchange(other.number_, 0);
        return *this;
    }
    int number() const { return number_; }
    int take() { return std::exchange(number_, 0); }

private:
    int number_;
};

}    // namespace samples

CEREAL_CLASS_VERSION(samples::Versioned, 7)
// Both a function inherited from the base and the type's own are there; the type's own are meant.
namespace cereal {
template <class Archive>
struct specialize<Archive, samples::Titled, cereal::specialization::member_load_save> {};
}    // namespace cereal

template <>
struct multihull::Codec<samples::Ticket> {
    static void encode(detail::Writer& writer, samples::Ticket& ticket) { detail::encode(writer, ticket.take()); }
    static samples::Ticket decode(detail::Reader& reader) { return samples::Ticket(detail::decode<int>(reader)); }
};

namespace samples {

/// Calls visit(value) with a value, or several, of every kind that can be compared.
template <class Visit>
void for_each(Visit visit) {
    using namespace std::chrono_literals;
    using namespace std::string_literals;
    visit(true);
    visit('x');
    visit(-42);
    visit(std::uint64_t{1} << 63);
    visit(2.5);
    visit(2.5L);
    visit(nullptr);
    visit(Colour::green);
    visit(std::byte{7});
    visit(std::string());
    visit("hello"s);
    visit(std::string(1000, 'z'));
    visit(L"wide"s);
    visit(u8"eight"s);
    visit(u"sixteen"s);
    visit(U"thirty-two"s);
    visit(std::filesystem::path("/tmp/a b"));
    visit(1500ms);
    visit(std::chrono::system_clock::time_point(123s));
    visit(std::complex<double>(1, -1));
    visit(std::bitset<70>(0x123456789abcdef));
    visit(std::vector<int>{});
    visit(std::vector<int>{1, 2, 3});
    visit(std::vector<double>(5000, 1.5));
    visit(std::vector<std::string>{"a", "", "ccc"});
    visit(std::vector<std::vector<int>>{{1}, {}, {2, 3}});
    visit(std::vector<bool>{});
    visit(std::vector<bool>{true, false, true, true, false, false, false, true, true});
    visit(std::vector<Point>{{1, 2}, {3, 4}});
    visit(std::vector<Opaque>{{1, 2}, {3, 4}});
    visit(std::vector<Metre>{Metre(1), Metre(2)});
    visit(std::vector<Empty>(3));
    visit(std::vector<Page>(3, Page{7}));
    visit(std::vector<Constant>{Constant{1, "a"}});
    visit(std::vector<std::pair<int, double>>{{1, 2.5}, {3, 4.5}});
    visit(std::deque<int>{1, 2, 3});
    visit(std::deque<std::string>{"x", "yy"});
    visit(std::list<int>{4, 5});
    visit(std::list<std::string>{"p", "q"});
    visit(std::forward_list<int>{7, 8, 9});
    visit(std::forward_list<std::string>{"s", "t"});
    visit(std::set<int>{3, 1, 2});
    visit(std::set<std::string>{"b", "a"});
    visit(std::multiset<int>{1, 1, 2});
    visit(std::unordered_set<std::string>{"u", "v", "w"});
    visit(std::unordered_multiset<int>{5, 5, 6});
    visit(std::map<int, double>{{1, 1.5}, {2, 2.5}});
    visit(std::map<std::string, std::vector<int>>{{"one", {1}}, {"none", {}}});
    visit(std::multimap<int, std::string>{{1, "b"}, {1, "a"}});
    visit(std::unordered_map<std::string, int>{{"k", 1}, {"l", 2}});
    visit(std::unordered_multimap<int, int>{{1, 1}, {1, 2}});
    visit(std::pair<int, std::string>{1, "two"});
    visit(std::tuple<>());
    visit(std::tuple<int, double>(1, 2.5));
    visit(std::tuple<std::tuple<int>>(std::tuple<int>(3)));
    visit(std::tuple<int, std::string, std::vector<double>>(1, "x", {1, 2}));
    visit(std::array<int, 3>{1, 2, 3});
    visit(std::array<std::string, 2>{"a", "b"});
    visit(std::array<Room, 2>{Room{Metre(1), "a"}, Room{Metre(2), "b"}});
    visit(std::array<std::string, 0>{});
    visit(std::optional<int>());
    visit(std::optional<int>(3));
    visit(std::optional<std::optional<std::string>>("deep"));
    visit(std::variant<int, std::string, Person>("text"));
    visit(std::variant<std::monostate, int>());
    visit(std::monostate());
    visit(std::make_error_code(std::errc::permission_denied));
    visit(Point{1, 2});
    visit(Padded{'a', 1, true});
    visit(Person{"Ada", 36, {{1, 2}, {3, 4}}, "countess"});
    visit(std::vector<Person>{{"Ada", 36, {}, {}}, {"Bob", 7, {{0, 0}}, "b"}});
    visit(WithArrays{{1, 2, 3}, {"a", "b"}, {{{1, 2}, {3, 4}}, {{5, 6}, {7, 8}}}, "name", {true, false}, 9});
    visit(Tree{"root", {Tree{"left", {}}, Tree{"right", {Tree{"leaf", {}}}}}});
    visit(Constant{3, "fixed"});
    visit(Empty());
    visit(Opaque(1, 2));
    visit(Room{Metre(3.5), "hall"});
    visit(Account("Eve", {1, 2, 3}));
    visit(std::vector<Account>{Account("Eve", {1}), Account()});
    visit(Matrix(2, {1, 2, 3, 4}));
    visit(Bank{{{"e", Account("Eve", {1})}}, Account("R", {}), Person{"D", 50, {}, {}}, {1, 2, 3}, Account("M", {9})});
    visit(Versioned{5});
    visit(std::vector<Versioned>{Versioned{5}, Versioned{6}});
    visit(Label{"label"});
    visit(Titled{{"label"}, 3});
    visit(Child{{1}, 2});
    visit(std::vector<Silent>(4));
    visit(std::map<std::string, std::variant<int, std::vector<std::optional<Person>>>>{
        {"a", 1}, {"b", std::vector<std::optional<Person>>{Person{"P", 1, {}, {}}, std::nullopt}}});
}

}    // namespace samples
