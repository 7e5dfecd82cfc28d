// A value of Python's plain types: what programs that don't know each other's types can say to each other.
//
// A value, unlike in Python: a copy shares nothing with its original. As thread-safe as a std::vector: any number of threads may read
// one Object, or one thread change it. Travels to other processes by Codec, nested up to 1000 deep.
//
// Invariants
// (1) What lies in a set, or is a key of a dict, is hashable, and is handed out as const: its hash can't change.
// (2) A moved-from Object is None.
// (3) Integers have 64 bits: a bigger one is refused where it comes in, never cut.
#pragma once

#include <multihull/codec.hpp>
#include <multihull/error.hpp>

#include <compare>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <initializer_list>
#include <iosfwd>
#include <limits>
#include <memory>
#include <ranges>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <variant>
#include <vector>

namespace multihull {

/// A value was used as one of another type, as Python's TypeError says.
class TypeError : public Error {
public:
    using Error::Error;
};
/// A dict or set has no such key.
class KeyError : public Error {
public:
    using Error::Error;
};
/// A list or tuple has no such element.
class IndexError : public Error {
public:
    using Error::Error;
};
/// A value of the right type that can't be used there, as Python's ValueError says.
class ValueError : public Error {
public:
    using Error::Error;
};
/// A Python object has no attribute or method of that name.
class AttributeError : public Error {
public:
    using Error::Error;
};
/// A pickle that says something else than plain data, names what it may not, or is damaged.
class UnpicklingError : public CodecError {
public:
    using CodecError::CodecError;
};
/// A value that Python's pickle can't say.
class PicklingError : public CodecError {
public:
    using CodecError::CodecError;
};

class Object;

namespace detail {

class GappedKeys;
class ObjectTable;    // keys in the order in which they came, found by their hashes

/// Owns a table; a copy of it is another table.
class ObjectTableBox {
public:
    ObjectTableBox();
    ObjectTableBox(const ObjectTableBox& other);
    ObjectTableBox(ObjectTableBox&& other) noexcept;
    ObjectTableBox& operator=(ObjectTableBox other) noexcept;
    ~ObjectTableBox();

    ObjectTable* operator->() const noexcept { return table_.get(); }
    ObjectTable& operator*() const noexcept { return *table_; }

private:
    std::unique_ptr<ObjectTable> table_;
};

// Character types are left out: it would be anyone's guess whether 'a' is a number or a text.
template <class T>
concept ObjectInteger =
    std::integral<T> && !std::same_as<T, bool> && !std::same_as<T, char> && !std::same_as<T, wchar_t> &&
    !std::same_as<T, char8_t> && !std::same_as<T, char16_t> && !std::same_as<T, char32_t>;

[[noreturn]] void throw_integer_too_big(const std::string& digits);
[[noreturn]] void throw_integer_does_not_fit(std::int64_t value);

}    // namespace detail

/// None, a bool, int, float, str, bytes, list, tuple, dict or set; or an instance of another class of Python's, described but not built.
///
/// Braces make a list: `Object{42, nullptr, "hello"}`. With a single Object inside, compilers differ in whether braces copy it or make a
/// list of it: write `Object::list({object})`, or `Object(object)` for a copy.
class Object {
public:
    enum class Type : std::uint8_t { none, boolean, integer, floating, str, bytes, list, tuple, dict, set, instance };
    struct Instance;

    /// None.
    Object() noexcept = default;
    Object(std::nullptr_t) noexcept {}
    template <std::same_as<bool> T>
    Object(T value) noexcept : value_(value) {}
    /// Throws Error for an unsigned number that 64 bits with a sign can't hold.
    template <detail::ObjectInteger T>
    Object(T value) : value_(checked(value)) {}
    template <std::floating_point T>
    Object(T value) noexcept : value_(static_cast<double>(value)) {}
    /// A str, in UTF-8.
    Object(std::string text) noexcept : value_(std::move(text)) {}
    Object(std::string_view text) : value_(std::string(text)) {}
    Object(const char* text) : value_(std::string(text)) {}
    /// A list of these.
    Object(std::initializer_list<Object> elements) : value_(List{elements}) {}

