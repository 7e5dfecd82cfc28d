// What this process is: the program's main process, a zygote, a worker, or the process of a Process.
//
// Every fork, ours or the user's, passes through the fork handlers here: in the child nothing of the parent's threads, pools,
// supervisor and locks is left to be touched.
#pragma once

#include <multihull/process.hpp>

#include <cstdint>
#include <optional>
#include <string>

namespace multihull::detail {

/// A number that is different in every forked copy of a process: objects made under another number belong to another process.
std::uint32_t fork_generation() noexcept;

/// Something to run in a forked child, before anything else there: resets what another thread of the parent may have locked.
class ForkChildHook {
public:
    explicit ForkChildHook(void (*hook)()) noexcept;

private:
    friend void run_fork_child_hooks();
    void (*hook_)();
    ForkChildHook* next_;
};

/// Makes sure that the fork handlers are in place.
void watch_forks();

/// Threads of the library itself in this process; they keep no lock across a fork that a child could miss.
void count_own_thread(int change) noexcept;

/// Makes the calling thread one that waits for nobody: what it logs is dropped where stderr takes nothing.
void let_never_wait() noexcept;
bool never_waits() noexcept;

/// Says once in the log that a program with running threads was forked.
void warn_if_threaded(const char* what);

/// Who this process is, set by its first code after the fork.
void set_self(ProcessInfo self, ProcessInfo parent);

/// Flushes the standard streams and leaves without running the program's exit handlers.
[[noreturn]] void leave_child(int status) noexcept;

/// Puts a standard stream to /dev/null: stdin, so that children do not fight over the terminal's input, or what is closed.
void detach_stream(int stream) noexcept;

}    // namespace multihull::detail
