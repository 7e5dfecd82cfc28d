// Another family's region, where this process may look into it: that of a process of the same machine and user, which says where it is.
//
// For reading only, and found through that process's descriptor in /proc, so nothing has to be handed from process to process. What is there
// stays as long as its owner says: this side holds no part of it.
#pragma once

#include "shm/region.hpp"

#include <cstddef>
#include <cstdint>

namespace multihull::shm {

/// In an offset: it is one of the foreign region.
inline constexpr Offset kForeign = Offset{1} << 63;

/// Where a region can be found by other processes. With a pid of 0: nowhere.
struct RegionAddress {
    std::int32_t pid = 0;
    std::int32_t descriptor = 0;
    std::uint64_t size = 0;
    std::uint64_t family[2] = {};
};

/// Of this process's region, while the process lives.
RegionAddress address_of_own_region();

/// Maps a region. Throws std::system_error, or Error, where this process may not, or something else is there by now.
os::Mapping map_foreign_region(const RegionAddress& address);

/// Has readable_at() find kForeign offsets there, until this process ends. Once; throws as map_foreign_region().
void look_into_foreign_region(const RegionAddress& address);

/// An address in this process, in its own family's region or in the foreign one.
const std::byte* readable_at(Offset place) noexcept;

}    // namespace multihull::shm