    Object(const Object& other);
    Object(Object&& other) noexcept;
    Object& operator=(const Object& other);
    Object& operator=(Object&& other) noexcept;
    ~Object();

    static Object list(std::vector<Object> elements = {});
    static Object tuple(std::vector<Object> elements = {});
    /// Throws TypeError for an element that can't be hashed: a list, dict or set, or a tuple that holds one.
    static Object set(std::vector<Object> elements = {});
    template <std::ranges::input_range R>
        requires(!std::same_as<std::remove_cvref_t<R>, std::vector<Object>>)
    static Object list(R&& elements) {
        return list(collected(elements));
    }
    template <std::ranges::input_range R>
        requires(!std::same_as<std::remove_cvref_t<R>, std::vector<Object>>)
    static Object tuple(R&& elements) {
        return tuple(collected(elements));
    }
    template <std::ranges::input_range R>
        requires(!std::same_as<std::remove_cvref_t<R>, std::vector<Object>>)
    static Object set(R&& elements) {
        return set(collected(elements));
    }
    /// `Object::dict({{1, "one"}, {"two", 2}})`; of equal keys the last one's value stays. Throws TypeError for a key that can't be hashed.
    static Object dict(std::initializer_list<std::pair<Object, Object>> items = {});
    static Object bytes(std::span<const std::byte> bytes);
    static Object bytes(std::string_view bytes);
    /// Throws TypeError unless its args are a tuple, or None.
    static Object instance(Instance instance);

    Type type() const noexcept { return static_cast<Type>(value_.index()); }
    bool is_none() const noexcept { return type() == Type::none; }
    /// Python's name of the type: `NoneType`, `bool`, `int`, `float`, `str`, ..., an instance's class.
    const char* type_name() const noexcept;
    static const char* type_name(Type type) noexcept;

    // What it holds, checked. Each throws TypeError when it holds something else.
    bool as_bool() const;
    std::int64_t as_int() const;    ///< Of a bool too: 0 or 1.
    double as_float() const;        ///< Of an int and a bool too.
    const std::string& as_str() const;
    std::span<const std::byte> as_bytes() const;
    std::vector<Object>& as_list();
    const std::vector<Object>& as_list() const;
    const Instance& as_instance() const;
    /// Whether it is an instance of that class: `error.is_a("builtins", "KeyError")`.
    bool is_a(std::string_view module, std::string_view name) const noexcept;

    /// The same by type: bool, any integer type (throws Error when the number does not fit), any floating one, std::string.
    template <class T>
    T as() const {
        if constexpr (std::same_as<T, bool>) {
            return as_bool();
        } else if constexpr (detail::ObjectInteger<T>) {
            const std::int64_t value = as_int();
            if (!std::in_range<T>(value)) detail::throw_integer_does_not_fit(value);
            return static_cast<T>(value);
        } else if constexpr (std::floating_point<T>) {
            return static_cast<T>(as_float());
        } else {
            static_assert(std::same_as<T, std::string>,
                          "multihull: Object::as<T>() gives bool, integers, floating-point numbers and std::string");
            return as_str();
        }
    }

    /// Python's len(): elements, keys, bytes, or code points of a str. Throws TypeError for what has no length.
    std::size_t size() const;
    bool empty() const { return size() == 0; }

    // The elements of a list, tuple or set, or the keys of a dict, in order; a set's and a dict's is the order in which they came.
    const Object* begin() const { return elements().data(); }
    const Object* end() const { return elements().data() + elements().size(); }
    std::span<const Object> elements() const;
    /// Of a dict: the values, in the order of their keys.
    std::span<const Object> values() const;

    /// An element of a list or tuple, by its number (negative ones count from the end), or a dict's value for a key. Throws IndexError or
    /// KeyError when there is none; but operator[] puts None under a dict's new key, for `dict[key] = value`.
    const Object& at(const Object& key) const;
    Object& at(const Object& key);
    const Object& operator[](const Object& key) const { return at(key); }
    Object& operator[](const Object& key);
    /// Python's `in`: an equal element, a key, a part of a str, a byte or a part of bytes.
    bool contains(const Object& what) const;

