#include "manager/containers.hpp"

#include <numeric>

namespace multihull::detail {

namespace {

constexpr std::size_t kMostElements = std::size_t{1} << 31;

}    // namespace

const Methods<ListReferent>& ListReferent::methods() {
    using L = ListReferent;
    static const Methods<L> methods{{"__add__", &L::plus},
                                    {"__contains__", &L::contains},
                                    {"__delitem__", &L::erase},
                                    {"__getitem__", &L::at},
                                    {"__imul__", &L::multiply},
                                    {"__len__", &L::size},
                                    {"__mul__", &L::times},
                                    {"__reversed__", &L::reversed},
                                    {"__rmul__", &L::times},
                                    {"__setitem__", &L::put},
                                    {"append", &L::append},
                                    {"clear", &L::clear},
                                    {"copy", &L::copy},
                                    {"count", &L::count},
                                    {"extend", &L::extend},
                                    {"index", &L::index},
                                    {"insert", &L::insert},
                                    {"pop", &L::pop},
                                    {"remove", &L::remove},
                                    {"reverse", &L::reverse},
                                    {"sort", &L::sort},
                                    {"add", &L::add},
                                    {"compare_exchange", &L::compare_exchange},
                                    {"apply", &L::apply}};
    return methods;
}

ListReferent::ListReferent(Call& call) {
    const auto args = call.bind({"iterable"}, 0);
    if (args[0] != nullptr) items_ = elements_of(*args[0], call.context);
}

std::string ListReferent::repr() { return value().repr(); }

Object ListReferent::value() {
    const std::lock_guard guard(mutex_);
    return Object::list(items_);
}

void ListReferent::visit(const std::function<void(const Object&)>& visitor) {
    const std::lock_guard guard(mutex_);
    std::ranges::for_each(items_, visitor);
}

std::size_t ListReferent::place(const Object& index, const char* sentence) const {
    return index_of(index, items_.size(), sentence);
}

Reply ListReferent::plus(Call& call) {
    Object other = value_of(*call.bind({"value"}, 1)[0], call.context);
    if (other.type() != Object::Type::list) {
        raise("TypeError", "can only concatenate list (not \"" + std::string(other.type_name()) + "\") to list");
    }
    return sum(value(), other);
}

Reply ListReferent::contains(Call& call) {
    const Object& wanted = *call.bind({"key"}, 1)[0];
    const std::lock_guard guard(mutex_);
    return Object(std::ranges::find(items_, wanted) != items_.end());
}

Reply ListReferent::erase(Call& call) {
    const Object& index = *call.bind({"key"}, 1)[0];
    const std::lock_guard guard(mutex_);
    if (const auto slice = slice_of(index, items_.size())) {
        erase_slice(items_, *slice);
    } else {
        items_.erase(items_.begin() + static_cast<std::ptrdiff_t>(place(index, "list assignment index out of range")));
    }
    return Object();
}

Reply ListReferent::at(Call& call) {
    const Object& index = *call.bind({"key"}, 1)[0];
    const std::lock_guard guard(mutex_);
    if (const auto slice = slice_of(index, items_.size())) return Object::list(sliced(items_, *slice));
    return items_[place(index, "list index out of range")];
}

std::vector<Object> ListReferent::repeated(const Object& times) const {
    if (times.type() != Object::Type::integer && times.type() != Object::Type::boolean) {
        raise("TypeError", "can't multiply sequence by non-int of type '" + std::string(times.type_name()) + "'");
    }
    const auto count = static_cast<std::size_t>(std::max<std::int64_t>(0, times.as_int()));
    if (!items_.empty() && count > kMostElements / items_.size()) raise("MemoryError", "the list would be too long");
    std::vector<Object> all;
    all.reserve(items_.size() * count);
    for (std::size_t n = 0; n < count && !items_.empty(); ++n) all.insert(all.end(), items_.begin(), items_.end());
    return all;
}

Reply ListReferent::times(Call& call) {
    const Object& count = *call.bind({"value"}, 1)[0];
    const std::lock_guard guard(mutex_);
    return Object::list(repeated(count));
}

// Answers the list, as Python's does: its proxies don't look at it.
Reply ListReferent::multiply(Call& call) {
    const Object& count = *call.bind({"value"}, 1)[0];
    const std::lock_guard guard(mutex_);
    items_ = repeated(count);
    return Object::list(items_);
}

Reply ListReferent::size(Call& call) {
    call.bind({}, 0);
    const std::lock_guard guard(mutex_);
    return Object(items_.size());
}

Reply ListReferent::reversed(Call& call) {
    call.bind({}, 0);
    return instance_of("builtins", "reversed", {value()});
}

Reply ListReferent::put(Call& call) {
    const auto args = call.bind({"key", "value"}, 2);
    if (args[0]->type() == Object::Type::instance) {
        std::vector<Object> elements = elements_of(*args[1], call.context);
        const std::lock_guard guard(mutex_);
        const auto slice = slice_of(*args[0], items_.size());
        if (!slice) place(*args[0], "");
        assign_slice(items_, *slice, std::move(elements));
        return Object();
    }
    const std::lock_guard guard(mutex_);
    items_[place(*args[0], "list assignment index out of range")] = std::move(*args[1]);
    return Object();
}

Reply ListReferent::append(Call& call) {
    Object& element = *call.bind({"object"}, 1)[0];
    const std::lock_guard guard(mutex_);
    items_.push_back(std::move(element));
    return Object();
}

Reply ListReferent::clear(Call& call) {
    call.bind({}, 0);
    const std::lock_guard guard(mutex_);
    items_.clear();
    return Object();
}

Reply ListReferent::copy(Call& call) {
    call.bind({}, 0);
    return value();
}

Reply ListReferent::count(Call& call) {
    const Object& wanted = *call.bind({"value"}, 1)[0];
    const std::lock_guard guard(mutex_);
    return Object(static_cast<std::int64_t>(std::ranges::count(items_, wanted)));
}

Reply ListReferent::extend(Call& call) {
    std::vector<Object> more = elements_of(*call.bind({"iterable"}, 1)[0], call.context);
    const std::lock_guard guard(mutex_);
    items_.insert(items_.end(), std::move_iterator(more.begin()), std::move_iterator(more.end()));
    return Object();
}

Reply ListReferent::index(Call& call) {
    const auto args = call.bind({"value", "start", "stop"}, 1);
    const std::lock_guard guard(mutex_);
    const auto size = static_cast<std::int64_t>(items_.size());
    const auto bound = [&](const Object* object, std::int64_t otherwise) {
        if (object == nullptr) return otherwise;
        const std::int64_t at = object->as_int();
        return std::clamp<std::int64_t>(at < 0 ? std::max(at, -size) + size : at, 0, size);
    };
    const std::int64_t stop = bound(args[2], size);
    for (std::int64_t i = bound(args[1], 0); i < stop; ++i) {
        if (items_[static_cast<std::size_t>(i)] == *args[0]) return Object(i);
    }
    raise("ValueError", args[0]->repr() + " is not in list");
}

Reply ListReferent::insert(Call& call) {
    const auto args = call.bind({"index", "object"}, 2);
    const std::lock_guard guard(mutex_);
    const auto size = static_cast<std::int64_t>(items_.size());
    const std::int64_t at = args[0]->as_int();
    items_.insert(items_.begin() + std::clamp<std::int64_t>(at < 0 ? std::max(at, -size) + size : at, 0, size),
                  std::move(*args[1]));
    return Object();
}

Reply ListReferent::pop(Call& call) {
    const auto args = call.bind({"index"}, 0);
    const std::lock_guard guard(mutex_);
    if (items_.empty()) raise("IndexError", "pop from empty list");
    const std::size_t at = args[0] == nullptr ? items_.size() - 1 : place(*args[0], "pop index out of range");
    Object element = std::move(items_[at]);
    items_.erase(items_.begin() + static_cast<std::ptrdiff_t>(at));
    return element;
}

Reply ListReferent::remove(Call& call) {
    const Object& wanted = *call.bind({"value"}, 1)[0];
    const std::lock_guard guard(mutex_);
    const auto found = std::ranges::find(items_, wanted);
    if (found == items_.end()) raise("ValueError", "list.remove(x): x not in list");
    items_.erase(found);
    return Object();
}

Reply ListReferent::reverse(Call& call) {
    call.bind({}, 0);
    const std::lock_guard guard(mutex_);
    std::ranges::reverse(items_);
    return Object();
}

// By numbers, so that a comparison that throws leaves the list as it was.
Reply ListReferent::sort(Call& call) {
    const auto args = call.bind({"key", "reverse"}, 0);
    if (args[0] != nullptr && !args[0]->is_none()) {
        raise("TypeError", "a key function can't be called in this server: sort(key=...) a copy in the client");
    }
    const bool backwards = args[1] != nullptr && truth(*args[1]);
    const std::lock_guard guard(mutex_);
    std::vector<std::size_t> order(items_.size());
    std::iota(order.begin(), order.end(), std::size_t{0});
    std::ranges::stable_sort(order, [&](std::size_t left, std::size_t right) {
        return backwards ? items_[right] < items_[left] : items_[left] < items_[right];
    });
    std::vector<Object> sorted;
    sorted.reserve(items_.size());
    for (const std::size_t i : order) sorted.push_back(std::move(items_[i]));
    items_ = std::move(sorted);
    return Object();
}

Reply ListReferent::add(Call& call) {
    if (call.args.empty()) raise("TypeError", "add() missing the index");
    const std::lock_guard guard(mutex_);
    Object& element = items_[place(call.args[0], "list index out of range")];
    element = added(&element, call, 1);
    return element;
}

Reply ListReferent::compare_exchange(Call& call) {
    const auto args = call.bind({"index", "expected", "desired"}, 3);
    const std::lock_guard guard(mutex_);
    Object& element = items_[place(*args[0], "list index out of range")];
    if (element != *args[1]) return Object(false);
    element = std::move(*args[2]);
    return Object(true);
}

Reply ListReferent::apply(Call& call) {
    if (call.args.empty()) raise("TypeError", "apply() missing the index");
    const std::lock_guard guard(mutex_);
    Object& element = items_[place(call.args[0], "list index out of range")];
    element = applied(&element, call, 1);
    return element;
}

}    // namespace multihull::detail
