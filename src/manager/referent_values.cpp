// Namespace, Value and Array.
//
// Thread-safe: each call holds the referent's lock while it looks at or changes what is inside.
#include "manager/referent.hpp"

#include <array>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <mutex>

namespace multihull::detail {

namespace {

constexpr const char* kManagers = "multiprocessing.managers";

class NamespaceReferent : public ReferentOf<NamespaceReferent> {
public:
    explicit NamespaceReferent(Call& call) {
        if (!call.args.empty()) raise("TypeError", "Namespace() takes keyword arguments only");
        if (!call.kwargs.is_none()) attributes_ = std::move(call.kwargs);
    }

    static const Methods<NamespaceReferent>& methods() {
        using N = NamespaceReferent;
        static const Methods<N> methods{{"__getattribute__", &N::get},
                                        {"__setattr__", &N::set},
                                        {"__delattr__", &N::erase},
                                        {"get", &N::get},
                                        {"set", &N::set},
                                        {"delete", &N::erase},
                                        {"add", &N::add},
                                        {"compare_exchange", &N::compare_exchange},
                                        {"apply", &N::apply}};
        return methods;
    }

    std::string repr() override {
        const std::lock_guard guard(mutex_);
        std::vector<std::string> parts;
        for (const Object& name : attributes_) {
            if (!name.as_str().starts_with('_')) parts.push_back(name.as_str() + "=" + attributes_.at(name).repr());
        }
        std::ranges::sort(parts);
        std::string text = "Namespace(";
        for (std::size_t i = 0; i < parts.size(); ++i) text += (i == 0 ? "" : ", ") + parts[i];
        return text + ")";
    }

    Object value() override {
        const std::lock_guard guard(mutex_);
        return instance_of(kManagers, "Namespace", {}, attributes_, true);
    }

    void visit(const std::function<void(const Object&)>& visitor) override {
        const std::lock_guard guard(mutex_);
        std::ranges::for_each(attributes_.values(), visitor);
    }

private:
    [[noreturn]] static void raise_missing(const Object& name) {
        raise("AttributeError", "'Namespace' object has no attribute '" + name.to_string() + "'");
    }

    const Object* find(const Object& name) const {
        return attributes_.contains(name) ? &attributes_.at(name) : nullptr;
    }

    static const Object& name_of(const Object& name) {
        if (name.type() != Object::Type::str) {
            raise("TypeError", "attribute name must be string, not '" + std::string(name.type_name()) + "'");
        }
        return name;
    }

    Reply get(Call& call) {
        const Object& name = name_of(*call.bind({"name"}, 1)[0]);
        const std::lock_guard guard(mutex_);
        const Object* const found = find(name);
        if (found == nullptr) raise_missing(name);
        return *found;
    }

    Reply set(Call& call) {
        const auto args = call.bind({"name", "value"}, 2);
        const std::lock_guard guard(mutex_);
        attributes_[name_of(*args[0])] = std::move(*args[1]);
        return Object();
    }

    Reply erase(Call& call) {
        const Object& name = name_of(*call.bind({"name"}, 1)[0]);
        const std::lock_guard guard(mutex_);
        if (!attributes_.contains(name)) raise_missing(name);
        attributes_.erase(name);
        return Object();
    }

    Reply add(Call& call) {
        if (call.args.empty()) raise("TypeError", "add() missing the name");
        const Object& name = name_of(call.args[0]);
        const std::lock_guard guard(mutex_);
        Object result = added(find(name), call, 1);
        attributes_[name] = result;
        return result;
    }

    Reply compare_exchange(Call& call) {
        const auto args = call.bind({"name", "expected", "desired"}, 3);
        const Object& name = name_of(*args[0]);
        const std::lock_guard guard(mutex_);
        const Object* const old = find(name);
        if (old == nullptr ? !args[1]->is_none() : *old != *args[1]) return Object(false);
        attributes_[name] = std::move(*args[2]);
        return Object(true);
    }

    Reply apply(Call& call) {
        if (call.args.empty()) raise("TypeError", "apply() missing the name");
        const Object& name = name_of(call.args[0]);
        const std::lock_guard guard(mutex_);
        Object result = applied(find(name), call, 1);
        attributes_[name] = result;
        return result;
    }

    std::mutex mutex_;
    Object attributes_ = Object::dict();
};

class ValueReferent : public ReferentOf<ValueReferent> {
public:
    explicit ValueReferent(Call& call) {
        const auto args = call.bind({"typecode", "value", "lock"}, 2);
        typecode_ = std::move(*args[0]);
        value_ = std::move(*args[1]);
    }

    static const Methods<ValueReferent>& methods() {
        using V = ValueReferent;
        static const Methods<V> methods{{"get", &V::get},
                                        {"set", &V::set},
                                        {"add", &V::add},
                                        {"compare_exchange", &V::compare_exchange},
                                        {"apply", &V::apply}};
        return methods;
    }

