// Raw stacks: program counters, innermost first, taken by the compiler's own unwinder.
//
// Everything here is async-signal-safe once warm_up_unwinder() has run: no allocation and no lock (glibc 2.35 and later
// find unwind tables without one).
#pragma once

#include <ucontext.h>

#include <cstddef>
#include <cstdint>
#include <vector>

namespace multihull::detail {

/// A stack as it lies in shared memory.
///
/// Each frame is an address inside the instruction that its function was executing: the interrupted instruction itself,
/// or the last byte of a call. So every one of them can be looked up as it is, without knowing which kind it is.
struct RawStack {
    static constexpr std::size_t kFrames = 62;

    std::uint32_t size;
    std::uint64_t frames[kFrames];
};

/// Loads what the unwinder loads on first use. Call it before any handler that captures can run.
void warm_up_unwinder() noexcept;

/// Takes the caller's own stack, less its `skip` innermost frames: frame 0 is the caller for `skip` 0.
void capture(RawStack& stack, int skip) noexcept;

/// Takes the stack that a signal interrupted: frame 0 is the interrupted instruction.
///
/// Call it from the handler that was given `context`, which is changed for the while and put back. Where the
/// interrupted code has no unwind tables (a call through a wild pointer, assembly), the stack is searched for its
/// caller. A stack so damaged that unwinding faults gives the frames up to there, provided that the handlers of the
/// faults call leave_faulty_capture() first.
void capture_from(RawStack& stack, ucontext_t* context) noexcept;

/// Jumps back into the capture_from() of this thread that faulted; returns where none is under way.
void leave_faulty_capture() noexcept;

/// A checked copy of a stack in memory that another process may have written.
std::vector<std::uintptr_t> copy_frames(const RawStack& stack);

}    // namespace multihull::detail
