// Processes: pidfds, signals, exit statuses, limits, and what this process may use of the machine.
#pragma once

#include "os/fd.hpp"

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <sys/types.h>

namespace multihull::os {

/// Flushes what this process has buffered for its standard streams, so that a fork does not print it twice.
void flush_standard_streams() noexcept;

/// fork() after a flush; -1 with errno on failure.
pid_t fork_process() noexcept;

Fd open_pidfd(pid_t pid);
/// Whether a process, or a thread, with that id runs: false for one that has ended and waits to be reaped.
bool is_running(pid_t id) noexcept;
/// Sends a signal to exactly the process that the pidfd names; false when it is gone.
bool signal_process(const Fd& pidfd, int signal) noexcept;

/// Exit code as Python gives it: the exit status, or minus the number of the signal.
struct ExitStatus {
    pid_t pid = 0;
    int code = 0;
};

/// Reaps the child behind a pidfd; empty while it runs (or, without `block`, when the wait would sleep).
std::optional<ExitStatus> reap(const Fd& pidfd, bool block) noexcept;
/// Reaps any child that has ended. Only for processes that have no children but the library's: zygotes.
std::optional<ExitStatus> reap_any() noexcept;

/// Asks the kernel to kill this process when `parent` dies; false when it is already gone.
bool die_with_parent(pid_t parent) noexcept;
/// Orphans below this process become its children, so that none can outlive it unseen.
void become_subreaper() noexcept;
/// Pids of this process's children, as the kernel lists them.
std::size_t list_children(std::span<pid_t> out) noexcept;
/// Name shown by ps and top; at most 15 characters are kept.
void set_process_name(const char* name) noexcept;

/// Limits private memory (heap, stacks, private mappings; shared mappings don't count) to what is used now plus `bytes`.
void limit_private_memory(std::size_t base, std::size_t bytes);
void unlimit_private_memory() noexcept;
/// Private memory in use now, as RLIMIT_DATA counts it.
std::size_t private_memory() noexcept;

/// Threads of this process.
std::size_t thread_count() noexcept;
/// Processors this process may use: its affinity mask, and the CPU quota of its cgroups (rounded up).
std::size_t usable_cpus() noexcept;

std::string errno_text(int error);

}    // namespace multihull::os
