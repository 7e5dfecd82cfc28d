// The stack that threw an exception, without replacing any function of the C++ runtime.
//
// An exception is thrown in two phases: the unwinder first searches the calls upward for a handler, then unwinds. A
// call made through call_with_throw_trace() stands on the way of the search, and is asked while the throwing stack is
// still whole. Exceptions that are caught inside never get there and cost nothing; neither does a call that throws
// nothing.
//
// Thread-safe: each thread has a trace of its own.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace multihull::detail {

/// Calls `function(context)`. When an exception leaves it, last_throw_stack() is the stack that threw it, as the frames
/// of a RawStack; for one that was caught and thrown again, the stack that threw it again. Empty on processors other
/// than x86-64 and AArch64.
void call_with_throw_trace(void (*function)(void*), void* context);

/// What the first call would do, in advance: forked children inherit it.
void prepare_throw_trace();

/// How many of a stack's frames, innermost first, lie inside of what call_with_throw_trace() called: what is the task's own.
/// All of them where none of the frames is that call.
std::size_t frames_of_task(std::span<const std::uintptr_t> frames) noexcept;

/// This thread's last trace; valid until its next one.
std::span<const std::uint64_t> last_throw_stack() noexcept;

/// Where the program lies in the process that will read this one's stacks: `anchor` here is `there` in that one.
void set_reader_of_stacks(std::uintptr_t anchor, std::uintptr_t there) noexcept;

/// The same without the calls that only led to the task, as addresses of the process that will read them: what an error shows.
std::vector<std::uintptr_t> task_throw_stack();

/// Forgets this thread's trace. Call it before call_with_throw_trace() where an old trace would mislead.
void clear_throw_stack() noexcept;

}    // namespace multihull::detail
