// Every error that Multihull throws: each is a whole sentence that says what happened and what to do about it.
//
// Errors are values: they may be copied, kept and rethrown by any thread. What they tell about a dead process was
// copied out of shared memory when the process was found dead, so they stay valid after their pool is gone.
#pragma once

#include <multihull/stack.hpp>

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>

namespace multihull {

/// The base of every error of the library.
class Error : public std::runtime_error {
public:
    using std::runtime_error::runtime_error;
};

/// A process could not be started: what was asked of the system, what it answered, and what to change.
class StartError : public Error {
public:
    using Error::Error;
};

/// Bytes that are not an encoding of the value asked for: cut short, of another type, or damaged.
class CodecError : public Error {
public:
    using Error::Error;
};

/// A pool was used after close(), terminate() or the end of the program part that owns it.
class PoolClosed : public Error {
public:
    using Error::Error;
};

/// A pool that can run nothing any more: its initializer failed, or no worker of it can be started. Tasks that ran at that moment
/// fail with it like those that waited, so they may have been run in part.
class BrokenPool : public Error {
public:
    using Error::Error;
};

/// A task was cancelled before it finished.
class Cancelled : public Error {
public:
    using Error::Error;
};

/// A wait() or get() with a time limit of its own ran out. The task goes on.
class WaitTimeout : public Error {
public:
    using Error::Error;
};

/// A handle of a shared object that exists no more: nobody held it while the handle was on its way.
class ObjectGone : public Error {
public:
    using Error::Error;
};

/// A Lock, a Semaphore or a Condition was used against its rules: given back by somebody who does not hold it, or taken twice.
class SyncError : public Error {
public:
    using Error::Error;
};

/// A Barrier that will never open: a party died, or gave up, or somebody called abort().
class BrokenBarrier : public Error {
public:
    using Error::Error;
};

/// A Queue was closed: nothing can be put any more, or everything that was put has been taken.
class QueueClosed : public Error {
public:
    using Error::Error;
};

/// A Queue had no message for as long as the caller wanted to wait.
class QueueEmpty : public WaitTimeout {
public:
    using WaitTimeout::WaitTimeout;
};

/// A Queue had no room for as long as the caller wanted to wait.
class QueueFull : public WaitTimeout {
public:
    using WaitTimeout::WaitTimeout;
};

/// An exception of a type that cannot come back as itself: the type's name, its text, and the stack that threw it.
class RemoteError : public Error {
public:
    RemoteError(std::string type_name, std::string text, Stack stack);

    /// The exception's type, demangled: `my::Failure`.
    const std::string& type_name() const noexcept { return type_name_; }
    /// What its what() said; empty for types without one.
    const std::string& text() const noexcept { return text_; }
    /// The worker's stack where it was thrown; empty where the platform can't tell.
    const Stack& stack() const noexcept { return stack_; }

private:
    std::string type_name_;
    std::string text_;
    Stack stack_;
};

/// How a worker that died ended, as far as the system and the worker's own crash handler could tell.
struct CrashReport {
    int pid = 0;                               ///< Process id of the worker that died.
    int signal = 0;                            ///< Signal that killed it; 0 where it exited by itself.
    int code = 0;                              ///< The signal's si_code, such as SEGV_MAPERR.
    int sender_pid = 0;                        ///< Process that sent the signal, where one did: its own for abort().
    std::uintptr_t address = 0;                ///< Faulting address, for the signals that have one.
    std::optional<int> exit_status{};          ///< Exit status where it exited by itself.
    Stack stack{};                             ///< Stack of the thread that received the signal.
    std::string last_stderr{};                 ///< Last lines it wrote to stderr.
    std::optional<std::size_t> map_index{};    ///< Index of the input, for a task that is one element of a map.
};

/// The process that ran this task died while it did: of a signal, or because the task called exit().
class WorkerCrashed : public Error {
public:
    explicit WorkerCrashed(CrashReport report);

    /// The signal that killed the worker; 0 where the task ended it with exit().
    int signal() const noexcept { return report_->signal; }
    /// The signal's name, `SIGSEGV`; `exit` where there was none.
    std::string signal_name() const;
    /// The address that could not be accessed, for SIGSEGV, SIGBUS, SIGILL and SIGFPE.
    std::uintptr_t address() const noexcept { return report_->address; }
    /// The status the task gave to exit().
    std::optional<int> exit_status() const noexcept { return report_->exit_status; }
    /// Where it was when it died. Names are looked up on first use, from symbol tables and debug information.
    const Stack& stack() const noexcept { return report_->stack; }
    /// The last lines that the worker wrote to stderr.
    const std::string& last_stderr() const noexcept { return report_->last_stderr; }
    /// Everything at once.
    const CrashReport& report() const noexcept { return *report_; }

private:
    std::shared_ptr<const CrashReport> report_;
};

/// The task ran for longer than its time-out, or used more CPU time than its limit, and was ended.
class TaskTimeout : public Error {
public:
    TaskTimeout(const std::string& sentence, std::chrono::nanoseconds limit, Stack stack);

    /// The limit that it exceeded.
    std::chrono::nanoseconds limit() const noexcept { return limit_; }
    /// Where the task was when its time ran out; empty where it had blocked every signal.
    const Stack& stack() const noexcept { return stack_; }

private:
    std::chrono::nanoseconds limit_;
    Stack stack_;
};

/// The task used more CPU time, over all its threads, than its limit allowed.
class CpuTimeExceeded : public TaskTimeout {
public:
    using TaskTimeout::TaskTimeout;
};

}    // namespace multihull
