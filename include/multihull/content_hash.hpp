// The hash of a value's content: equal for equal values, in every process, in every run and in every build.
//
// What is hashed is what a value means: never padding bytes, addresses, or the order in which an unordered container happens to
// keep its elements. Numbers are hashed bit by bit: 0.0 and -0.0 differ, as functions can tell them apart; a NaN equals a NaN with
// the same bits. Pointers (unique_ptr, shared_ptr) are what they point to. The type is part of the hash, with the types of all
// fields: 1 and 1L differ, and so do two structs of one name with other fields.
//
// These can be hashed: what can travel (see codec.hpp), except a class with private members and gaps or floating-point numbers,
// which nobody can look into: give it a ContentHash or a cereal serialize().
//
// Thread-safe: different Hashers in different threads.
#pragma once

#include <multihull/detail/hash_types.hpp>
#include <multihull/detail/hash_value.hpp>
#include <multihull/detail/type_signature.hpp>
#include <multihull/hasher.hpp>

namespace multihull {

/// The hash of a value, 128 bits: two values that differ have equal ones by an accident that never happens. Throws Error for a
/// value that holds a handle of a shared object or a file descriptor, or that nests deeper than 1000 levels.
template <class T>
Hash128 content_hash(const T& value) {
    if constexpr (!Hashable<T>) {
        detail::require_hashable<T>();
        return {};
    } else {
        Hasher hasher;
        detail::hash_signature<T>(hasher);
        hasher.add(value);
        return hasher.digest();
    }
}

}    // namespace multihull
