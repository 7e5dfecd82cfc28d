// Equality, order and hashes of Objects, as Python has them.
#include <multihull/object.hpp>

#include "manager/object_table.hpp"

#include <algorithm>
#include <bit>
#include <cmath>

namespace multihull {

namespace {

constexpr double kTwoTo63 = 9223372036854775808.0;

// Exact, where a conversion of either would round.
std::partial_ordering compare(std::int64_t left, double right) noexcept {
    if (std::isnan(right)) return std::partial_ordering::unordered;
    if (right >= kTwoTo63) return std::partial_ordering::less;
    if (right < -kTwoTo63) return std::partial_ordering::greater;
    const auto whole = static_cast<std::int64_t>(right);
    if (left != whole) return left <=> whole;
    return 0.0 <=> right - static_cast<double>(whole);
}

std::partial_ordering reversed(std::partial_ordering order) noexcept {
    if (std::is_lt(order)) return std::partial_ordering::greater;
    return std::is_gt(order) ? std::partial_ordering::less : order;
}

// A good spreading of a number's bits (the finalizer of splitmix64): tables take the lowest ones.
std::size_t mixed(std::uint64_t bits) noexcept {
    bits += 0x9e3779b97f4a7c15;
    bits = (bits ^ (bits >> 30)) * 0xbf58476d1ce4e5b9;
    bits = (bits ^ (bits >> 27)) * 0x94d049bb133111eb;
    return static_cast<std::size_t>(bits ^ (bits >> 31));
}

bool contains_all(const detail::ObjectTable& all, const detail::ObjectTable& part) {
    for (std::size_t i = 0; i < part.size(); ++i) {
        if (!all.find(part.keys()[i], part.hash_at(i))) return false;
    }
    return true;
}

std::partial_ordering compare_sets(const detail::ObjectTable& left, const detail::ObjectTable& right) {
    if (left.size() < right.size()) {
        return contains_all(right, left) ? std::partial_ordering::less : std::partial_ordering::unordered;
    }
    if (!contains_all(left, right)) return std::partial_ordering::unordered;
    return left.size() == right.size() ? std::partial_ordering::equivalent : std::partial_ordering::greater;
}

bool equal_dicts(detail::ObjectTable& left, detail::ObjectTable& right) {
    if (left.size() != right.size()) return false;
    for (std::size_t i = 0; i < left.size(); ++i) {
        const auto other = right.find(left.keys()[i], left.hash_at(i));
        if (!other || !(left.values()[i] == right.values()[*other])) return false;
    }
    return true;
}

bool equal_instances(const Object::Instance& left, const Object::Instance& right) {
    return left.name == right.name && left.module == right.module && left.by_new == right.by_new &&
           left.args == right.args && left.state == right.state;
}

}    // namespace

std::partial_ordering Object::compare_numbers(const Object& left, const Object& right) noexcept {
    const auto* const a = std::get_if<double>(&left.value_);
    const auto* const b = std::get_if<double>(&right.value_);
    if (a != nullptr && b != nullptr) return *a <=> *b;
    if (b != nullptr) return compare(left.as_int(), *b);
    if (a != nullptr) return reversed(compare(right.as_int(), *a));
    return left.as_int() <=> right.as_int();
}

bool operator==(const Object& left, const Object& right) {
    using Type = Object::Type;
    if (left.is_number() && right.is_number()) return std::is_eq(Object::compare_numbers(left, right));
    if (left.type() != right.type()) return false;
    switch (left.type()) {
        case Type::none:
            return true;
        case Type::str:
            return left.as_str() == right.as_str();
        case Type::bytes:
            return std::ranges::equal(left.as_bytes(), right.as_bytes());
        case Type::list:
        case Type::tuple:
            return std::ranges::equal(left.elements(), right.elements());
        case Type::dict:
            return equal_dicts(*left.table(), *right.table());
        case Type::set:
            return left.table()->size() == right.table()->size() && contains_all(*left.table(), *right.table());
        case Type::instance:
            return equal_instances(left.as_instance(), right.as_instance());
        case Type::boolean:
        case Type::integer:
        case Type::floating:
            break;    // numbers, dealt with above
    }
    return false;
}

std::partial_ordering operator<=>(const Object& left, const Object& right) {
    using Type = Object::Type;
    if (left.is_number() && right.is_number()) return Object::compare_numbers(left, right);
    if (left.type() == right.type()) {
        switch (left.type()) {
            case Type::str:
                // UTF-8 sorts as its code points do, if bytes are compared as unsigned ones: std::string does.
                return left.as_str() <=> right.as_str();
            case Type::bytes:
                return std::lexicographical_compare_three_way(left.as_bytes().begin(), left.as_bytes().end(),
                                                              right.as_bytes().begin(), right.as_bytes().end());
            case Type::list:
            case Type::tuple: {
                const auto a = left.elements();
                const auto b = right.elements();
                // Only the first pair that is not equal is put in order: those before it need not have one.
                const auto [x, y] = std::ranges::mismatch(a, b);
                if (x != a.end() && y != b.end()) return *x <=> *y;
                return a.size() <=> b.size();
            }
            case Type::set:
                return compare_sets(*left.table(), *right.table());
            case Type::none:
            case Type::dict:
            case Type::instance:
            case Type::boolean:
            case Type::integer:
            case Type::floating:
                break;
        }
    }
    throw TypeError(std::string("a ") + left.type_name() + " and a " + right.type_name() +
                    " have no order: compare them with ==, or sort by something else");
}

std::size_t Object::hash() const {
    switch (type()) {
        case Type::none:
            return mixed(0x6e6f6e65);
        case Type::boolean:
        case Type::integer:
            return mixed(static_cast<std::uint64_t>(as_int()));
        case Type::floating: {
            const double value = std::get<double>(value_);
            // A float that is equal to an int hashes as that.
            if (value >= -kTwoTo63 && value < kTwoTo63 && std::trunc(value) == value) {
                return mixed(static_cast<std::uint64_t>(static_cast<std::int64_t>(value)));
            }
            return mixed(std::bit_cast<std::uint64_t>(value));
        }
        case Type::str:
            return std::hash<std::string>()(as_str());
        case Type::bytes:
            return mixed(std::hash<std::string>()(std::get<Bytes>(value_).bytes));
        case Type::tuple: {
            std::uint64_t sum = elements().size();
            for (const Object& element : elements()) sum = mixed(sum ^ element.hash()) * 3;
            return mixed(sum);
        }
        case Type::instance:
            return mixed(std::hash<std::string>()(as_instance().name) ^ as_instance().args.hash());
        case Type::list:
        case Type::dict:
        case Type::set:
            break;
    }
    throw TypeError(std::string("a ") + type_name() +
                    " can't be hashed, and so be no key of a dict and no element of a set: use a tuple");
}

}    // namespace multihull
