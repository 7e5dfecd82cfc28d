#include "manager/python_array.hpp"

#include <multihull/object_conversion.hpp>

#include <cstring>
#include <span>
#include <string>

namespace multihull::detail {

namespace {

enum class Number { unsigned_integer, signed_integer, floating };

/// How the elements lie in the bytes, in this machine's order.
struct Layout {
    Number number;
    std::size_t size;
};

Layout layout_of(const std::string& typecode) {
    switch (typecode.empty() ? '\0' : typecode.front()) {
        case 'b':
            return {Number::signed_integer, 1};
        case 'B':
            return {Number::unsigned_integer, 1};
        case 'h':
            return {Number::signed_integer, 2};
        case 'H':
            return {Number::unsigned_integer, 2};
        case 'i':
            return {Number::signed_integer, 4};
        case 'I':
            return {Number::unsigned_integer, 4};
        case 'l':
        case 'q':
            return {Number::signed_integer, 8};
        case 'L':
        case 'Q':
            return {Number::unsigned_integer, 8};
        case 'f':
            return {Number::floating, 4};
        case 'd':
            return {Number::floating, 8};
        default:
            throw TypeError("an array of typecode '" + typecode + "' holds no numbers");
    }
}

template <class T>
T load(std::span<const std::byte> bytes) {
    T value;
    std::memcpy(&value, bytes.data(), sizeof value);
    return value;
}

Object element(std::span<const std::byte> bytes, Number number) {
    const bool is_signed = number == Number::signed_integer;
    switch (bytes.size()) {
        case 1:
            return is_signed ? Object(load<std::int8_t>(bytes)) : Object(load<std::uint8_t>(bytes));
        case 2:
            return is_signed ? Object(load<std::int16_t>(bytes)) : Object(load<std::uint16_t>(bytes));
        case 4:
            if (number == Number::floating) return load<float>(bytes);
            return is_signed ? Object(load<std::int32_t>(bytes)) : Object(load<std::uint32_t>(bytes));
        default:
            if (number == Number::floating) return load<double>(bytes);
            return is_signed ? Object(load<std::int64_t>(bytes)) : Object(load<std::uint64_t>(bytes));
    }
}

std::vector<Object> elements(std::span<const std::byte> bytes, const Layout& layout) {
    if (bytes.size() % layout.size != 0) throw TypeError("the bytes of an array end in the middle of a number");
    std::vector<Object> all;
    all.reserve(bytes.size() / layout.size);
    for (std::size_t at = 0; at < bytes.size(); at += layout.size) {
        all.push_back(element(bytes.subspan(at, layout.size), layout.number));
    }
    return all;
}

}    // namespace

std::vector<Object> array_elements(const Object& array) {
    const auto args = array.as_instance().args.elements();
    if (args.size() < 2) return {};
    if (args[1].type() != Object::Type::bytes) return elements_of(args[1]);
    return elements(args[1].as_bytes(), layout_of(args[0].as_str()));
}

}    // namespace multihull::detail
