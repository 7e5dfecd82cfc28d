#include "shm/foreign_region.hpp"

#include <multihull/error.hpp>

#include <algorithm>
#include <fcntl.h>
#include <string>
#include <unistd.h>

namespace multihull::shm {

namespace {

os::Mapping foreign;    // written before the first task, and kept until the process ends

}    // namespace

RegionAddress address_of_own_region() {
    const Region& region = Region::instance();
    RegionAddress address;
    address.pid = ::getpid();
    address.descriptor = region.fd();
    address.size = region.header().size;
    std::ranges::copy(region.header().family, address.family);
    return address;
}

os::Mapping map_foreign_region(const RegionAddress& address) {
    const os::Fd fd = os::open_file_of(address.pid, address.descriptor, address.size, O_RDONLY);
    if (fd && address.size >= sizeof(RegionHeader)) {
        os::Mapping mapping = os::map_read_only(fd.get(), 0, address.size);
        const auto* const header = reinterpret_cast<const RegionHeader*>(mapping.data());
        if (std::ranges::equal(header->family, address.family)) return mapping;
    }
    throw Error("process " + std::to_string(address.pid) + " is not the one any more whose memory was to be read");
}

void look_into_foreign_region(const RegionAddress& address) { foreign = map_foreign_region(address); }

const std::byte* readable_at(Offset place) noexcept {
    return (place & kForeign) != 0 ? foreign.data() + (place & ~kForeign) : Region::instance().at(place);
}

}    // namespace multihull::shm
