#include "mpi/bells.hpp"

#include "os/clock.hpp"
#include "os/fault.hpp"
#include "os/thread_sanitizer.hpp"

#include <multihull/error.hpp>

#include <algorithm>
#include <fcntl.h>
#include <string>
#include <unistd.h>
#include <utility>

namespace multihull::mpi {

Bells::Bells(std::size_t ranks, std::span<const std::uint64_t, 2> key)
    : fd_(os::make_memfd("multihull-bells", bytes(ranks))), mapping_(os::map_shared(fd_, bytes(ranks))) {
    std::ranges::copy(key, head().key);
}

Bells::Bells(std::size_t ranks, const Address& address) {
    if (const os::Fd fd = os::open_file_of(address.pid, address.descriptor, bytes(ranks), O_RDWR)) {
        mapping_ = os::map_shared(fd, bytes(ranks));
        if (std::ranges::equal(head().key, address.key)) return;
    }
    throw Error("process " + std::to_string(address.pid) + " is not the one any more whose bells were to be rung");
}

bool Bells::supported() noexcept {
    const std::atomic<std::uint32_t> word{0};
    const os::FutexWord changed{&word, 1};
    return os::futex_wait_any({&changed, 1}, os::kNever);
}

Bells::Address Bells::address() const noexcept {
    Address address;
    if (!fd_) return address;
    address.pid = ::getpid();
    address.descriptor = fd_.get();
    std::ranges::copy(head().key, address.key);
    return address;
}

// Between what MPI writes or reads, and a bell's word.
void Bells::full_fence() noexcept {
#ifdef MULTIHULL_THREAD_SANITIZER
    static std::atomic<int> anything{0};    // which the sanitizer understands, unlike a fence
    anything.fetch_add(1, std::memory_order_seq_cst);
#else
    std::atomic_thread_fence(std::memory_order_seq_cst);
#endif
}

void Bells::ring_behind_fence(std::size_t rank) const noexcept {
    // Mostly it is awake: looking leaves the line where it is.
    if (word(rank).load(std::memory_order_relaxed) != kAsleep) return;
    if (word(rank).exchange(0, std::memory_order_seq_cst) != kAsleep) return;
    os::kill_point(os::KillPoint::bell_silenced);
    os::futex_wake(word(rank), 1);
}

void Bells::announce_sleep(std::size_t rank) const noexcept {
    word(rank).store(kAsleep, std::memory_order_seq_cst);
    full_fence();
}

void Bells::stay_awake(std::size_t rank) const noexcept { word(rank).store(0, std::memory_order_relaxed); }

bool Bells::sleep(std::size_t rank, std::span<os::FutexWord> words, std::int64_t deadline_ns) const noexcept {
    words.front() = {&word(rank), kAsleep};
    os::kill_point(os::KillPoint::bell_awaited);
    os::futex_wait_any(words, deadline_ns);
    return word(rank).exchange(0, std::memory_order_relaxed) != kAsleep;
}

bool Sleeper::may_sleep() noexcept {
    if (announced_) return true;
    bells_.announce_sleep(rank_);
    announced_ = true;
    return false;
}

void Sleeper::stay_awake() noexcept {
    longest_ns_ = kUnrungNs;
    if (std::exchange(announced_, false)) bells_.stay_awake(rank_);
}

std::vector<os::FutexWord>& Sleeper::words() noexcept {
    words_.resize(1);
    return words_;
}

void Sleeper::sleep(std::int64_t deadline_ns) noexcept {
    const bool rung = bells_.sleep(rank_, words_, std::min(deadline_ns, os::now_ns() + longest_ns_));
    longest_ns_ = rung ? kOnItsWayNs : std::min(10 * longest_ns_, kUnrungNs);
    announced_ = false;
}

}    // namespace multihull::mpi
