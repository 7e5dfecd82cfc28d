// What a type is made of, as a hash: its name, and for aggregates and containers what they hold, to any depth.
//
// The names are those of the C++ ABI, which g++ and clang share. A struct that got another field has another signature, so what was
// hashed or kept of the old one is not mistaken for one of the new.
#pragma once

#include <multihull/detail/hash_types.hpp>
#include <multihull/hasher.hpp>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <typeinfo>
#include <vector>

namespace multihull::detail {

class Signature {
public:
    /// Adds a name; true when what it is made of is still to be added.
    bool enter(const std::type_info& type, std::size_t size) {
        hasher_.bytes(type.name(), std::strlen(type.name()) + 1);
        const std::uint64_t wide = size;
        hasher_.bytes(&wide, sizeof wide);
        if (std::find(entered_.begin(), entered_.end(), &type) != entered_.end()) return false;
        entered_.push_back(&type);
        return true;
    }
    /// How many parts follow.
    void parts(std::size_t count) {
        const std::uint64_t wide = count;
        hasher_.bytes(&wide, sizeof wide);
    }
    Hash128 digest() const noexcept { return hasher_.digest(); }

private:
    Hasher hasher_;
    std::vector<const std::type_info*> entered_;
};

template <class T>
void describe_type(Signature& signature);

template <class... Parts>
void describe_types(Signature& signature, TypeList<Parts...>) {
    signature.parts(sizeof...(Parts));
    (describe_type<std::remove_cv_t<Parts>>(signature), ...);
}

template <class T>
void describe_type(Signature& signature) {
    // The size of a class of the standard's is its library's affair.
    constexpr bool kOfStd = StdType<T>::kKind != Kind::unknown;
    if (!signature.enter(typeid(T), kOfStd ? 0 : sizeof(T))) return;
    if constexpr (std::is_array_v<T>) {
        describe_types(signature, TypeList<std::remove_all_extents_t<T>>{});
    } else if constexpr (kOfStd) {
        describe_types(signature, typename StdType<T>::Parts{});
    } else if constexpr (kKind<T> == Kind::fields || kKind<T> == Kind::plain) {
        if constexpr (has_known_fields<T>()) describe_types(signature, FieldTypes<T>{});
    }
}

/// The signature of the types together.
template <class... Types>
const Hash128& signature_of() {
    static const Hash128 hash = [] {
        Signature signature;
        describe_types(signature, TypeList<Types...>{});
        return signature.digest();
    }();
    return hash;
}

template <class... Types>
void hash_signature(Hasher& hasher) {
    const Hash128& signature = signature_of<Types...>();
    hasher.bytes(&signature, sizeof signature);
}

}    // namespace multihull::detail
