// Which sanitizer this build has, for expectations that it changes: it takes memory of its own, keeps what is freed for a while,
// and ends crashes with a report and an exit status.
#pragma once

#include <multihull/error.hpp>

#include <new>
#include <type_traits>

namespace test {

#if defined(__SANITIZE_ADDRESS__)
inline constexpr bool kAsan = true;
#elif defined(__has_feature)
inline constexpr bool kAsan = __has_feature(address_sanitizer);
#else
inline constexpr bool kAsan = false;
#endif

#if defined(__SANITIZE_THREAD__)
inline constexpr bool kTsan = true;
#elif defined(__has_feature)
inline constexpr bool kTsan = __has_feature(thread_sanitizer);
#else
inline constexpr bool kTsan = false;
#endif

/// Whether a signal arrives in the middle of a loop: the thread sanitizer keeps it until the loop calls into the C library, so that
/// there is no stack to be had of one that never does.
inline constexpr bool kSignalsArriveAtOnce = !kTsan;

/// What becomes of a task for which there is no memory: the sanitizers' operator new ends the process where it would throw.
using OutOfMemory = std::conditional_t<kAsan || kTsan, multihull::WorkerCrashed, std::bad_alloc>;

}    // namespace test