    std::string repr() override {
        const std::lock_guard guard(mutex_);
        return "Value(" + typecode_.repr() + ", " + value_.repr() + ")";
    }

    Object value() override {
        const std::lock_guard guard(mutex_);
        return instance_of(kManagers, "Value", {}, Object::dict({{"_typecode", typecode_}, {"_value", value_}}), true);
    }

    void visit(const std::function<void(const Object&)>& visitor) override {
        const std::lock_guard guard(mutex_);
        visitor(value_);
    }

private:
    Reply get(Call& call) {
        call.bind({}, 0);
        const std::lock_guard guard(mutex_);
        return value_;
    }

    Reply set(Call& call) {
        Object& value = *call.bind({"value"}, 1)[0];
        const std::lock_guard guard(mutex_);
        value_ = std::move(value);
        return Object();
    }

    Reply add(Call& call) {
        const std::lock_guard guard(mutex_);
        value_ = added(&value_, call, 0);
        return value_;
    }

    Reply compare_exchange(Call& call) {
        const auto args = call.bind({"expected", "desired"}, 2);
        const std::lock_guard guard(mutex_);
        if (value_ != *args[0]) return Object(false);
        value_ = std::move(*args[1]);
        return Object(true);
    }

    Reply apply(Call& call) {
        const std::lock_guard guard(mutex_);
        value_ = applied(&value_, call, 0);
        return value_;
    }

    std::mutex mutex_;
    Object typecode_;
    Object value_;
};

/// What an array's elements are in memory: Python's typecodes as they are on Linux with 64 bits.
struct ElementKind {
    char code;
    std::size_t size;
    bool is_signed;
    const char* name;
};
constexpr std::array kKinds{
    ElementKind{'b', 1, true, "signed char"},   ElementKind{'B', 1, false, "unsigned byte integer"},
    ElementKind{'h', 2, true, "short integer"}, ElementKind{'H', 2, false, "unsigned short"},
    ElementKind{'i', 4, true, "integer"},       ElementKind{'I', 4, false, "unsigned int"},
    ElementKind{'l', 8, true, "int"},           ElementKind{'L', 8, false, "unsigned int"},
    ElementKind{'q', 8, true, "int"},           ElementKind{'Q', 8, false, "unsigned int"},
    ElementKind{'f', 4, true, "float"},         ElementKind{'d', 8, true, "double"},
};

class ArrayReferent : public ReferentOf<ArrayReferent> {
public:
    explicit ArrayReferent(Call& call) {
        const auto args = call.bind({"typecode", "sequence", "lock"}, 2);
        const std::string& code = args[0]->as_str();
        const auto* const kind = std::ranges::find_if(kKinds, [&](const ElementKind& each) {
            return code.size() == 1 && each.code == code[0];
        });
        if (kind == kKinds.end()) {
            raise("ValueError", "bad typecode (must be b, B, h, H, i, I, l, L, q, Q, f or d here)");
        }
        kind_ = *kind;
        items_ = elements_from(*args[1], call.context);
    }

    static const Methods<ArrayReferent>& methods() {
        using A = ArrayReferent;
        static const Methods<A> methods{{"__len__", &A::size}, {"__getitem__", &A::at}, {"__setitem__", &A::put}};
        return methods;
    }

    std::string repr() override {
        const std::lock_guard guard(mutex_);
        const std::string code = std::string("array('") + kind_.code + "'";
        return items_.empty() ? code + ")" : code + ", " + Object::list(items_).repr() + ")";
    }

    Object value() override {
        const std::lock_guard guard(mutex_);
        return array_of(items_);
    }

private:
    bool is_floating() const noexcept { return kind_.code == 'f' || kind_.code == 'd'; }

    // As an element of this array; throws as array.array does.
    Object element(const Object& object) const {
        if (is_floating()) {
            if (object.type() == Object::Type::str) raise("TypeError", "must be real number, not str");
            const double number = object.as_float();
            return kind_.code == 'f' ? static_cast<double>(static_cast<float>(number)) : number;
        }
        if (object.type() != Object::Type::integer && object.type() != Object::Type::boolean) {
            raise("TypeError", "'" + std::string(object.type_name()) + "' object cannot be interpreted as an integer");
        }
        const std::int64_t number = object.as_int();
        if (!kind_.is_signed && number < 0) {
            raise("OverflowError", std::string(kind_.name) + " is less than minimum");
        }
        if (kind_.size < 8) {
            const unsigned bits = static_cast<unsigned>(kind_.size) * 8 - (kind_.is_signed ? 1 : 0);
            const std::int64_t limit = std::int64_t{1} << bits;
            if (number >= limit) raise("OverflowError", std::string(kind_.name) + " is greater than maximum");
            if (number < -limit) raise("OverflowError", std::string(kind_.name) + " is less than minimum");
        }
        return number;
    }

