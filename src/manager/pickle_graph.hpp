// A pickle that was read, before anything is built of it: what refers to what.
//
// Nodes are numbered in the order in which they came. Text stays where it is, in the pickle. Not thread-safe. Invariants
// (1) Node 0 is None.
// (2) Links of one node form a ring: `number` of a list, tuple, dict or set is its last link, whose next one is its first.
// (3) A dict has an even number of links: key and value in turn.
// (4) A node may be linked to from several nodes, and from itself.
#pragma once

#include "manager/pickle.hpp"

#include <boost/container/small_vector.hpp>

#include <cstdint>

namespace multihull::detail {

struct PickleNode {
    enum class Kind : std::uint8_t {
        none,
        boolean,
        integer,
        floating,
        str,
        bytes,
        global,
        list,
        tuple,
        byte_array,
        dict,
        set,
        frozen_set,
        instance
    };

    std::int64_t number =
        0;    // its value; or the bits of it, where its bytes are, its last link, its place in globals or instances
    std::uint32_t count = 0;    // of bytes or links
    Kind kind = Kind::none;
    bool built = false;          // once at least
    bool being_built = false;    // and so a part of itself, where it is met again
};

struct PickleLink {
    std::uint32_t node;
    std::uint32_t next;
};

/// What makes an instance. Those that plain data is made with are known.
struct PickleGlobal {
    enum class Known : std::uint8_t { other, bytes, bytearray, list, set, frozenset, encode, array };

    std::string_view module;
    std::string_view name;
    Known known = Known::other;
    bool listed = false;    // and so may be a value of its own
};

struct PickleInstance {
    std::uint32_t global;
    std::uint32_t args;
    std::uint32_t state;
    bool by_new;
};

struct PickleGraph {
    std::span<const std::byte> pickle;
    boost::container::small_vector<PickleNode, 48> nodes;
    boost::container::small_vector<PickleLink, 48> links;
    boost::container::small_vector<PickleGlobal, 4> globals;
    boost::container::small_vector<PickleInstance, 4> instances;
    std::uint32_t result = 0;

    std::string_view text(const PickleNode& node) const noexcept {
        return {reinterpret_cast<const char*>(pickle.data()) + node.number, node.count};
    }
};

/// Reads a pickle whole. Throws UnpicklingError.
void parse_pickle(std::span<const std::byte> pickle, const PickleGlobals& allowed, const PickleLimits& limits,
                  PickleGraph& graph);

/// Makes the value of it. Throws UnpicklingError.
Object build_pickled(PickleGraph& graph, const PickleLimits& limits);

}    // namespace multihull::detail
