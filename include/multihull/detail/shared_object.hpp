// What every handle of a shared object is made of: a reference that all handles in this process share.
//
// Thread-safe. A handle that a forked child inherits names the same object there, and counts as the child's own.
#pragma once

#include <multihull/codec.hpp>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <type_traits>

namespace multihull::detail {

/// The shared object as this process refers to it; the last of its copies here gives the process's reference back.
class SharedObject;
using ObjectRef = std::shared_ptr<const SharedObject>;

/// Writes which object it is. The object lives at least until the bytes are read or forgotten: see Writer::pins().
void encode_object(Writer& writer, const ObjectRef& object);
/// Bytes that it writes.
inline constexpr std::size_t kEncodedObject = 16;
/// The object that the bytes name, which must be of one of the kinds in the mask. Throws CodecError when it is not, ObjectGone when it
/// exists no more.
ObjectRef decode_object(Reader& reader, std::uint32_t kind_mask);

/// The memory of the object behind its head.
void* object_data(const ObjectRef& object) noexcept;

/// Where in the family's shared memory the elements of an array lie, and what keeps them there.
struct SharedPlace {
    std::uint64_t offset = 0;
    ObjectRef owner;
};

/// The elements of a range that lies in shared memory, for those who would otherwise copy them there: specialized beside such ranges
/// with `static SharedPlace of(const Range&)`.
template <class Range>
struct SharedPlaceOf {};
template <class Range>
concept LiesInSharedMemory = requires(const Range& range) { SharedPlaceOf<Range>::of(range); };

/// What can lie in shared memory: its bytes mean the same in every process.
template <class T>
inline constexpr bool kShareable = std::is_trivially_copyable_v<T> && std::is_trivially_destructible_v<T> && Travels<T>;

template <class T>
consteval void require_shareable() {
    static_assert(
        kShareable<T>,
        "multihull: this type can't live in shared memory: it must be trivially copyable and hold no pointer, "
        "reference or "
        "view, which would mean nothing to another process; use plain numbers, std::array and structs of them");
}

}    // namespace multihull::detail
