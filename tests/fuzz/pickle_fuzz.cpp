// Feeds the reader of pickles. The first byte says which globals are allowed, the others are the pickle. What may come of it: an
// Object, which can be pickled, encoded, printed and read again as the same, or an UnpicklingError; no more memory than the bytes are
// worth; and nothing that was not allowed.
#include "fuzz/fuzz.hpp"
#include "manager/pickle.hpp"
#include "manager/python_exceptions.hpp"

#include <cstdint>
#include <exception>
#include <string>

namespace {

using multihull::Object;
using multihull::detail::PickleGlobals;
using multihull::detail::PickleLimits;

constexpr std::size_t kFixed = std::size_t{2} << 20;
constexpr std::size_t kBytesPerByte = 2048;

const PickleGlobals& globals(std::uint8_t choice) {
    switch (choice % 4) {
        case 0:
            return PickleGlobals::none();
        case 1:
            return PickleGlobals::of_server();
        case 2:
            return PickleGlobals::of_client();
        default:
            return PickleGlobals::any();
    }
}

void require_allowed(const Object& object, const PickleGlobals& allowed) {
    using Type = Object::Type;
    if (object.type() == Type::instance) {
        const auto& instance = object.as_instance();
        const bool plain =
            instance.module == "builtins" && (instance.name == "bytearray" || instance.name == "frozenset");
        fuzz::require(plain || allowed.allows(instance.module, instance.name), "a global that is not allowed");
        require_allowed(instance.args, allowed);
        require_allowed(instance.state, allowed);
    } else if (object.type() == Type::list || object.type() == Type::tuple || object.type() == Type::set) {
        for (const Object& element : object) require_allowed(element, allowed);
    } else if (object.type() == Type::dict) {
        for (const Object& key : object) require_allowed(key, allowed);
        for (const Object& value : object.values()) require_allowed(value, allowed);
    }
}

Object read(std::span<const std::uint8_t> bytes, const PickleGlobals& allowed, const PickleLimits& limits) {
    const fuzz::Allocations allocations;
    Object object = multihull::detail::unpickle(std::as_bytes(bytes), allowed, limits);
    fuzz::require(allocations.bytes() <= kFixed + kBytesPerByte * bytes.size(), "reading took too much memory");
    return object;
}

void check(const Object& object, const PickleGlobals& allowed) {
    require_allowed(object, allowed);
    const std::string printed = object.repr();
    const std::string pickled = multihull::detail::pickle(object);
    const Object again = multihull::detail::unpickle(std::as_bytes(std::span(pickled)), allowed, {.copied = 0});
    fuzz::require(again.repr() == printed, "a pickle of what was read says something else");

    multihull::detail::VectorGrowth growth;
    multihull::detail::Writer writer({}, growth);
    multihull::detail::encode(writer, object);
    multihull::detail::Reader reader(writer.bytes());
    fuzz::require(multihull::detail::decode<Object>(reader).repr() == printed, "what was read does not travel");

    fuzz::require(multihull::detail::exception_from_python(object) != nullptr, "an exception is nothing");
}

}    // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    if (size == 0) return 0;
    const PickleGlobals& allowed = globals(data[0]);
    try {
        check(read({data + 1, size - 1}, allowed, {.copied = std::size_t{1} << 18}), allowed);
    } catch (const multihull::UnpicklingError&) {}
    return 0;
}
