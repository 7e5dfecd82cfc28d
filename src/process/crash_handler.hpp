// What a worker leaves behind when it crashes, and where it is when it seems stuck.
//
// Safe across processes: the worker writes, its supervisor reads. Safe with threads: of several that crash the first
// one writes. Survives death at any instruction: what `written` says is there is whole.
//
// Invariants
// (1) `written` and what it covers are written by the worker's handlers only, and by reset() while no worker has the
//     record.
// (2) signal, code, address, sender and thread are written once, before `written` becomes kSignal; stack before kWhole.
//     A worker that dies while it unwinds leaves kSignal, with as many frames in `stack` as it found.
// (3) `stack_requested` is set by the supervisor and taken back by the handler; `stuck_stack` is whole once
//     `stack_ready` is set, which only the supervisor clears.
// (4) A record is a hint, whoever wrote it: the supervisor believes the exit status first, and checks every size.
#pragma once

#include "process/backtrace.hpp"

#include <atomic>
#include <cstdint>

namespace multihull::detail {

/// A worker's slot for its crash, in shared memory. All zero is a valid empty one.
struct CrashRecord {
    /// Values of `written`.
    static constexpr std::uint32_t kNothing = 0;
    static constexpr std::uint32_t kSignal = 1;
    static constexpr std::uint32_t kWhole = 2;

    std::atomic<std::uint32_t> written;    ///< How much of the crash is here, as above.
    std::int32_t signal;
    std::int32_t code;        ///< The signal's si_code.
    std::uint64_t address;    ///< Faulting address; 0 for signals without one.
    std::int32_t sender;      ///< Process that sent the signal; 0 where none did.
    std::uint32_t thread;     ///< Kernel's id of the thread that crashed.
    RawStack stack;

    std::atomic<std::uint32_t> stack_requested;    ///< Set it to 1, then send stack_signal().
    std::atomic<std::uint32_t> stack_ready;        ///< Set to 1, and futex waiters woken, when `stuck_stack` is whole.
    RawStack stuck_stack;

    /// Empties the record for its next worker.
    void reset() noexcept;
};

/// Makes this process, a worker just forked and with one thread yet, account for its crashes in `record`.
///
/// Handles SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGABRT, SIGSYS, SIGTRAP and stack_signal(), and unblocks them. After a
/// crash is written the signal goes to the action that was there before, so sanitizers and the program's own handlers
/// keep working. Processes that the worker forks inherit the handlers, which write nothing there. May be called again
/// with another record. The calling thread gets an alternate stack, and so reports its stack overflows too.
void install_crash_handler(CrashRecord* record) noexcept;

/// Gives the calling thread an alternate signal stack where it has none of a useful size; it stays until the thread's
/// end, and its memory until the process's. True when the thread has one.
bool ensure_alternate_stack() noexcept;

/// The signal that asks a worker for its stack.
int stack_signal() noexcept;

}    // namespace multihull::detail
