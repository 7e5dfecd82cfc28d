// What an Object is made of, and access to its parts. Comparing, printing and travelling have files of their own.
#include <multihull/object.hpp>

#include "manager/object_table.hpp"

#include <algorithm>
#include <array>

namespace multihull {

namespace detail {

void throw_integer_too_big(const std::string& digits) {
    throw Error("an Object's int has 64 bits and a sign, and " + digits + " needs more: send it as a str or a float");
}
void throw_integer_does_not_fit(std::int64_t value) {
    throw Error("the int " + std::to_string(value) + " does not fit into the type asked for: ask for std::int64_t");
}

}    // namespace detail

Object::Object(const Object& other) = default;
Object::Object(Object&& other) noexcept : value_(std::move(other.value_)) { other.value_.emplace<std::monostate>(); }
Object& Object::operator=(const Object& other) {
    // A part of this object may be what it becomes.
    Object copy(other);
    value_.swap(copy.value_);
    return *this;
}
Object& Object::operator=(Object&& other) noexcept {
    // The same holds here: it is out of the way before what it may lie in goes.
    Object taken(std::move(other));
    value_ = std::move(taken.value_);
    return *this;
}
Object::~Object() = default;

Object Object::list(std::vector<Object> elements) {
    Object object;
    object.value_ = List{std::move(elements)};
    return object;
}

Object Object::tuple(std::vector<Object> elements) {
    Object object;
    object.value_ = Tuple{std::move(elements)};
    return object;
}

Object Object::set(std::vector<Object> elements) {
    Set set;
    for (auto& element : elements) set.table->add(std::move(element));
    Object object;
    object.value_ = std::move(set);
    return object;
}

Object Object::dict(std::initializer_list<std::pair<Object, Object>> items) {
    Dict dict;
    for (const auto& [key, value] : items) dict.table->value_for(key) = value;
    Object object;
    object.value_ = std::move(dict);
    return object;
}

Object Object::bytes(std::span<const std::byte> bytes) {
    return Object::bytes(std::string_view(reinterpret_cast<const char*>(bytes.data()), bytes.size()));
}

Object Object::bytes(std::string_view bytes) {
    Object object;
    object.value_ = Bytes{std::string(bytes)};
    return object;
}

Object::InstanceBox::InstanceBox(Instance instance) : instance_(std::make_unique<Instance>(std::move(instance))) {}
Object::InstanceBox::InstanceBox(const InstanceBox& other) : instance_(std::make_unique<Instance>(*other.instance_)) {}
Object::InstanceBox::InstanceBox(InstanceBox&& other) noexcept = default;
Object::InstanceBox& Object::InstanceBox::operator=(InstanceBox other) noexcept {
    instance_.swap(other.instance_);
    return *this;
}
Object::InstanceBox::~InstanceBox() = default;

Object Object::instance(Instance instance) {
    if (!instance.args.is_none() && instance.args.type() != Type::tuple)
        instance.args.throw_is_not("an instance's args, a tuple");
    Object object;
    object.value_ = InstanceBox(std::move(instance));
    return object;
}

const char* Object::type_name(Type type) noexcept {
    static constexpr std::array kNames{"NoneType", "bool",  "int",  "float", "str",     "bytes",
                                       "list",     "tuple", "dict", "set",   "instance"};
    return kNames[static_cast<std::size_t>(type)];
}

const char* Object::type_name() const noexcept {
    const auto* const value = std::get_if<InstanceBox>(&value_);
    if (value == nullptr) return type_name(type());
    return (**value).args.is_none() ? "type" : (**value).name.c_str();
}

void Object::throw_is_not(const char* wanted) const {
    throw TypeError(std::string("an Object that is a ") + type_name() + " was used as " + wanted +
                    ": look at its type() first");
}

bool Object::as_bool() const {
    if (const auto* const value = std::get_if<bool>(&value_)) return *value;
    throw_is_not("a bool");
}

std::int64_t Object::as_int() const {
    if (const auto* const value = std::get_if<std::int64_t>(&value_)) return *value;
    if (const auto* const value = std::get_if<bool>(&value_)) return *value ? 1 : 0;
    throw_is_not("an int");
}

double Object::as_float() const {
    if (const auto* const value = std::get_if<double>(&value_)) return *value;
    if (is_number()) return static_cast<double>(as_int());
    throw_is_not("a float");
}

const std::string& Object::as_str() const {
    if (const auto* const value = std::get_if<std::string>(&value_)) return *value;
    throw_is_not("a str");
}

std::span<const std::byte> Object::as_bytes() const {
    if (const auto* const value = std::get_if<Bytes>(&value_)) return std::as_bytes(std::span(value->bytes));
    throw_is_not("bytes");
}

const std::vector<Object>& Object::as_list() const {
    if (const auto* const value = std::get_if<List>(&value_)) return value->elements;
    throw_is_not("a list");
}
std::vector<Object>& Object::as_list() { return const_cast<std::vector<Object>&>(std::as_const(*this).as_list()); }

const Object::Instance& Object::as_instance() const {
    if (const auto* const value = std::get_if<InstanceBox>(&value_)) return **value;
    throw_is_not("an instance of a class");
}

bool Object::is_a(std::string_view module, std::string_view name) const noexcept {
    const auto* const value = std::get_if<InstanceBox>(&value_);
    return value != nullptr && !(**value).args.is_none() && (**value).name == name && (**value).module == module;
}

detail::ObjectTable* Object::table() const noexcept {
    if (const auto* const value = std::get_if<Dict>(&value_)) return &*value->table;
    if (const auto* const value = std::get_if<Set>(&value_)) return &*value->table;
    return nullptr;
}

const std::vector<Object>* Object::sequence() const noexcept {
    if (const auto* const value = std::get_if<List>(&value_)) return &value->elements;
    if (const auto* const value = std::get_if<Tuple>(&value_)) return &value->elements;
    return nullptr;
}

std::span<const Object> Object::elements() const {
    if (const auto* const elements = sequence()) return *elements;
    if (const auto* const keys = table()) return keys->keys();
    throw_is_not("something that has elements");
}

std::span<const Object> Object::values() const {
    if (type() != Type::dict) throw_is_not("a dict");
    return table()->values();
}

std::size_t Object::size() const {
    if (type() == Type::str) {
        // Every byte but UTF-8's continuation bytes begins a code point.
        const auto begins = [](char byte) { return (static_cast<unsigned char>(byte) & 0xc0U) != 0x80; };
        return static_cast<std::size_t>(std::ranges::count_if(as_str(), begins));
    }
    if (type() == Type::bytes) return as_bytes().size();
    if (sequence() == nullptr && table() == nullptr) throw_is_not("something that has a length");
    return elements().size();
}

// Null where there is no such element or key.
const Object* Object::find(const Object& key) const {
    if (const auto* const elements = sequence()) {
        if (key.type() != Type::integer && key.type() != Type::boolean) key.throw_is_not("the number of an element");
        const auto count = static_cast<std::int64_t>(elements->size());
        const std::int64_t index = key.as_int();
        if (index < -count || index >= count) return nullptr;
        return elements->data() + (index < 0 ? index + count : index);
    }
    if (type() != Type::dict) throw_is_not("a list, tuple or dict");
    const auto index = table()->find(key);
    return index ? &table()->values()[*index] : nullptr;
}

const Object& Object::existing(const Object& key) const {
    if (const Object* const found = find(key)) return *found;
    if (type() == Type::dict) throw KeyError("a dict has no key " + key.repr() + ": ask with contains() first");
    throw IndexError("a " + std::string(type_name()) + " of " + std::to_string(elements().size()) +
                     " elements has none with the number " + key.repr());
}

const Object& Object::at(const Object& key) const { return existing(key); }
Object& Object::at(const Object& key) { return const_cast<Object&>(existing(key)); }
Object& Object::operator[](const Object& key) { return type() == Type::dict ? table()->value_for(key) : at(key); }

bool Object::contains(const Object& what) const {
    if (const auto* const elements = sequence()) return std::ranges::find(*elements, what) != elements->end();
    if (const auto* const keys = table()) return keys->find(what).has_value();
    if (type() == Type::str) return as_str().find(what.as_str()) != std::string::npos;
    if (const auto* const value = std::get_if<Bytes>(&value_)) {
        if (const auto* const part = std::get_if<Bytes>(&what.value_)) {
            return value->bytes.find(part->bytes) != std::string::npos;
        }
        const std::int64_t byte = what.as_int();
        if (byte < 0 || byte > 255) throw Error("a byte is a number from 0 to 255, not " + what.repr());
        return value->bytes.find(static_cast<char>(byte)) != std::string::npos;
    }
    throw_is_not("something that has elements");
}

void Object::append(Object element) { as_list().push_back(std::move(element)); }

bool Object::add(Object element) {
    if (type() != Type::set) throw_is_not("a set");
    return table()->add(std::move(element));
}

void Object::erase(const Object& key) {
    if (auto* const keys = table()) {
        if (!keys->erase(key)) throw KeyError("a " + std::string(type_name()) + " has no key " + key.repr());
        keys->compact();
        return;
    }
    auto& elements = as_list();
    elements.erase(elements.begin() + (&existing(key) - elements.data()));
}

}    // namespace multihull
