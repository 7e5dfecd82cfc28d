// Arguments as text, for people and for validation functions: `3.5, "abc", [1, 2, 3]`, cut where it gets long.
#pragma once

#include <multihull/detail/hash_types.hpp>

#include <charconv>
#include <string>
#include <string_view>
#include <type_traits>

namespace multihull::detail {

/// Where a text is long enough.
inline constexpr std::size_t kLongText = 200;

template <class T>
void append_text(std::string& text, const T& value);

inline bool is_long(const std::string& text) noexcept { return text.size() >= kLongText; }

inline void append_quoted(std::string& text, std::string_view value) {
    text += '"';
    for (const char c : value.substr(0, kLongText)) {
        text += c < ' ' && c >= 0 ? '?' : c;
    }
    text += value.size() > kLongText ? "...\"" : "\"";
}

template <class Range>
void append_range(std::string& text, const Range& range) {
    text += '[';
    bool first = true;
    for (const auto& element : range) {
        if (!first) text += ", ";
        first = false;
        if (is_long(text)) {
            text += "...";
            break;
        }
        append_text(text, static_cast<const typename Range::value_type&>(element));
    }
    text += ']';
}

template <class... Parts>
void append_parts(std::string& text, const Parts&... parts) {
    bool first = true;
    const auto append = [&](const auto& part) {
        if (is_long(text)) return;
        if (!first) text += ", ";
        first = false;
        append_text(text, part);
        if (is_long(text)) text += "...";
    };
    (append(parts), ...);
}

template <class T>
void append_number(std::string& text, T value) {
    char digits[64];
    const auto [end, error] = std::to_chars(digits, digits + sizeof digits, value);
    text.append(digits, error == std::errc() ? end : digits);
}

template <class T>
void append_text(std::string& text, const T& value) {
    constexpr Kind kHow = kKind<T>;
    if constexpr (std::is_same_v<T, bool>) {
        text += value ? "true" : "false";
    } else if constexpr (std::is_same_v<T, char>) {
        append_quoted(text, {&value, 1});
    } else if constexpr (std::is_arithmetic_v<T> && (sizeof(T) == 1 || !std::is_integral_v<T> ||
                                                     requires(char* c) { std::to_chars(c, c, value); })) {
        if constexpr (sizeof(T) == 1) {
            append_number(text, static_cast<int>(value));
        } else {
            append_number(text, value);
        }
    } else if constexpr (std::is_enum_v<T>) {
        append_text(text, static_cast<std::underlying_type_t<T>>(value));
    } else if constexpr (std::is_convertible_v<const T&, std::string_view>) {
        append_quoted(text, value);
    } else if constexpr (kHow == Kind::path) {
        append_text(text, value.native());
    } else if constexpr (kHow == Kind::optional || kHow == Kind::unique || kHow == Kind::shared) {
        if (value) {
            append_text(text, *value);
        } else {
            text += "none";
        }
    } else if constexpr (kHow == Kind::tuple) {
        text += '(';
        std::apply([&](const auto&... parts) { append_parts(text, parts...); }, value);
        text += ')';
    } else if constexpr (kHow == Kind::contiguous || kHow == Kind::bits || kHow == Kind::sequence ||
                         kHow == Kind::forward_list || kHow == Kind::set || kHow == Kind::map || kStdArray<T>) {
        append_range(text, value);
    } else if constexpr (has_known_fields<T>() && (kHow == Kind::fields || kHow == Kind::plain)) {
        text += '{';
        with_fields(value, [&](const auto&... fields) { append_parts(text, fields...); });
        text += '}';
    } else {
        text += type_name<T>();
    }
}

}    // namespace multihull::detail
