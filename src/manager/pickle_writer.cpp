// Objects to pickles of protocol 4, without frames and without a memo: every value is written where it stands.
#include "manager/pickle.hpp"
#include "manager/pickle_opcodes.hpp"
#include "manager/utf8.hpp"

#include <bit>
#include <cstring>
#include <limits>

namespace multihull::detail {

namespace {

constexpr std::size_t kDeepest = 1000;

class PickleWriter {
public:
    explicit PickleWriter(std::string& out) noexcept : out_(out) {}

    void write(const Object& object) {
        put(Opcode::proto);
        put_byte('\4');
        value(object);
        put(Opcode::stop);
        flush();
    }

private:
    // Most of what is written is a byte or two: it is gathered before the string takes it.
    void flush() {
        out_.append(gathered_, used_);
        used_ = 0;
    }
    void put_byte(char byte) {
        if (used_ == sizeof gathered_) flush();
        gathered_[used_++] = byte;
    }
    void put_bytes(std::string_view bytes) {
        if (bytes.size() > sizeof gathered_ - used_) {
            flush();
            if (bytes.size() > sizeof gathered_) {
                out_ += bytes;
                return;
            }
        }
        std::memcpy(gathered_ + used_, bytes.data(), bytes.size());
        used_ += bytes.size();
    }
    void put(Opcode opcode) { put_byte(static_cast<char>(opcode)); }

    template <class T>
    void put_little_endian(T number) {
        static_assert(std::endian::native == std::endian::little);
        char bytes[sizeof number];
        std::memcpy(bytes, &number, sizeof number);
        put_bytes({bytes, sizeof number});
    }

    void integer(std::int64_t number) {
        if (number >= 0 && number <= 0xff) {
            put(Opcode::binint1);
            put_byte(static_cast<char>(number));
        } else if (number >= 0 && number <= 0xffff) {
            put(Opcode::binint2);
            put_little_endian(static_cast<std::uint16_t>(number));
        } else if (std::in_range<std::int32_t>(number)) {
            put(Opcode::binint);
            put_little_endian(static_cast<std::int32_t>(number));
        } else {
            put(Opcode::long1);
            put_byte('\x8');
            put_little_endian(number);
        }
    }

    void floating(double number) {
        put(Opcode::binfloat);
        const auto bits = std::bit_cast<std::uint64_t>(number);
        for (int shift = 56; shift >= 0; shift -= 8) put_byte(static_cast<char>(bits >> shift));
    }

    void counted(std::string_view bytes, Opcode shortest, Opcode middle, Opcode longest) {
        if (bytes.size() <= 0xff) {
            put(shortest);
            put_byte(static_cast<char>(bytes.size()));
        } else if (bytes.size() <= std::numeric_limits<std::uint32_t>::max()) {
            put(middle);
            put_little_endian(static_cast<std::uint32_t>(bytes.size()));
        } else {
            put(longest);
            put_little_endian(static_cast<std::uint64_t>(bytes.size()));
        }
        put_bytes(bytes);
    }

    void text(std::string_view text) {
        if (!is_utf8(text)) {
            throw PicklingError("a str that is not UTF-8 can't be pickled: send it as bytes (Object::bytes)");
        }
        counted(text, Opcode::short_binunicode, Opcode::binunicode, Opcode::binunicode8);
    }

    void global(const Object::Instance& instance) {
        text(instance.module);
        text(instance.name);
        put(Opcode::stack_global);
    }

    void values(std::span<const Object> objects) {
        for (const Object& object : objects) value(object);
    }

    void tuple(std::span<const Object> elements) {
        static constexpr Opcode kShort[] = {Opcode::empty_tuple, Opcode::tuple1, Opcode::tuple2, Opcode::tuple3};
        const bool is_short = elements.size() <= 3;
        if (!is_short) put(Opcode::mark);
        values(elements);
        put(is_short ? kShort[elements.size()] : Opcode::tuple);
    }

    void list(std::span<const Object> elements) {
        put(Opcode::empty_list);
        if (elements.empty()) return;
        if (elements.size() > 1) put(Opcode::mark);
        values(elements);
        put(elements.size() > 1 ? Opcode::appends : Opcode::append);
    }

    void set(std::span<const Object> elements) {
        put(Opcode::empty_set);
        if (elements.empty()) return;
        put(Opcode::mark);
        values(elements);
        put(Opcode::additems);
    }

    void dict(std::span<const Object> keys, std::span<const Object> values) {
        put(Opcode::empty_dict);
        if (keys.empty()) return;
        if (keys.size() > 1) put(Opcode::mark);
        for (std::size_t i = 0; i < keys.size(); ++i) {
            value(keys[i]);
            value(values[i]);
        }
        put(keys.size() > 1 ? Opcode::setitems : Opcode::setitem);
    }

    void instance(const Object::Instance& instance) {
        global(instance);
        if (instance.args.is_none()) return;    // the class itself
        value(instance.args);
        put(instance.by_new ? Opcode::newobj : Opcode::reduce);
        if (instance.state.is_none()) return;
        value(instance.state);
        put(Opcode::build);
    }

    void value(const Object& object) {
        using Type = Object::Type;
        if (++depth_ > kDeepest) {
            throw PicklingError("an Object that holds others more than " + std::to_string(kDeepest) +
                                " deep can't be pickled: make it flatter");
        }
        switch (object.type()) {
            case Type::none:
                put(Opcode::none);
                break;
            case Type::boolean:
                put(object.as_bool() ? Opcode::newtrue : Opcode::newfalse);
                break;
            case Type::integer:
                integer(object.as_int());
                break;
            case Type::floating:
                floating(object.as_float());
                break;
            case Type::str:
                text(object.as_str());
                break;
            case Type::bytes: {
                const auto bytes = object.as_bytes();
                counted({reinterpret_cast<const char*>(bytes.data()), bytes.size()}, Opcode::short_binbytes,
                        Opcode::binbytes, Opcode::binbytes8);
                break;
            }
            case Type::list:
                list(object.elements());
                break;
            case Type::tuple:
                tuple(object.elements());
                break;
            case Type::dict:
                dict(object.elements(), object.values());
                break;
            case Type::set:
                set(object.elements());
                break;
            case Type::instance:
                instance(object.as_instance());
                break;
        }
        --depth_;
    }

    std::string& out_;
    char gathered_[256];
    std::size_t used_ = 0;
    std::size_t depth_ = 0;
};

}    // namespace

void pickle(const Object& object, std::string& out) {
    const std::size_t before = out.size();
    try {
        PickleWriter(out).write(object);
    } catch (...) {
        out.resize(before);
        throw;
    }
}

std::string pickle(const Object& object) {
    std::string out;
    pickle(object, out);
    return out;
}

}    // namespace multihull::detail
