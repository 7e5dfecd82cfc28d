// Processes that run a function of this program.
//
// A Process object belongs to the process that made it and may be used by its threads, one at a time; a forked child's copy of it
// does nothing. A started process is joined when its object ends (a daemon is ended first), and dies with its parent.
#pragma once

#include <multihull/detail/callable.hpp>
#include <multihull/detail/process_end.hpp>

#include <chrono>
#include <cstddef>
#include <memory>
#include <optional>
#include <string>
#include <sys/types.h>
#include <vector>

namespace multihull {

/// How a new process comes to be.
enum class StartMethod {
    fork,          ///< A copy of this process as it is now. The default until init() ran.
    forkserver,    ///< A copy of the program as it was in init(): small, without threads. The default from then on.
    spawn,         ///< The same program started anew; needs init() as main's first line.
};

/// To be called as the first line of main by programs that use the start methods forkserver or spawn.
///
/// Starts the forkserver while the program is small and single-threaded, and makes it the default. In a process that was started
/// by `spawn` it does that process's work and does not return. Costs one fork (0.15 ms).
void init(int argc, char** argv);

/// The start method used where none is given.
StartMethod default_start_method() noexcept;
/// Changes the default for what is started from now on. Throws StartError where init() is needed and has not run.
void set_start_method(StartMethod method);

/// What a process may use, beyond what it has when it starts. 0 stands for no limit.
struct Limits {
    std::size_t memory = 0;    ///< Bytes of private memory; exceeding it makes allocation fail (std::bad_alloc).
    std::chrono::nanoseconds cpu_time{0};    ///< CPU time over all its threads.
};

/// Settings of a Process.
struct ProcessOptions {
    std::string name{};                           ///< Shown in messages; "Process-N" where empty.
    bool daemon = false;                          ///< Ended rather than waited for when its object ends.
    std::optional<StartMethod> start_method{};    ///< The default one where empty.
    Limits limits{};                              ///< A process that exceeds its CPU time is killed by SIGXCPU.
};

/// What a process knows of itself, its parent and its children.
class ProcessInfo {
public:
    ProcessInfo(pid_t pid, std::string name, bool daemon) : pid_(pid), name_(std::move(name)), daemon_(daemon) {}

    pid_t pid() const noexcept { return pid_; }
    const std::string& name() const noexcept { return name_; }
    bool daemon() const noexcept { return daemon_; }

private:
    pid_t pid_;
    std::string name_;
    bool daemon_;
};

/// A function that runs, once started, in a process of its own.
///
/// ```cpp
/// multihull::Process process(greet, "bob");
/// process.start();
/// process.join();
/// ```
/// The function and its arguments travel as for Pool; an uncaught exception is printed to stderr with its stack.
class Process {
public:
    /// Prepares a process that will call `function(arguments...)`. Nothing is started yet.
    template <class Function, class... Args>
        requires(!std::is_same_v<std::remove_cvref_t<Function>, ProcessOptions> &&
                 !std::is_same_v<std::remove_cvref_t<Function>, Process>)
    explicit Process(Function function, Args&&... arguments)
        : Process(ProcessOptions{}, function, std::forward<Args>(arguments)...) {}

    /// The same with settings: `Process({.name = "greeter"}, greet, "bob")`.
    template <class Function, class... Args>
    Process(ProcessOptions options, Function function, Args&&... arguments)
        : Process(std::move(options), detail::make_call(function, std::forward<Args>(arguments)...)) {}

    Process(Process&&) noexcept;
    Process& operator=(Process&&) noexcept;
    /// Joins the process if it was started; ends it first if it is a daemon, or if an exception is unwinding the stack.
    ~Process();

    /// Starts the process. Throws StartError when it can't be started, or was started before.
    Process& start();
    /// Waits until the process has ended. Throws Error when it was never started.
    void join();
    /// Waits for at most `timeout`; false when the process still runs.
    bool join(std::chrono::nanoseconds timeout);
    /// Asks it to end (SIGTERM).
    void terminate();
    /// Ends it (SIGKILL).
    void kill();
    /// Forgets the process. Throws Error while it runs.
    void close();

    bool is_alive() const;
    /// Empty while it runs or before it was started; then 0, the value given to exit(), 1 after an uncaught exception, or minus
    /// the signal that killed it.
    std::optional<int> exitcode() const;
    /// Process id; empty before start().
    std::optional<pid_t> pid() const;
    const std::string& name() const;
    bool daemon() const;
    /// A descriptor that becomes readable when the process ends, for poll() and multihull::wait. Valid until close().
    int sentinel() const;

    /// For multihull::asio. Throws Error when it was never started.
    std::shared_ptr<detail::ProcessEnd> ending() const;

private:
    struct State;
    Process(ProcessOptions options, std::unique_ptr<detail::CallBase> call);

    State& state() const;
    void finish() noexcept;

    std::unique_ptr<State> state_;
};

/// This process.
ProcessInfo current_process();
/// The process that started this one; empty in the main program.
std::optional<ProcessInfo> parent_process();
/// The processes started here that have not ended yet.
std::vector<ProcessInfo> active_children();
/// How many processors this process may use: its affinity mask and the CPU quota of its cgroups, at least 1.
std::size_t cpu_count() noexcept;

}    // namespace multihull
