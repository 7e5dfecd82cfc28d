#include "os/control_message.hpp"

#include <cstring>

namespace multihull::os {

void ControlMessage::attach(msghdr& message, std::span<const int> descriptors) noexcept {
    if (descriptors.empty()) return;
    message.msg_control = bytes_;
    message.msg_controllen = CMSG_SPACE(sizeof(int) * descriptors.size());
    std::memset(bytes_, 0, message.msg_controllen);
    cmsghdr* const header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(sizeof(int) * descriptors.size());
    std::memcpy(CMSG_DATA(header), descriptors.data(), sizeof(int) * descriptors.size());
}

void ControlMessage::make_room(msghdr& message) noexcept {
    message.msg_control = bytes_;
    message.msg_controllen = sizeof bytes_;
}

void ControlMessage::take(msghdr& message, std::vector<Fd>& descriptors) {
    for (cmsghdr* header = CMSG_FIRSTHDR(&message); header != nullptr; header = CMSG_NXTHDR(&message, header)) {
        if (header->cmsg_level != SOL_SOCKET || header->cmsg_type != SCM_RIGHTS) continue;
        const std::size_t count = (header->cmsg_len - CMSG_LEN(0)) / sizeof(int);
        for (std::size_t i = 0; i < count; ++i) {
            int descriptor = -1;
            std::memcpy(&descriptor, CMSG_DATA(header) + i * sizeof(int), sizeof descriptor);
            descriptors.emplace_back(descriptor);
        }
    }
}

}    // namespace multihull::os
