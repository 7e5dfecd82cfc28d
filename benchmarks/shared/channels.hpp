// The ways in which two processes can send each other messages, each behind the same two functions.
#pragma once

#include <array>
#include <cstddef>
#include <functional>

namespace bench {

using Small = std::array<std::byte, 64>;
inline constexpr std::size_t kBig = std::size_t{1} << 20;

/// One direction of a channel: whole messages of a fixed size. Made before the processes are forked.
struct Channel {
    std::function<void(std::byte*, std::size_t)> put;
    std::function<void(std::byte*, std::size_t)> take;
    std::function<void()> finish = [] {};    ///< What a process does with it last.
};

Channel multihull_small(std::size_t maxsize);
Channel multihull_big();
Channel multihull_in_place();
Channel multihull_connection();
Channel boost_queue(std::size_t size, std::size_t maxsize);
Channel posix_queue();
Channel raw_pipe();
Channel raw_socket();
/// A ring under a mutex and two condition variables of pthread, which is also how faster-fifo is made.
Channel mutex_ring(std::size_t size, std::size_t maxsize);
/// What the hardware charges: a ring of one putter and one taker, without limit to their waiting awake, and nothing for a death.
Channel bare_ring(std::size_t size, std::size_t maxsize);
/// ZeroMQ's PUSH and PULL over ipc; empty where this build has none.
Channel zeromq();
inline constexpr bool kHasZeromq =
#ifdef MULTIHULL_BENCH_ZEROMQ
    true;
#else
    false;
#endif

void require(bool ok, const char* what);

}    // namespace bench
