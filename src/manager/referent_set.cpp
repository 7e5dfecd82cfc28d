#include "manager/containers.hpp"

namespace multihull::detail {

const Methods<SetReferent>& SetReferent::methods() {
    using S = SetReferent;
    using enum Operation;
    static const Methods<S> methods{{"__and__", &S::operate<intersect>},
                                    {"__contains__", &S::contains},
                                    {"__ge__", &S::greater_equal},
                                    {"__gt__", &S::greater},
                                    {"__iand__", &S::operate_here<intersect>},
                                    {"__ior__", &S::operate_here<unite>},
                                    {"__isub__", &S::operate_here<subtract>},
                                    {"__iter__", &S::iterate},
                                    {"__ixor__", &S::operate_here<differ>},
                                    {"__le__", &S::less_equal},
                                    {"__len__", &S::size},
                                    {"__lt__", &S::less},
                                    {"__or__", &S::operate<unite>},
                                    {"__rand__", &S::operate_behind<intersect>},
                                    {"__ror__", &S::operate_behind<unite>},
                                    {"__rsub__", &S::operate_behind<subtract>},
                                    {"__rxor__", &S::operate_behind<differ>},
                                    {"__sub__", &S::operate<subtract>},
                                    {"__xor__", &S::operate<differ>},
                                    {"add", &S::add},
                                    {"clear", &S::clear},
                                    {"copy", &S::copy},
                                    {"difference", &S::combine<subtract>},
                                    {"difference_update", &S::combine_here<subtract>},
                                    {"discard", &S::discard},
                                    {"intersection", &S::combine<intersect>},
                                    {"intersection_update", &S::combine_here<intersect>},
                                    {"isdisjoint", &S::is_disjoint},
                                    {"issubset", &S::is_subset},
                                    {"issuperset", &S::is_superset},
                                    {"pop", &S::pop},
                                    {"remove", &S::remove},
                                    {"symmetric_difference", &S::combine<differ>},
                                    {"symmetric_difference_update", &S::combine_here<differ>},
                                    {"union", &S::combine<unite>},
                                    {"update", &S::combine_here<unite>}};
    return methods;
}

SetReferent::SetReferent(Call& call) {
    const auto args = call.bind({"iterable"}, 0);
    if (args[0] != nullptr) set_ = GappedKeys(set_from(*args[0], call.context));
}

std::string SetReferent::repr() { return value().repr(); }

Object SetReferent::value() {
    const std::lock_guard guard(mutex_);
    return set_.whole();
}

void SetReferent::visit(const std::function<void(const Object&)>& visitor) {
    const std::lock_guard guard(mutex_);
    std::ranges::for_each(set_.whole().elements(), visitor);
}

std::pair<std::size_t, std::optional<Object>> SetReferent::key_at(std::size_t position) {
    const std::lock_guard guard(mutex_);
    const auto keys = set_.whole().elements();
    return {keys.size(), position < keys.size() ? std::optional(keys[position]) : std::nullopt};
}

Object SetReferent::set_from(Object& iterable, CallContext& context) {
    Object object = value_of(iterable, context);
    if (object.type() == Object::Type::set) return object;
    return Object::set(elements_of(object, context));
}

std::optional<Object> SetReferent::set_operand(Call& call) {
    Object object = value_of(*call.bind({"value"}, 1)[0], call.context);
    if (object.type() != Object::Type::set) return std::nullopt;
    return object;
}

Object SetReferent::combined(Operation operation, const Object& left, const Object& right) {
    std::vector<Object> elements;
    for (const Object& element : left) {
        const bool in_both = right.contains(element);
        if (operation == Operation::unite || in_both == (operation == Operation::intersect)) {
            elements.push_back(element);
        }
    }
    if (operation == Operation::unite || operation == Operation::differ) {
        for (const Object& element : right) {
            if (!left.contains(element)) elements.push_back(element);
        }
    }
    return Object::set(std::move(elements));
}

// Operators take sets only; for anything else Python tries the other side's operator, which a proxy can't.
template <SetReferent::Operation operation>
Reply SetReferent::operate(Call& call) {
    const auto other = set_operand(call);
    if (!other) raise("TypeError", "unsupported operand type(s) for " + std::string(call.method) + ": not a set");
    return combined(operation, value(), *other);
}

template <SetReferent::Operation operation>
Reply SetReferent::operate_behind(Call& call) {
    const auto other = set_operand(call);
    if (!other) raise("TypeError", "unsupported operand type(s) for " + std::string(call.method) + ": not a set");
    return combined(operation, *other, value());
}

template <SetReferent::Operation operation>
Reply SetReferent::operate_here(Call& call) {
    const auto other = set_operand(call);
    if (!other) raise("TypeError", "unsupported operand type(s) for " + std::string(call.method) + ": not a set");
    const std::lock_guard guard(mutex_);
    set_ = GappedKeys(combined(operation, set_.whole(), *other));
    return set_.whole();
}

template <SetReferent::Operation operation>
Reply SetReferent::combine(Call& call) {
    if (!call.kwargs.is_none() && !call.kwargs.empty()) raise("TypeError", "set methods take no keyword arguments");
    Object result = value();
    for (Object& arg : call.args) result = combined(operation, result, set_from(arg, call.context));
    return result;
}

template <SetReferent::Operation operation>
Reply SetReferent::combine_here(Call& call) {
    if (!call.kwargs.is_none() && !call.kwargs.empty()) raise("TypeError", "set methods take no keyword arguments");
    std::vector<Object> others;
    for (Object& arg : call.args) others.push_back(set_from(arg, call.context));
    const std::lock_guard guard(mutex_);
    for (const Object& other : others) set_ = GappedKeys(combined(operation, set_.whole(), other));
    return Object();
}

template <class Compare>
Reply SetReferent::compare(Call& call, Compare compare) {
    const auto other = set_operand(call);
    if (!other) raise("TypeError", "'" + std::string(call.method) + "' not supported: the other side is no set");
    const std::lock_guard guard(mutex_);
    return Object(compare(set_.whole(), *other));
}

Reply SetReferent::contains(Call& call) {
    const Object& element = *call.bind({"object"}, 1)[0];
    const std::lock_guard guard(mutex_);
    return Object(set_.contains(element));
}

Reply SetReferent::iterate(Call& call) {
    call.bind({}, 0);
    return NewProxy{"Iterator",
                    std::make_shared<KeyIterator>(std::static_pointer_cast<SetReferent>(shared_from_this()))};
}

Reply SetReferent::size(Call& call) {
    call.bind({}, 0);
    const std::lock_guard guard(mutex_);
    return Object(set_.size());
}

Reply SetReferent::less(Call& call) {
    return compare(call, [](const Object& left, const Object& right) { return left < right; });
}

Reply SetReferent::less_equal(Call& call) {
    return compare(call, [](const Object& left, const Object& right) { return left <= right; });
}

Reply SetReferent::greater(Call& call) {
    return compare(call, [](const Object& left, const Object& right) { return left > right; });
}

Reply SetReferent::greater_equal(Call& call) {
    return compare(call, [](const Object& left, const Object& right) { return left >= right; });
}

Reply SetReferent::add(Call& call) {
    Object& element = *call.bind({"element"}, 1)[0];
    const std::lock_guard guard(mutex_);
    set_.add(std::move(element));
    return Object();
}

Reply SetReferent::clear(Call& call) {
    call.bind({}, 0);
    const std::lock_guard guard(mutex_);
    set_ = GappedKeys(Object::set());
    return Object();
}

Reply SetReferent::copy(Call& call) {
    call.bind({}, 0);
    return value();
}

Reply SetReferent::discard(Call& call) {
    const Object& element = *call.bind({"element"}, 1)[0];
    const std::lock_guard guard(mutex_);
    set_.erase(element);
    return Object();
}

Reply SetReferent::is_disjoint(Call& call) {
    const Object other = set_from(*call.bind({"other"}, 1)[0], call.context);
    const std::lock_guard guard(mutex_);
    return Object(std::ranges::none_of(other, [&](const Object& element) { return set_.contains(element); }));
}

Reply SetReferent::is_subset(Call& call) {
    const Object other = set_from(*call.bind({"other"}, 1)[0], call.context);
    const std::lock_guard guard(mutex_);
    return Object(set_.whole() <= other);
}

Reply SetReferent::is_superset(Call& call) {
    const Object other = set_from(*call.bind({"other"}, 1)[0], call.context);
    const std::lock_guard guard(mutex_);
    return Object(set_.whole() >= other);
}

Reply SetReferent::pop(Call& call) {
    call.bind({}, 0);
    const std::lock_guard guard(mutex_);
    const Object* const newest = set_.last();
    if (newest == nullptr) raise("KeyError", "pop from an empty set");
    Object element = *newest;
    set_.erase(element);
    return element;
}

Reply SetReferent::remove(Call& call) {
    const Object& element = *call.bind({"element"}, 1)[0];
    const std::lock_guard guard(mutex_);
    if (!set_.erase(element)) throw PythonException("builtins", "KeyError", {element});
    return Object();
}

}    // namespace multihull::detail
