// How the exceptions of the standard and of Multihull travel, one by one.
#pragma once

#include <multihull/codec.hpp>
#include <multihull/error.hpp>

#include <cstdint>
#include <exception>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <typeinfo>
#include <utility>

namespace multihull::detail {

using Decoded = std::exception_ptr;

/// How one known type travels. With `nest`, the exception is thrown with the one being handled nested in it.
struct Known {
    const std::type_info* type;
    void (*encode)(Writer&, const std::exception&);
    Decoded (*decode)(Reader&, bool nest);
};

template <class E>
Decoded made(E error, bool nest) {
    if (!nest) {
        return std::make_exception_ptr(std::move(error));
    }
    try {
        std::throw_with_nested(std::move(error));
    } catch (...) {
        return std::current_exception();
    }
}

/// The number of a type in the format, by its mangled name.
std::optional<std::uint8_t> known_by_name(std::string_view mangled);
/// Null where the format has no such number.
const Known* known_type(std::uint8_t number) noexcept;
Decoded decode_remote_error(Reader& reader, bool nest);

/// Cut to what travels of an exception's text; that says so.
std::string shortened(std::string_view text);
std::string text_of(const std::exception& error);
void encode_stack(Writer& writer, std::span<const std::uintptr_t> stack);

}    // namespace multihull::detail
