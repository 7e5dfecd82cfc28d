#include "manager/containers.hpp"

namespace multihull::detail {

const Methods<DictReferent>& DictReferent::methods() {
    using D = DictReferent;
    static const Methods<D> methods{{"__contains__", &D::contains},
                                    {"__delitem__", &D::erase},
                                    {"__getitem__", &D::at},
                                    {"__ior__", &D::unite_here},
                                    {"__iter__", &D::iterate},
                                    {"__len__", &D::size},
                                    {"__or__", &D::unite},
                                    {"__reversed__", &D::reversed},
                                    {"__ror__", &D::unite_behind},
                                    {"__setitem__", &D::put},
                                    {"clear", &D::clear},
                                    {"copy", &D::copy},
                                    {"fromkeys", &D::from_keys},
                                    {"get", &D::get},
                                    {"items", &D::items},
                                    {"keys", &D::keys},
                                    {"pop", &D::pop},
                                    {"popitem", &D::pop_item},
                                    {"setdefault", &D::set_default},
                                    {"update", &D::update},
                                    {"values", &D::values},
                                    {"add", &D::add},
                                    {"compare_exchange", &D::compare_exchange},
                                    {"apply", &D::apply}};
    return methods;
}

namespace {

[[noreturn]] void raise_no_key(const Object& key) { throw PythonException("builtins", "KeyError", {key}); }

// The positional argument of dict() and update(), where there is one, and the keywords, as one dict.
Object dict_arguments(Call& call) {
    if (call.args.size() > 1) {
        raise("TypeError",
              std::string(call.method) + " expected at most 1 argument, got " + std::to_string(call.args.size()));
    }
    Object dict = call.args.empty() ? Object::dict() : dict_of(call.args[0], call.context);
    if (!call.kwargs.is_none()) {
        for (const Object& key : call.kwargs) dict[key] = call.kwargs.at(key);
    }
    return dict;
}

}    // namespace

DictReferent::DictReferent(Call& call) : dict_(dict_arguments(call)) {}

std::string DictReferent::repr() { return value().repr(); }

Object DictReferent::value() {
    const std::lock_guard guard(mutex_);
    return dict_.whole();
}

void DictReferent::visit(const std::function<void(const Object&)>& visitor) {
    const std::lock_guard guard(mutex_);
    const Object& dict = dict_.whole();
    std::ranges::for_each(dict.elements(), visitor);
    std::ranges::for_each(dict.values(), visitor);
}

std::pair<std::size_t, std::optional<Object>> DictReferent::key_at(std::size_t position) {
    const std::lock_guard guard(mutex_);
    const auto keys = dict_.whole().elements();
    return {keys.size(), position < keys.size() ? std::optional(keys[position]) : std::nullopt};
}

void DictReferent::merge(Object other) {
    const std::lock_guard guard(mutex_);
    for (const Object& key : other) dict_[key] = std::move(other.at(key));
}

Reply DictReferent::contains(Call& call) {
    const Object& key = *call.bind({"key"}, 1)[0];
    const std::lock_guard guard(mutex_);
    return Object(dict_.contains(key));
}

Reply DictReferent::erase(Call& call) {
    const Object& key = *call.bind({"key"}, 1)[0];
    const std::lock_guard guard(mutex_);
    if (!dict_.erase(key)) raise_no_key(key);
    return Object();
}

Reply DictReferent::at(Call& call) {
    const Object& key = *call.bind({"key"}, 1)[0];
    const std::lock_guard guard(mutex_);
    const Object* const found = dict_.find(key);
    if (found == nullptr) raise_no_key(key);
    return *found;
}

Reply DictReferent::iterate(Call& call) {
    call.bind({}, 0);
    return NewProxy{"Iterator",
                    std::make_shared<KeyIterator>(std::static_pointer_cast<DictReferent>(shared_from_this()))};
}

Reply DictReferent::size(Call& call) {
    call.bind({}, 0);
    const std::lock_guard guard(mutex_);
    return Object(dict_.size());
}

Reply DictReferent::unite(Call& call) {
    Object other = value_of(*call.bind({"value"}, 1)[0], call.context);
    if (other.type() != Object::Type::dict) {
        raise("TypeError", "unsupported operand type(s) for |: 'dict' and '" + std::string(other.type_name()) + "'");
    }
    Object all = value();
    for (const Object& key : other) all[key] = other.at(key);
    return all;
}

Reply DictReferent::unite_behind(Call& call) {
    Object all = value_of(*call.bind({"value"}, 1)[0], call.context);
    if (all.type() != Object::Type::dict) {
        raise("TypeError", "unsupported operand type(s) for |: '" + std::string(all.type_name()) + "' and 'dict'");
    }
    const std::lock_guard guard(mutex_);
    const Object& dict = dict_.whole();
    for (const Object& key : dict) all[key] = dict.at(key);
    return all;
}

Reply DictReferent::unite_here(Call& call) {
    merge(dict_of(*call.bind({"value"}, 1)[0], call.context));
    return value();
}

Reply DictReferent::reversed(Call& call) {
    call.bind({}, 0);
    const std::lock_guard guard(mutex_);
    const Object& dict = dict_.whole();
    std::vector<Object> keys(dict.begin(), dict.end());
    std::ranges::reverse(keys);
    return instance_of("builtins", "iter", {Object::list(std::move(keys))});
}

Reply DictReferent::put(Call& call) {
    const auto args = call.bind({"key", "value"}, 2);
    const std::lock_guard guard(mutex_);
    dict_[*args[0]] = std::move(*args[1]);
    return Object();
}

Reply DictReferent::clear(Call& call) {
    call.bind({}, 0);
    const std::lock_guard guard(mutex_);
    dict_ = GappedKeys(Object::dict());
    return Object();
}

Reply DictReferent::copy(Call& call) {
    call.bind({}, 0);
    return value();
}

Reply DictReferent::from_keys(Call& call) {
    const auto args = call.bind({"iterable", "value"}, 1);
    Object dict = Object::dict();
    for (const Object& key : elements_of(*args[0], call.context)) dict[key] = args[1] == nullptr ? Object() : *args[1];
    return dict;
}

Reply DictReferent::get(Call& call) {
    const auto args = call.bind({"key", "default"}, 1);
    const std::lock_guard guard(mutex_);
    if (const Object* const found = dict_.find(*args[0])) return *found;
    return args[1] == nullptr ? Object() : std::move(*args[1]);
}

Reply DictReferent::items(Call& call) {
    call.bind({}, 0);
    const std::lock_guard guard(mutex_);
    std::vector<Object> items;
    items.reserve(dict_.size());
    const auto keys = dict_.whole().elements();
    const auto values = dict_.whole().values();
    for (std::size_t i = 0; i < values.size(); ++i) {
        items.push_back(Object::tuple(std::vector<Object>{keys[i], values[i]}));
    }
    return Object::list(std::move(items));
}

Reply DictReferent::keys(Call& call) {
    call.bind({}, 0);
    const std::lock_guard guard(mutex_);
    const Object& dict = dict_.whole();
    return Object::list(std::vector<Object>(dict.begin(), dict.end()));
}

Reply DictReferent::pop(Call& call) {
    const auto args = call.bind({"key", "default"}, 1);
    const std::lock_guard guard(mutex_);
    if (!dict_.contains(*args[0])) {
        if (args[1] == nullptr) raise_no_key(*args[0]);
        return std::move(*args[1]);
    }
    Object value = std::move(dict_[*args[0]]);
    dict_.erase(*args[0]);
    return value;
}

Reply DictReferent::pop_item(Call& call) {
    call.bind({}, 0);
    const std::lock_guard guard(mutex_);
    const Object* const newest = dict_.last();
    if (newest == nullptr) raise("KeyError", "popitem(): dictionary is empty");
    Object key = *newest;
    Object value = std::move(dict_[key]);
    dict_.erase(key);
    return Object::tuple(std::vector<Object>{std::move(key), std::move(value)});
}

Reply DictReferent::set_default(Call& call) {
    const auto args = call.bind({"key", "default"}, 1);
    const std::lock_guard guard(mutex_);
    if (const Object* const found = dict_.find(*args[0])) return *found;
    Object& place = dict_[*args[0]];
    if (args[1] != nullptr) place = std::move(*args[1]);
    return place;
}

Reply DictReferent::update(Call& call) {
    merge(dict_arguments(call));
    return Object();
}

Reply DictReferent::values(Call& call) {
    call.bind({}, 0);
    const std::lock_guard guard(mutex_);
    const auto values = dict_.whole().values();
    return Object::list(std::vector<Object>(values.begin(), values.end()));
}

Reply DictReferent::add(Call& call) {
    if (call.args.empty()) raise("TypeError", "add() missing the key");
    const std::lock_guard guard(mutex_);
    Object result = added(dict_.find(call.args[0]), call, 1);
    dict_[call.args[0]] = result;
    return result;
}

// A key that is missing is as good as None.
Reply DictReferent::compare_exchange(Call& call) {
    const auto args = call.bind({"key", "expected", "desired"}, 3);
    const std::lock_guard guard(mutex_);
    const Object* const old = dict_.find(*args[0]);
    if (old == nullptr ? !args[1]->is_none() : *old != *args[1]) return Object(false);
    dict_[*args[0]] = std::move(*args[2]);
    return Object(true);
}

Reply DictReferent::apply(Call& call) {
    if (call.args.empty()) raise("TypeError", "apply() missing the key");
    const std::lock_guard guard(mutex_);
    Object result = applied(dict_.find(call.args[0]), call, 1);
    dict_[call.args[0]] = result;
    return result;
}

const Methods<KeyIterator>& KeyIterator::methods() {
    static const Methods<KeyIterator> methods{{"__next__", &KeyIterator::next},
                                              {"send", &KeyIterator::has_not},
                                              {"throw", &KeyIterator::has_not},
                                              {"close", &KeyIterator::has_not}};
    return methods;
}

KeyIterator::KeyIterator(std::shared_ptr<Keyed> keyed) : keyed_(std::move(keyed)), size_(keyed_->key_at(0).first) {}

std::string KeyIterator::repr() { return "<iterator over the keys of a dict or a set>"; }

Object KeyIterator::value() { raise("TypeError", "an iterator has no value to be copied"); }

Reply KeyIterator::next(Call& call) {
    call.bind({}, 0);
    const std::lock_guard guard(mutex_);
    if (keyed_ != nullptr) {
        auto [size, key] = keyed_->key_at(position_);
        if (size != size_) {
            raise("RuntimeError", std::string(keyed_->kind()) + " changed size during iteration");
        }
        ++position_;
        if (key) return std::move(*key);
        keyed_ = nullptr;
    }
    throw PythonException("builtins", "StopIteration", {});
}

// Only generators have send(), throw() and close(), which proxies of iterators expose all the same.
Reply KeyIterator::has_not(Call& call) {
    raise("AttributeError", "'dict_keyiterator' object has no attribute '" + std::string(call.method) + "'");
}

void add_container_types(ManagerTypes& types) {
    types.add(type_of<DictReferent>("dict"));
    types.add(type_of<ListReferent>("list"));
    types.add(type_of<SetReferent>("set"));
    types.add({.name = "Iterator", .exposed = KeyIterator::methods().names(), .create = {}});
}

}    // namespace multihull::detail
