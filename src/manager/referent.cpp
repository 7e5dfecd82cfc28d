#include "manager/referent.hpp"

#include "os/clock.hpp"

#include <cmath>
#include <limits>

namespace multihull::detail {

namespace {

constexpr std::size_t kMostElements = std::size_t{1} << 31;

bool is_builtin(const Object& object, std::string_view name) {
    return object.type() == Object::Type::instance && object.is_a("builtins", name);
}

std::vector<Object> code_points(const std::string& text) {
    std::vector<Object> points;
    for (std::size_t at = 0; at < text.size();) {
        std::size_t next = at + 1;
        while (next < text.size() && (static_cast<unsigned char>(text[next]) & 0xc0U) == 0x80U) ++next;
        points.emplace_back(text.substr(at, next - at));
        at = next;
    }
    return points;
}

std::vector<Object> range_elements(const Object& range) {
    const auto args = range.as_instance().args.elements();
    if (args.size() != 3) raise("TypeError", "a range travels with its start, stop and step");
    const std::int64_t start = args[0].as_int();
    const std::int64_t stop = args[1].as_int();
    const std::int64_t step = args[2].as_int();
    if (step == 0) raise("ValueError", "range() arg 3 must not be zero");
    std::vector<Object> elements;
    // As unsigned numbers: the distance of two integers may not fit into one.
    const auto distance = step > 0 ? static_cast<std::uint64_t>(stop) - static_cast<std::uint64_t>(start)
                                   : static_cast<std::uint64_t>(start) - static_cast<std::uint64_t>(stop);
    if (step > 0 ? start >= stop : start <= stop) return elements;
    const std::uint64_t stride = step > 0 ? static_cast<std::uint64_t>(step) : -static_cast<std::uint64_t>(step);
    const std::uint64_t count = (distance - 1) / stride + 1;
    if (count > kMostElements) raise("MemoryError", "a range of that many elements is too long for a server");
    elements.reserve(count);
    for (std::uint64_t i = 0; i < count; ++i) {
        elements.emplace_back(static_cast<std::int64_t>(static_cast<std::uint64_t>(start) +
                                                        i * static_cast<std::uint64_t>(step)));
    }
    return elements;
}

std::int64_t clamped(const Object& object, std::int64_t none, std::int64_t low, std::int64_t high, std::int64_t size) {
    if (object.is_none()) return none;
    std::int64_t index = object.as_int();
    if (index < 0) index = index < -size ? low : index + size;
    return std::clamp(index, low, high);
}

}    // namespace

void raise(const char* name, const std::string& sentence) { throw PythonException(name, sentence); }

Object instance_of(const char* module, const char* name, std::vector<Object> args, Object state, bool by_new) {
    return Object::instance({.module = module,
                             .name = name,
                             .args = Object::tuple(std::move(args)),
                             .state = std::move(state),
                             .by_new = by_new});
}

Object value_of(Object& object, CallContext& context) {
    if (object.type() == Object::Type::instance) {
        if (const auto referent = context.referent_of(object)) return referent->value();
    }
    return std::move(object);
}

std::vector<Object> elements_of(Object& iterable, CallContext& context) {
    Object object = value_of(iterable, context);
    switch (object.type()) {
        case Object::Type::list:
            return std::move(object.as_list());
        case Object::Type::tuple:
        case Object::Type::dict:
        case Object::Type::set:
            return {object.begin(), object.end()};
        case Object::Type::str:
            return code_points(object.as_str());
        case Object::Type::bytes: {
            std::vector<Object> numbers;
            for (const std::byte byte : object.as_bytes()) numbers.emplace_back(std::to_integer<int>(byte));
            return numbers;
        }
        case Object::Type::instance: {
            if (is_builtin(object, "range")) return range_elements(object);
            const auto args = object.as_instance().args.elements();
            // list(x), iter(x), array(typecode, x), ...: what they are made of.
            if (!args.empty() &&
                (is_builtin(object, "list") || is_builtin(object, "iter") || is_builtin(object, "tuple") ||
                 is_builtin(object, "frozenset") || is_builtin(object, "set") || is_builtin(object, "bytearray"))) {
                Object inner = args[0];
                return elements_of(inner, context);
            }
            break;
        }
        default:
            break;
    }
    raise("TypeError", "'" + std::string(object.type_name()) + "' object is not iterable");
}

Object dict_of(Object& source, CallContext& context) {
    Object object = value_of(source, context);
    if (object.type() == Object::Type::dict) return object;
    Object dict = Object::dict();
    for (Object& pair : elements_of(object, context)) {
        std::vector<Object> parts = elements_of(pair, context);
        if (parts.size() != 2) {
            raise("ValueError",
                  "dictionary update sequence element has length " + std::to_string(parts.size()) + "; 2 is required");
        }
        dict[parts[0]] = std::move(parts[1]);
    }
    return dict;
}

bool truth(const Object& object) {
    switch (object.type()) {
        case Object::Type::none:
            return false;
        case Object::Type::boolean:
        case Object::Type::integer:
        case Object::Type::floating:
            return object.as_float() != 0;
        case Object::Type::instance:
            return true;
        default:
            return !object.empty();
    }
}

Object sum(const Object& left, const Object& right) {
    using Type = Object::Type;
    const auto is_int = [](const Object& object) {
        return object.type() == Type::integer || object.type() == Type::boolean;
    };
    const auto is_number = [&](const Object& object) { return is_int(object) || object.type() == Type::floating; };
    if (is_int(left) && is_int(right)) {
        std::int64_t result = 0;
        if (__builtin_add_overflow(left.as_int(), right.as_int(), &result)) {
            raise("OverflowError", "the sum does not fit into 64 bits, which integers have here");
        }
        return result;
    }
    if (is_number(left) && is_number(right)) return left.as_float() + right.as_float();
    if (left.type() == right.type()) {
        switch (left.type()) {
            case Type::str:
                return left.as_str() + right.as_str();
            case Type::bytes: {
                std::vector<std::byte> both(left.as_bytes().begin(), left.as_bytes().end());
                both.insert(both.end(), right.as_bytes().begin(), right.as_bytes().end());
                return Object::bytes(both);
            }
            case Type::list:
            case Type::tuple: {
                std::vector<Object> both(left.begin(), left.end());
                both.insert(both.end(), right.begin(), right.end());
                return left.type() == Type::list ? Object::list(std::move(both)) : Object::tuple(std::move(both));
            }
            default:
                break;
        }
    }
    raise("TypeError",
          "unsupported operand type(s) for +: '" + std::string(left.type_name()) + "' and '" + right.type_name() + "'");
}

std::size_t index_of(const Object& index, std::size_t size, const char* sentence) {
    if (index.type() != Object::Type::integer && index.type() != Object::Type::boolean) {
        raise("TypeError", "indices must be integers or slices, not " + std::string(index.type_name()));
    }
    std::int64_t at = index.as_int();
    if (at < 0) at += static_cast<std::int64_t>(size);
    if (at < 0 || static_cast<std::uint64_t>(at) >= size) raise("IndexError", sentence);
    return static_cast<std::size_t>(at);
}

std::optional<Slice> slice_of(const Object& object, std::size_t size) {
    if (!is_builtin(object, "slice")) return std::nullopt;
    const auto parts = object.as_instance().args.elements();
    if (parts.size() != 3) raise("TypeError", "a slice travels with its start, stop and step");
    Slice slice;
    slice.step = parts[2].is_none() ? 1 : parts[2].as_int();
    if (slice.step == 0) raise("ValueError", "slice step cannot be zero");
    // Beyond the size every step is the same.
    slice.step = std::clamp<std::int64_t>(slice.step, -std::numeric_limits<std::int64_t>::max() / 2,
                                          std::numeric_limits<std::int64_t>::max() / 2);
    const auto length = static_cast<std::int64_t>(size);
    const bool forward = slice.step > 0;
    const std::int64_t low = forward ? 0 : -1;
    const std::int64_t high = forward ? length : length - 1;
    slice.start = clamped(parts[0], forward ? low : high, low, high, length);
    const std::int64_t stop = clamped(parts[1], forward ? high : low, low, high, length);
    const std::int64_t distance = forward ? stop - slice.start : slice.start - stop;
    const std::int64_t stride = forward ? slice.step : -slice.step;
    slice.count = distance <= 0 ? 0 : static_cast<std::size_t>((distance - 1) / stride + 1);
    return slice;
}

std::vector<Object> sliced(const std::vector<Object>& items, const Slice& slice) {
    std::vector<Object> part;
    part.reserve(slice.count);
    for (std::size_t n = 0; n < slice.count; ++n) part.push_back(items[slice.at(n)]);
    return part;
}

void assign_slice(std::vector<Object>& items, const Slice& slice, std::vector<Object> elements) {
    if (slice.step == 1) {
        const auto first = items.begin() + slice.start;
        const auto behind = items.erase(first, first + static_cast<std::ptrdiff_t>(slice.count));
        items.insert(behind, std::move_iterator(elements.begin()), std::move_iterator(elements.end()));
        return;
    }
    if (elements.size() != slice.count) {
        raise("ValueError", "attempt to assign sequence of size " + std::to_string(elements.size()) +
                                " to extended slice of size " + std::to_string(slice.count));
    }
    for (std::size_t n = 0; n < slice.count; ++n) items[slice.at(n)] = std::move(elements[n]);
}

void erase_slice(std::vector<Object>& items, const Slice& slice) {
    std::vector<bool> goes(items.size());
    for (std::size_t n = 0; n < slice.count; ++n) goes[slice.at(n)] = true;
    std::size_t kept = 0;
    for (std::size_t i = 0; i < items.size(); ++i) {
        if (goes[i]) continue;
        if (kept != i) items[kept] = std::move(items[i]);
        ++kept;
    }
    items.resize(kept);
}

std::int64_t deadline_of(const Object* timeout) {
    if (timeout == nullptr || timeout->is_none()) return os::kNever;
    const double seconds = timeout->as_float();
    if (std::isnan(seconds)) raise("ValueError", "Invalid value NaN (not a number)");
    if (seconds <= 0) return os::now_ns();
    // Beyond this many seconds a time in nanoseconds does not fit: nobody will see the end of it.
    if (seconds > 9e9) return os::kNever;
    return os::deadline_after(std::chrono::nanoseconds(static_cast<std::int64_t>(seconds * 1e9)));
}

Object added(const Object* old, Call& call, std::size_t first) {
    if (call.args.size() <= first) raise("TypeError", "add() missing the amount");
    const Object& amount = call.args[first];
    if (old != nullptr) return sum(*old, amount);
    return call.args.size() > first + 1 ? sum(call.args[first + 1], amount) : amount;
}

Object applied(const Object* old, Call& call, std::size_t first) {
    if (call.args.size() <= first) raise("TypeError", "apply() missing the name of a function");
    const std::string& name = call.args[first].as_str();
    const UpdateFunction* const function = call.context.find_function(name);
    if (function == nullptr) {
        raise("ValueError",
              "no function '" + name + "' is registered in the server: register it before the server starts");
    }
    return (*function)(old == nullptr ? Object() : *old, std::span(call.args).subspan(first + 1));
}

ManagerTypes ManagerTypes::sync_manager() {
    ManagerTypes types;
    add_container_types(types);
    add_value_types(types);
    add_lock_types(types);
    add_sync_types(types);
    add_queue_types(types);
    return types;
}

}    // namespace multihull::detail
