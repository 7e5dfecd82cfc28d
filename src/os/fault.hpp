// Failing on purpose: system calls that answer an error, and processes that die at a named place.
//
// Only test builds (MULTIHULL_FAILPOINTS) carry the checks; elsewhere every function here is empty and costs nothing.
// Kill points are counted down in shared memory, so that a test can arm them in processes that are not born yet.
#pragma once

#include <atomic>
#include <cstdint>

namespace multihull::os {

/// The system calls that a test can make fail.
enum class Call : std::uint32_t {
    memfd_create,
    ftruncate,
    mmap,
    fork,
    pidfd_open,
    socketpair,
    pipe,
    epoll_create,
    eventfd,
    sendmsg,
    exec,
    setrlimit,
    open_nameless,
    create_file,
    write_file,
    name_file,
    lock_file,
    socket,
    accept,
    count_
};

/// The places where a test can have a process killed (SIGKILL, at that instruction). Each is explained in the README of its layer.
enum class KillPoint : std::uint32_t {
    worker_born,
    worker_ready,
    task_intent,
    task_taken,
    task_head_advanced,
    task_before_run,
    task_after_run,
    pins_published,
    task_result_written,
    task_done,
    task_before_wake,
    task_before_notify,
    task_notified,
    range_intent,
    range_claimed,
    element_started,
    element_stored,
    block_allocated,
    worker_before_sleep,
    worker_woken,
    worker_leaving,
    extent_claimed,
    zygote_request,
    zygote_forked,
    zygote_reaped,
    lock_taken,
    lock_before_sleep,
    lock_released,
    object_claimed,
    object_referred,
    object_ending,
    object_ended,
    object_pinned,
    pin_dropped,
    pin_uncounted,
    waiter_enlisted,
    waiter_chosen,
    waiter_granted,
    permit_taken,
    permit_returned,
    barrier_arrived,
    barrier_tripped,
    put_slot_written,
    block_queued,
    pins_queued,
    put_published,
    put_before_wake,
    get_copied,
    get_taken,
    pins_taken,
    block_loaned,
    block_freed,
    ring_grown,
    queue_repaired,
    watch_woken,
    watch_told,
    watch_settled,
    descriptor_asked,
    descriptor_kept,
    descriptor_given,
    file_written,
    file_named,
    file_replaced,
    file_sweeping,
    result_locked,
    mailbox_filled,
    mailbox_posted,
    mailbox_rung,
    mailbox_slept,
    mailbox_taken,
    mailbox_answering,
    mailbox_answered,
    trace_begun,
    trace_written,
    value_announced,
    value_received,
    value_forwarded,
    bell_awaited,
    bell_silenced,
    count_
};

inline constexpr auto kCallCount = static_cast<std::uint32_t>(Call::count_);
inline constexpr auto kKillPointCount = static_cast<std::uint32_t>(KillPoint::count_);

/// Counters in shared memory: 0 is off, n > 0 kills the process that comes by as the n-th.
struct KillPoints {
    std::atomic<std::uint32_t> countdown[kKillPointCount];
};

#ifdef MULTIHULL_FAILPOINTS
inline constexpr bool kFailpoints = true;
inline KillPoints* kill_points = nullptr;
void kill_here(KillPoint point) noexcept;
bool fails(Call call) noexcept;

/// Makes the n-th coming use of a system call in this process fail with `error`.
void fail_call(Call call, int error, std::uint32_t nth = 1) noexcept;
/// Lets every system call work again.
void clear_failures() noexcept;

inline void kill_point(KillPoint point) noexcept {
    if (kill_points != nullptr &&
        kill_points->countdown[static_cast<std::uint32_t>(point)].load(std::memory_order_relaxed) != 0) {
        kill_here(point);
    }
}
#else
inline constexpr bool kFailpoints = false;
inline void kill_point(KillPoint) noexcept {}
constexpr bool fails(Call) noexcept { return false; }
#endif

/// A system call, unless a test wants it to fail.
template <class Function>
auto checked(Call call, Function function) noexcept -> decltype(function()) {
    if (fails(call)) return static_cast<decltype(function())>(-1);
    return function();
}

}    // namespace multihull::os
