// Several descriptors and a time as one descriptor, for those who can wait for one only.
//
// Not thread-safe.
#pragma once

#include "os/clock.hpp"
#include "os/fd.hpp"

namespace multihull::os {

class ReadySet {
public:
    /// Throws std::system_error when the system has no descriptors left, as add() does.
    ReadySet();

    enum class For { reading, writing };
    void add(int descriptor, For use);
    /// To be called before the descriptor is closed or handed on: a copy of it elsewhere would keep it in the set.
    void remove(int descriptor) noexcept;
    /// From then on (monotonic ns) the set is ready whatever its descriptors are, until the time is set anew.
    void set_alarm(std::int64_t time_ns) noexcept;

    /// Readable while something in the set is ready, or can only fail.
    int fileno() const noexcept { return epoll_.get(); }

private:
    Fd epoll_;
    Fd timer_;
    std::int64_t alarm_ = kNever;
};

}    // namespace multihull::os
