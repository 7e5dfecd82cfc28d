// What ThreadSanitizer can't see: it follows one process. Memory that a thread gives to another process, and that another thread has
// back from there, looks to it like a race between the two.
#pragma once

#if defined(__SANITIZE_THREAD__)
#define MULTIHULL_THREAD_SANITIZER 1
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define MULTIHULL_THREAD_SANITIZER 1
#endif
#endif

#ifdef MULTIHULL_THREAD_SANITIZER
#include <sanitizer/tsan_interface.h>
#endif

namespace multihull::os {

#ifdef MULTIHULL_THREAD_SANITIZER
inline constexpr bool kThreadSanitizer = true;
#else
inline constexpr bool kThreadSanitizer = false;
#endif

namespace detail {
inline char other_processes = 0;    // its address stands for all of them
}    // namespace detail

/// What this thread has done so far is seen by another process, which writes to the same memory next.
inline void gave_to_process() noexcept {
#ifdef MULTIHULL_THREAD_SANITIZER
    __tsan_release(&detail::other_processes);
#endif
}

/// Another process has seen all that was given to it before, and has written what this thread reads now.
inline void got_from_process() noexcept {
#ifdef MULTIHULL_THREAD_SANITIZER
    __tsan_acquire(&detail::other_processes);
#endif
}

}    // namespace multihull::os
