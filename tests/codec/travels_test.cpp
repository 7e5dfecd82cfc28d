// Which types travel, which go by memcpy, and how parameters are held. Most of it is checked by compiling.
#include "codec/samples.hpp"

#include <gtest/gtest.h>

#include <any>
#include <atomic>
#include <functional>
#include <mutex>
#include <queue>
#include <ranges>
#include <span>
#include <string_view>
#include <thread>
#include <typeindex>

namespace {

using multihull::Travels;
using multihull::detail::Holder;
using multihull::detail::kFieldCount;
using multihull::detail::kFixedSize;
using multihull::detail::kPlain;
using multihull::detail::kUnknownFields;
using multihull::detail::Parameter;

struct PlainPointer {
    int a;
    const char* text;
};
struct ArrayOfPointers {
    char name[100];
    int* pointers[3];
};
struct Nested {
    samples::Point point;
    std::vector<PlainPointer> list;
};
struct Reference {
    int& value;
};
struct ConstReference {
    int a;
    const int& value;
};
struct HoldsOptional {
    std::optional<samples::Point> known_everywhere;
    std::optional<PlainPointer> of_this_file;
    std::optional<Nested> nested;
};
struct HoldsMutex {
    std::mutex mutex;
    int a;
};
struct HoldsAny {
    std::any value;
};
struct Derived : samples::Point {
    int z;
};
struct DerivedWithText : samples::Point {
    std::string text;
};
struct Huge {
    char bytes[100'000];
};
union Either {
    int a;
    float b;
};
struct Virtual {
    virtual ~Virtual() = default;
};
struct FinalVirtual final : Virtual {
    int a = 0;
    template <class Archive>
    void serialize(Archive& archive) {
        archive(a);
    }
};
class Hidden {
public:
    explicit Hidden(std::string text) : text_(std::move(text)) {}

private:
    std::string text_;
};
struct OnlySave {
    int a;
    template <class Archive>
    void save(Archive& archive) const {
        archive(a);
    }
};
struct Trivial {
    int a;
    template <class Archive>
    void serialize(Archive& archive) {
        archive(a);
    }
};
struct HoldsTrivial {
    Trivial a;
    int b;
};
struct HoldsBool {
    bool a;
};
struct Many {
    int a01, a02, a03, a04, a05, a06, a07, a08, a09, a10, a11, a12, a13, a14, a15, a16, a17, a18, a19, a20, a21, a22;
    std::string text;
};
struct Functor {
    int factor;
    int operator()(int x) const { return factor * x; }
};

// The fields of aggregates.
static_assert(kFieldCount<HoldsOptional> == 3);
static_assert(kFieldCount<samples::Point> == 2);
static_assert(kFieldCount<samples::Person> == 4);
static_assert(kFieldCount<samples::WithArrays> == 6);
static_assert(kFieldCount<samples::Link> == 2);
static_assert(kFieldCount<samples::Tree> == 2);
static_assert(kFieldCount<samples::Constant> == 2);
static_assert(kFieldCount<samples::Room> == 2);
static_assert(kFieldCount<ArrayOfPointers> == 2);
static_assert(kFieldCount<HoldsMutex> == 2);
static_assert(kFieldCount<Many> == 23);
static_assert(kFieldCount<Derived> == kUnknownFields);
static_assert(kFieldCount<Huge> == kUnknownFields);

// What does not travel.
static_assert(!Travels<int*> && !Travels<const char*> && !Travels<int&> && !Travels<void> && !Travels<int[3]>);
static_assert(!Travels<int (*)(int)> && !Travels<int Nested::*> && !Travels<void (Nested::*)()>);
static_assert(!Travels<PlainPointer> && !Travels<ArrayOfPointers> && !Travels<Nested>);
static_assert(!Travels<Reference> && !Travels<ConstReference> && !Travels<std::reference_wrapper<int>>);
static_assert(!Travels<std::string_view> && !Travels<std::span<const int>> && !Travels<std::initializer_list<int>>);
static_assert(!Travels<std::vector<int>::iterator> && !Travels<std::list<int>::const_iterator>);
static_assert(!Travels<std::ranges::ref_view<std::vector<int>>> && !Travels<std::ranges::subrange<int*>>);
static_assert(!Travels<std::function<void()>> && !Travels<std::any> && !Travels<HoldsAny>);
static_assert(!Travels<std::mutex> && !Travels<HoldsMutex> && !Travels<std::atomic<int>> && !Travels<std::thread>);
static_assert(!Travels<std::type_index> && !Travels<std::weak_ptr<int>>);
static_assert(!Travels<DerivedWithText> && !Travels<Hidden> && !Travels<OnlySave>);
static_assert(!Travels<std::unique_ptr<Virtual>> && !Travels<std::shared_ptr<Virtual>> &&
              !Travels<std::unique_ptr<int[]>>);
static_assert(!Travels<std::unique_ptr<int, void (*)(int*)>> && !Travels<std::shared_ptr<void>>);
static_assert(!Travels<std::set<int, bool (*)(int, int)>> && !Travels<std::set<int, std::function<bool(int, int)>>>);
static_assert(!Travels<std::tuple<int, std::vector<std::map<int, PlainPointer>>>>);
static_assert(!Travels<std::queue<int>>);    // unless cereal/types/queue.hpp is included

// What travels beside the samples.
static_assert(Travels<const int> && Travels<Derived> && Travels<Huge> && Travels<Either> && Travels<Many>);
static_assert(Travels<std::unique_ptr<FinalVirtual>> && Travels<std::shared_ptr<const int>>);
static_assert(Travels<std::set<int, std::greater<>>> && Travels<Functor> && Travels<std::exception_ptr>);
static_assert(Travels<samples::Link> && Travels<std::vector<samples::Link>>);

// What goes by memcpy.
static_assert(kPlain<int> && kPlain<bool> && kPlain<samples::Colour> && kPlain<samples::Point> &&
              kPlain<samples::Opaque>);
static_assert(kPlain<std::array<samples::Point, 3>> && kPlain<std::chrono::nanoseconds> && kPlain<std::complex<float>>);
static_assert(kPlain<samples::Padded> && kPlain<HoldsBool> && kPlain<Derived> && kPlain<Huge>);
static_assert(!kPlain<std::string> && !kPlain<PlainPointer> && !kPlain<std::vector<int>> && !kPlain<samples::Person>);
static_assert(!kPlain<std::optional<int>> && !kPlain<std::variant<int, float>>);    // what says which must be checked
static_assert(!kPlain<Trivial> && !kPlain<HoldsTrivial>);    // its own serialize() is to be called
static_assert(!kPlain<std::error_code> && !kPlain<samples::Ticket> && !kPlain<int*>);

// What has one size.
static_assert(kFixedSize<std::tuple<int, double>> == 12 && kFixedSize<std::pair<char, samples::Point>> == 17);
static_assert(kFixedSize<std::string> == 0 && kFixedSize<std::tuple<int, std::string>> == 0);

// Parameters.
static_assert(std::is_same_v<Holder<int>, int> && std::is_same_v<Holder<const std::string&>, std::string>);
static_assert(std::is_same_v<Holder<std::string_view>, std::string> &&
              std::is_same_v<Holder<const char*>, std::string>);
static_assert(std::is_same_v<Holder<std::wstring_view>, std::wstring>);
static_assert(std::is_same_v<Holder<std::span<const int>>, std::vector<int>>);
static_assert(std::is_same_v<Holder<const std::span<const double>&>, std::vector<double>>);
static_assert(std::is_same_v<Holder<std::vector<int>&&>, std::vector<int>>);
static_assert(Parameter<int> && Parameter<const std::string&> && Parameter<std::string&&> &&
              Parameter<std::string_view>);
static_assert(Parameter<std::span<const int>> && Parameter<const char*>);
static_assert(!Parameter<int&> && !Parameter<std::span<int>> && !Parameter<int*> && !Parameter<char*>);

template <class T>
struct HoldsGeneric {
    T value;
};

TEST(Travels, ClosuresAreToldFromOtherClasses) {
    int x = 1;
    const auto empty = [](int y) { return y; };
    const auto by_value = [x](int y) { return x + y; };
    const auto by_reference = [&x](int y) mutable noexcept { return x += y; };
    const auto generic = [x](const auto& y) { return x + y; };
    const auto templated = [x]<class T>(std::vector<T> y) { return x + static_cast<int>(y.size()); };
    const auto of_closure = [by_value](int y) { return by_value(y); };
    struct Local {
        int a;
    };
    const auto smaller = [](int a, int b) { return a < b; };
    static_assert(Travels<decltype(empty)>);
    static_assert(!Travels<decltype(by_value)> && !Travels<decltype(by_reference)> && !Travels<decltype(generic)>);
    static_assert(!Travels<decltype(templated)> && !Travels<decltype(of_closure)>);
    static_assert(Travels<Local>);
    static_assert(Travels<std::set<int, std::remove_const_t<decltype(smaller)>>>);
    static_assert(!Travels<HoldsGeneric<std::remove_const_t<decltype(by_value)>>>);
    EXPECT_EQ(by_value(empty(1)) + generic(1) + templated(std::vector<int>(1)) + of_closure(1), 8);
    static_cast<void>(by_reference);
    static_cast<void>(smaller);
}

TEST(Travels, APlainTypeWithSerializeIsSentByIt) {
    EXPECT_EQ(samples::decoded<HoldsTrivial>(samples::encoded(HoldsTrivial{{1}, 2})).a.a, 1);
    EXPECT_EQ(samples::decoded<std::unique_ptr<FinalVirtual>>(samples::encoded(std::make_unique<FinalVirtual>()))->a,
              0);
}

}    // namespace
