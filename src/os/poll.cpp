#include "os/poll.hpp"

#include "os/clock.hpp"

#include <algorithm>
#include <cerrno>
#include <poll.h>

namespace multihull::os {

namespace {

bool wait_for(short events, int fd, std::int64_t deadline_ns) noexcept {
    for (;;) {
        pollfd entry{fd, events, 0};
        timespec left{};
        if (deadline_ns != kNever) {
            const std::int64_t wait = std::max<std::int64_t>(0, deadline_ns - now_ns());
            left.tv_sec = wait / 1'000'000'000;
            left.tv_nsec = wait % 1'000'000'000;
        }
        const int result = ::ppoll(&entry, 1, deadline_ns == kNever ? nullptr : &left, nullptr);
        if (result > 0) return true;
        if (result == 0) return false;
        if (errno != EINTR) return true;    // a bad descriptor: the caller's next call says what is wrong with it
    }
}

}    // namespace

bool wait_readable(int fd, std::int64_t deadline_ns) noexcept { return wait_for(POLLIN, fd, deadline_ns); }
bool wait_writable(int fd, std::int64_t deadline_ns) noexcept { return wait_for(POLLOUT, fd, deadline_ns); }

}    // namespace multihull::os
