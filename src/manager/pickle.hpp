// Objects to Python's pickles and back. See "Pickles" in README.md for what of the format is understood.
//
// Thread-safe. Invariants
// (1) A pickle builds Objects, and never runs anything: what it names besides plain data becomes a description, Object::Instance.
// (2) Nothing is built before the whole pickle was read: every global it names is allowed, every length lies within it.
// (3) Memory is bounded by the pickle's own size, plus PickleLimits::copied for what it names more than once.
#pragma once

#include <multihull/object.hpp>

#include <cstddef>
#include <span>
#include <string>
#include <string_view>

namespace multihull::detail {

/// Classes and functions that a pickle may name, beside what plain data is made with.
class PickleGlobals {
public:
    struct Module {
        std::string_view name;
        std::span<const std::string_view> globals;
    };

    constexpr explicit PickleGlobals(std::span<const Module> modules) noexcept : modules_(modules) {}

    /// Plain data alone.
    static const PickleGlobals& none() noexcept;
    /// What a manager's server takes from its clients, who give it to others: Token, the proxies, Namespace, Value, slice, complex,
    /// range, array, iterators, and Python's exceptions. None of them does anything where it is made.
    static const PickleGlobals& of_server() noexcept;
    /// What a manager's client takes from its server, and one end of a connection from the other: these, and shared memory by its name.
    static const PickleGlobals& of_client() noexcept;
    /// Any at all: for who only looks at the description.
    static const PickleGlobals& any() noexcept;

    bool allows(std::string_view module, std::string_view name) const noexcept;

private:
    constexpr PickleGlobals() noexcept : any_(true) {}

    std::span<const Module> modules_;
    bool any_ = false;
};

/// How much a pickle may be.
struct PickleLimits {
    std::size_t bytes = std::size_t{1} << 30;    ///< Of the pickle; never more than 4 GiB.
    std::size_t depth = 1000;                    ///< Of values within values.
    std::size_t memo = std::size_t{64} << 20;    ///< Values that are numbered to be named again.
    std::size_t copied =
        std::size_t{64} << 20;    ///< Bytes of memory for the second and later copies of what is named again.
};

/// In protocol 4. Throws PicklingError for a str that is not UTF-8, and for values within values deeper than 1000.
std::string pickle(const Object& object);
/// The same, behind what is in `out`; what throws leaves that as it was.
void pickle(const Object& object, std::string& out);

/// Of protocols 2 to 5. Throws UnpicklingError for a pickle that is damaged, or too big, names a global that is not allowed, holds an int
/// of more than 64 bits, or refers to itself. What it names several times becomes as many copies.
Object unpickle(std::span<const std::byte> pickle, const PickleGlobals& allowed, const PickleLimits& limits = {});

}    // namespace multihull::detail
