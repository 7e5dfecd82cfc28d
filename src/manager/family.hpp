// Which family of processes this one is of.
#pragma once

#include "shm/region.hpp"

#include <cstdint>

namespace multihull::detail {

struct FamilyId {
    std::uint64_t id[2];

    static FamilyId own() {
        const auto& family = shm::Region::instance().header().family;
        return {{family[0], family[1]}};
    }
    bool operator==(const FamilyId&) const = default;
};

}    // namespace multihull::detail