    /// Puts an element behind a list's last.
    void append(Object element);
    /// Puts an element into a set; false when it was there. Throws TypeError when it can't be hashed.
    bool add(Object element);
    /// Python's `del object[key]` for a list and a dict, remove(key) for a set. Throws IndexError or KeyError when there is none.
    void erase(const Object& key);

    /// As Python's repr(), floats with as few digits as say exactly which they are.
    std::string repr() const;
    /// As Python's str(), and so as print() shows it: a str is itself, anything else is as repr().
    std::string to_string() const;
    friend std::ostream& operator<<(std::ostream& out, const Object& object);

    /// As Python's ==: numbers by their value (1 == 1.0 == True), lists, tuples and dicts by their parts, sets as sets,
    /// instances by their parts.
    friend bool operator==(const Object& left, const Object& right);
    /// As Python's <: numbers, str, bytes, lists and tuples in order, sets by inclusion. Throws TypeError where Python does.
    friend std::partial_ordering operator<=>(const Object& left, const Object& right);
    /// Equal objects hash equal. Throws TypeError for a list, dict or set, and for a tuple, or an instance's args, that hold one.
    std::size_t hash() const;

private:
    friend struct Codec<Object>;
    friend class detail::GappedKeys;

    struct Bytes {
        std::string bytes;
    };
    struct List {
        std::vector<Object> elements;
    };
    struct Tuple {
        std::vector<Object> elements;
    };
    struct Dict {
        detail::ObjectTableBox table;
    };
    struct Set {
        detail::ObjectTableBox table;
    };
    /// Owns an instance; a copy of it is another one.
    class InstanceBox {
    public:
        explicit InstanceBox(Instance instance);
        InstanceBox(const InstanceBox& other);
        InstanceBox(InstanceBox&& other) noexcept;
        InstanceBox& operator=(InstanceBox other) noexcept;
        ~InstanceBox();

        const Instance& operator*() const noexcept { return *instance_; }

    private:
        std::unique_ptr<Instance> instance_;
    };
    // In the order of Type.
    using Value = std::variant<std::monostate, bool, std::int64_t, double, std::string, Bytes, List, Tuple, Dict, Set,
                               InstanceBox>;

    template <detail::ObjectInteger T>
    static std::int64_t checked(T value) {
        if (!std::in_range<std::int64_t>(value)) detail::throw_integer_too_big(std::to_string(value));
        return static_cast<std::int64_t>(value);
    }
    template <class R>
    static std::vector<Object> collected(R& range) {
        std::vector<Object> elements;
        for (auto&& element : range) elements.emplace_back(std::forward<decltype(element)>(element));
        return elements;
    }
    // Numbers are compared across their types.
    static std::partial_ordering compare_numbers(const Object& left, const Object& right) noexcept;
    bool is_number() const noexcept {
        return type() == Type::boolean || type() == Type::integer || type() == Type::floating;
    }
    detail::ObjectTable* table() const noexcept;
    const std::vector<Object>* sequence() const noexcept;
    const Object* find(const Object& key) const;
    const Object& existing(const Object& key) const;
    [[noreturn]] void throw_is_not(const char* wanted) const;
    void write_repr(std::string& out) const;

    Value value_;
};

/// What Python would make of a class: `Object::instance({.module = "builtins", .name = "KeyError", .args = Object::tuple({"key"})})`.
/// A description: nothing of the class is known here, and nothing is run.
struct Object::Instance {
    std::string module{};    ///< As pickles name it: `builtins`, `queue`, `multiprocessing.managers`.
    std::string name{};      ///< Of the class, or of the function that makes the instance.
    Object args =
        Object::tuple();    ///< What it is called with: a tuple; None means the class itself, not an instance.
    Object state{};         ///< What is put into it afterwards; None for nothing.
    bool by_new = false;    ///< Made by `name.__new__(name, *args)` rather than by `name(*args)`.
};

template <>
struct Codec<Object> {
    static void encode(detail::Writer& writer, const Object& object);
    static Object decode(detail::Reader& reader);
};

}    // namespace multihull

/// Lets Objects be keys of unordered containers. Throws TypeError for those that can't be hashed.
template <>
struct std::hash<multihull::Object> {
    std::size_t operator()(const multihull::Object& object) const { return object.hash(); }
};