    std::vector<Object> elements_from(Object& sequence, CallContext& context) const {
        Object object = value_of(sequence, context);
        if (object.type() == Object::Type::instance && object.is_a("array", "array")) return unpacked(object, context);
        std::vector<Object> elements =
            object.type() == Object::Type::bytes ? unpacked(object.as_bytes()) : elements_of(object, context);
        for (Object& each : elements) each = element(each);
        return elements;
    }

    // Another array, which travels with its bytes, or with a list of its elements.
    std::vector<Object> unpacked(const Object& array, CallContext& context) const {
        const auto args = array.as_instance().args.elements();
        if (args.size() != 2 || args[0].as_str() != std::string(1, kind_.code)) {
            raise("TypeError", "bad argument type for built-in operation: an array of the same typecode is needed");
        }
        if (args[1].type() == Object::Type::bytes) return unpacked(args[1].as_bytes());
        Object list = args[1];
        std::vector<Object> elements = elements_of(list, context);
        for (Object& each : elements) each = element(each);
        return elements;
    }

    std::vector<Object> unpacked(std::span<const std::byte> bytes) const {
        if (bytes.size() % kind_.size != 0) raise("ValueError", "bytes length not a multiple of item size");
        std::vector<Object> elements;
        elements.reserve(bytes.size() / kind_.size);
        for (std::size_t at = 0; at < bytes.size(); at += kind_.size) {
            elements.push_back(unpacked_element(bytes.data() + at));
        }
        return elements;
    }

    Object unpacked_element(const std::byte* bytes) const {
        if (kind_.code == 'd') {
            double number = 0;
            std::memcpy(&number, bytes, sizeof number);
            return number;
        }
        if (kind_.code == 'f') {
            float number = 0;
            std::memcpy(&number, bytes, sizeof number);
            return number;
        }
        std::uint64_t bits = 0;
        std::memcpy(&bits, bytes, kind_.size);
        if (!kind_.is_signed) return bits;    // more than 63 bits are refused by Object
        const unsigned unused = 64 - static_cast<unsigned>(kind_.size) * 8;
        return static_cast<std::int64_t>(bits << unused) >> unused;
    }

    Object array_of(const std::vector<Object>& elements) const {
        static_assert(std::endian::native == std::endian::little, "an array travels in this machine's order of bytes");
        std::string bytes;
        bytes.reserve(elements.size() * kind_.size);
        const auto append = [&](const auto& number, std::size_t size) {
            char raw[sizeof number];
            std::memcpy(raw, &number, sizeof number);
            bytes.append(raw, size);
        };
        for (const Object& each : elements) {
            if (kind_.code == 'd') {
                append(each.as_float(), sizeof(double));
            } else if (kind_.code == 'f') {
                append(static_cast<float>(each.as_float()), sizeof(float));
            } else {
                append(each.as_int(), kind_.size);
            }
        }
        return instance_of("array", "array", {std::string(1, kind_.code), Object::bytes(std::string_view(bytes))});
    }

    Reply size(Call& call) {
        call.bind({}, 0);
        const std::lock_guard guard(mutex_);
        return Object(items_.size());
    }

    Reply at(Call& call) {
        const Object& index = *call.bind({"key"}, 1)[0];
        const std::lock_guard guard(mutex_);
        if (const auto slice = slice_of(index, items_.size())) return array_of(sliced(items_, *slice));
        return items_[index_of(index, items_.size(), "array index out of range")];
    }

    Reply put(Call& call) {
        const auto args = call.bind({"key", "value"}, 2);
        if (args[0]->type() == Object::Type::instance) {
            if (!args[1]->is_a("array", "array")) {
                raise("TypeError",
                      "can only assign array (not \"" + std::string(args[1]->type_name()) + "\") to array slice");
            }
            std::vector<Object> elements = unpacked(*args[1], call.context);
            const std::lock_guard guard(mutex_);
            const auto slice = slice_of(*args[0], items_.size());
            if (!slice) index_of(*args[0], 0, "");
            assign_slice(items_, *slice, std::move(elements));
            return Object();
        }
        Object value = element(*args[1]);
        const std::lock_guard guard(mutex_);
        items_[index_of(*args[0], items_.size(), "array assignment index out of range")] = std::move(value);
        return Object();
    }

    std::mutex mutex_;
    ElementKind kind_{};
    std::vector<Object> items_;
};

}    // namespace

void add_value_types(ManagerTypes& types) {
    types.add(type_of<NamespaceReferent>("Namespace"));
    types.add(type_of<ValueReferent>("Value"));
    types.add(type_of<ArrayReferent>("Array"));
}

}    // namespace multihull::detail
