// Objects to bytes and back: a byte for the type, then the value as the codec has it; containers as a length and their elements.
#include <multihull/object.hpp>

#include "manager/object_table.hpp"

#include <algorithm>

namespace multihull {

namespace {

using detail::Reader;
using detail::Writer;

void write_text(Writer& writer, std::string_view text) {
    writer.write_length(text.size());
    writer.write(text.data(), text.size());
}

std::string read_text(Reader& reader) {
    const std::size_t size = reader.read_length(1);
    const auto bytes = reader.view(size);
    return {reinterpret_cast<const char*>(bytes.data()), size};
}

// An encoded Object takes a byte at least, and an Object forty: what is claimed gets no more room than what is there is worth.
std::vector<Object> read_elements(Reader& reader) {
    const std::size_t count = reader.read_length(1);
    std::vector<Object> elements;
    elements.reserve(std::min(count, 4 * reader.remaining() / sizeof(Object) + 16));
    for (std::size_t i = 0; i < count; ++i) elements.push_back(Codec<Object>::decode(reader));
    return elements;
}

}    // namespace

void Codec<Object>::encode(Writer& writer, const Object& object) {
    using Type = Object::Type;
    const detail::Descent<Writer> descent(writer);
    writer.put(static_cast<std::uint8_t>(object.type()));
    switch (object.type()) {
        case Type::none:
            return;
        case Type::boolean:
            writer.put(static_cast<std::uint8_t>(object.as_bool()));
            return;
        case Type::integer:
            writer.put(object.as_int());
            return;
        case Type::floating:
            writer.put(object.as_float());
            return;
        case Type::str:
            write_text(writer, object.as_str());
            return;
        case Type::bytes:
            write_text(writer, std::get<Object::Bytes>(object.value_).bytes);
            return;
        case Type::list:
        case Type::tuple:
        case Type::set:
            writer.write_length(object.elements().size());
            for (const Object& element : object.elements()) encode(writer, element);
            return;
        case Type::dict: {
            const auto keys = object.elements();
            const auto values = object.values();
            writer.write_length(keys.size());
            for (std::size_t i = 0; i < keys.size(); ++i) {
                encode(writer, keys[i]);
                encode(writer, values[i]);
            }
            return;
        }
        case Type::instance: {
            const Object::Instance& instance = object.as_instance();
            write_text(writer, instance.module);
            write_text(writer, instance.name);
            writer.put(static_cast<std::uint8_t>(instance.by_new));
            encode(writer, instance.args);
            encode(writer, instance.state);
            return;
        }
    }
}

Object Codec<Object>::decode(Reader& reader) {
    using Type = Object::Type;
    const detail::Descent<Reader> descent(reader);
    const auto type = reader.get<std::uint8_t>();
    try {
        switch (static_cast<Type>(type)) {
            case Type::none:
                return {};
            case Type::boolean: {
                const auto value = reader.get<std::uint8_t>();
                if (value > 1) detail::throw_damaged("a bool is neither true nor false");
                return value == 1;
            }
            case Type::integer:
                return reader.get<std::int64_t>();
            case Type::floating:
                return reader.get<double>();
            case Type::str:
                return read_text(reader);
            case Type::bytes:
                return Object::bytes(read_text(reader));
            case Type::list:
                return Object::list(read_elements(reader));
            case Type::tuple:
                return Object::tuple(read_elements(reader));
            case Type::set: {
                const std::size_t count = reader.read_length(1);
                Object set = Object::set();
                for (std::size_t i = 0; i < count; ++i) {
                    if (!set.add(decode(reader))) detail::throw_damaged("a set holds an element twice");
                }
                return set;
            }
            case Type::dict: {
                const std::size_t count = reader.read_length(2);
                Object dict = Object::dict();
                for (std::size_t i = 0; i < count; ++i) {
                    const Object key = decode(reader);
                    if (dict.contains(key)) detail::throw_damaged("a dict holds a key twice");
                    dict[key] = decode(reader);
                }
                return dict;
            }
            case Type::instance: {
                Object::Instance instance;
                instance.module = read_text(reader);
                instance.name = read_text(reader);
                instance.by_new = reader.get<std::uint8_t>() != 0;
                instance.args = decode(reader);
                instance.state = decode(reader);
                if (!instance.args.is_none() && instance.args.type() != Type::tuple) {
                    detail::throw_damaged("an instance's args are no tuple");
                }
                return Object::instance(std::move(instance));
            }
        }
    } catch (const TypeError&) {
        detail::throw_damaged("a dict or set holds a key that can't be hashed");
    }
    detail::throw_damaged("an Object is of no known type");
}

}    // namespace multihull
