// Objects as Python prints them.
#include <multihull/object.hpp>

#include "manager/unprintable.hpp"
#include "manager/utf8.hpp"

#include <array>
#include <charconv>
#include <cmath>
#include <ostream>

namespace multihull {

namespace {

// Python puts an exponent only on numbers of more than 16 digits before the point, or 4 zeros behind it.
void write_float(std::string& out, double value) {
    if (std::isnan(value)) {
        out += "nan";
        return;
    }
    if (std::isinf(value)) {
        out += value < 0 ? "-inf" : "inf";
        return;
    }
    std::array<char, 40> buffer;
    const char* const end =
        std::to_chars(buffer.data(), buffer.data() + buffer.size(), value, std::chars_format::scientific).ptr;
    std::string_view text(buffer.data(), static_cast<std::size_t>(end - buffer.data()));
    if (text.front() == '-') {
        out += '-';
        text.remove_prefix(1);
    }
    const std::size_t mark = text.find('e');
    int exponent = 0;
    const bool small = text[mark + 1] == '-';
    std::from_chars(text.data() + mark + 2, end, exponent);    // it has a sign always
    if (small) exponent = -exponent;
    std::string digits(1, text.front());
    if (mark > 2) digits += text.substr(2, mark - 2);

    if (exponent < -4 || exponent >= 16) {
        out += digits.front();
        if (digits.size() > 1) (out += '.') += std::string_view(digits).substr(1);
        const std::string number = std::to_string(std::abs(exponent));
        out += exponent < 0 ? "e-" : "e+";
        if (number.size() < 2) out += '0';
        out += number;
    } else if (exponent < 0) {
        out += "0.";
        out.append(static_cast<std::size_t>(-exponent - 1), '0');
        out += digits;
    } else {
        const auto before = static_cast<std::size_t>(exponent) + 1;
        if (digits.size() < before) digits.append(before - digits.size(), '0');
        ((out += std::string_view(digits).substr(0, before)) += '.');
        out += digits.size() > before ? std::string_view(digits).substr(before) : "0";
    }
}

void write_hex(std::string& out, char letter, std::uint32_t value, int digits) {
    (out += '\\') += letter;
    for (int shift = 4 * (digits - 1); shift >= 0; shift -= 4) out += "0123456789abcdef"[value >> shift & 15U];
}

char quote_for(std::string_view text) {
    return text.find('\'') != text.npos && text.find('"') == text.npos ? '"' : '\'';
}

// A byte below 0x80, in quotes.
void write_ascii(std::string& out, unsigned char byte, char quote) {
    switch (byte) {
        case '\t':
            out += "\\t";
            return;
        case '\n':
            out += "\\n";
            return;
        case '\r':
            out += "\\r";
            return;
        default:
            break;
    }
    if (byte < 0x20 || byte == 0x7f) {
        write_hex(out, 'x', byte, 2);
        return;
    }
    if (byte == '\\' || byte == static_cast<unsigned char>(quote)) out += '\\';
    out += static_cast<char>(byte);
}

void write_str(std::string& out, std::string_view text) {
    const char quote = quote_for(text);
    out += quote;
    while (!text.empty()) {
        const detail::CodePoint point = detail::first_code_point(text);
        if (point.size == 0) {
            // Not UTF-8: shown as Python's "surrogateescape" has it.
            write_hex(out, 'u', 0xdc00U + static_cast<unsigned char>(text.front()), 4);
        } else if (point.size == 1) {
            write_ascii(out, static_cast<unsigned char>(text.front()), quote);
        } else if (detail::is_printable(point.value)) {
            out += text.substr(0, point.size);
        } else if (point.value <= 0xff) {
            write_hex(out, 'x', point.value, 2);
        } else if (point.value <= 0xffff) {
            write_hex(out, 'u', point.value, 4);
        } else {
            write_hex(out, 'U', point.value, 8);
        }
        text.remove_prefix(point.size == 0 ? 1 : point.size);
    }
    out += quote;
}

void write_bytes(std::string& out, std::string_view bytes) {
    const char quote = quote_for(bytes);
    (out += 'b') += quote;
    for (const char c : bytes) {
        const auto byte = static_cast<unsigned char>(c);
        if (byte < 0x80) {
            write_ascii(out, byte, quote);
        } else {
            write_hex(out, 'x', byte, 2);
        }
    }
    out += quote;
}

}    // namespace

void Object::write_repr(std::string& out) const {
    const auto write_all = [&](std::span<const Object> objects, const char* before, const char* behind) {
        out += before;
        const char* comma = "";
        for (const Object& object : objects) {
            out += comma;
            object.write_repr(out);
            comma = ", ";
        }
        out += behind;
    };
    const auto write_elements = [&](const char* before, const char* behind) { write_all(elements(), before, behind); };
    switch (type()) {
        case Type::none:
            out += "None";
            return;
        case Type::boolean:
            out += as_bool() ? "True" : "False";
            return;
        case Type::integer:
            out += std::to_string(as_int());
            return;
        case Type::floating:
            write_float(out, as_float());
            return;
        case Type::str:
            write_str(out, as_str());
            return;
        case Type::bytes:
            write_bytes(out, std::get<Bytes>(value_).bytes);
            return;
        case Type::list:
            write_elements("[", "]");
            return;
        case Type::tuple:
            write_elements("(", elements().size() == 1 ? ",)" : ")");
            return;
        case Type::set:
            if (elements().empty()) {
                out += "set()";
            } else {
                write_elements("{", "}");
            }
            return;
        case Type::dict: {
            const auto keys = elements();
            out += '{';
            for (std::size_t i = 0; i < keys.size(); ++i) {
                if (i != 0) out += ", ";
                keys[i].write_repr(out);
                out += ": ";
                values()[i].write_repr(out);
            }
            out += '}';
            return;
        }
        case Type::instance: {
            const Instance& instance = as_instance();
            if (instance.args.is_none()) {
                (((out += "<class '") += instance.module) += '.') += instance.name;
                out += "'>";
                return;
            }
            out += instance.name;
            write_all(instance.args.elements(), "(", ")");
            return;
        }
    }
}

std::string Object::repr() const {
    std::string out;
    write_repr(out);
    return out;
}

std::string Object::to_string() const { return type() == Type::str ? as_str() : repr(); }

std::ostream& operator<<(std::ostream& out, const Object& object) { return out << object.to_string(); }

}    // namespace multihull
