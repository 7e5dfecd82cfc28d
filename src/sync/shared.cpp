#include <multihull/shared.hpp>

#include "shm/objects.hpp"

#include <multihull/error.hpp>

namespace multihull::detail {

namespace {

// In front of the bytes, which begin 64 further on or, where they are many, in extents of their own. Written before anybody else
// has a handle, and read once by each process.
struct BytesHead {
    std::uint64_t size;
    shm::Offset place;    // 0: right behind this
    std::uint64_t unused[6];
};
static_assert(sizeof(BytesHead) == 64);

constexpr std::uint32_t mask_of(shm::ObjectKind kind) { return 1U << static_cast<std::uint32_t>(kind); }

SharedBytes make_bytes(shm::ObjectKind kind, std::size_t size) {
    const bool inside = size <= shm::kObjectRoom - sizeof(BytesHead);
    auto object = shm::make_object(kind, sizeof(BytesHead) + (inside ? size : 0));
    auto* const head = static_cast<BytesHead*>(object->data());
    head->size = size;
    if (!inside) {
        head->place = shm::claim_for(*object, size);
        if (head->place == 0) {
            throw StartError("shared memory has no room for an array of " + std::to_string(size) +
                             " bytes: free some, or give the system more address space (ulimit -v)");
        }
    }
    std::byte* const data = inside ? reinterpret_cast<std::byte*>(head + 1) : shm::Region::instance().at(head->place);
    return {std::move(object), data, size};
}

SharedBytes decode_bytes(Reader& reader, shm::ObjectKind kind) {
    auto object = decode_object(reader, mask_of(kind));
    auto* const head = static_cast<BytesHead*>(object->data());
    const std::uint64_t size = head->size;
    const shm::Offset place = head->place;
    auto& region = shm::Region::instance();
    if (place == 0 ? size > shm::kObjectRoom - sizeof(BytesHead) : !region.in_extents(place, size)) {
        throw_damaged("a shared value claims more memory than it can have");
    }
    return {std::move(object), place == 0 ? reinterpret_cast<std::byte*>(head + 1) : region.at(place),
            static_cast<std::size_t>(size)};
}

}    // namespace

SharedBytes make_value(std::size_t size) { return make_bytes(shm::ObjectKind::value, size); }
SharedBytes make_array(std::size_t size) { return make_bytes(shm::ObjectKind::array, size); }

SharedBytes decode_value_handle(Reader& reader, std::size_t size) {
    auto bytes = decode_bytes(reader, shm::ObjectKind::value);
    if (bytes.size != size) throw_damaged("a shared value has another size than its type");
    return bytes;
}
SharedBytes decode_array_handle(Reader& reader, std::size_t element_size) {
    auto bytes = decode_bytes(reader, shm::ObjectKind::array);
    if (bytes.size % element_size != 0) throw_damaged("a shared array does not hold whole elements");
    return bytes;
}

}    // namespace multihull::detail
