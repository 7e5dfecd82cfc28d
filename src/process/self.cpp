#include "process/self.hpp"

#include "os/process.hpp"
#include "process/leave_hook.hpp"
#include "process/supervisor.hpp"
#include "process/throw_trace.hpp"
#include "shm/heap.hpp"
#include "shm/objects.hpp"
#include "shm/region.hpp"

#include <multihull/detail/fork_guard.hpp>
#include <multihull/detail/token.hpp>
#include <multihull/log.hpp>

#include <atomic>
#include <fcntl.h>
#include <mutex>
#include <pthread.h>
#include <unistd.h>

namespace multihull {

namespace detail {

void run_fork_child_hooks();
void run_leave_hooks() noexcept;

namespace {

std::atomic<std::uint32_t> generation{1};
std::atomic<std::uint32_t> own_threads{0};

// Written by the process's first code, before any thread of its own exists; only read afterwards. Leaked: read until the end.
ProcessInfo* self_info = nullptr;
ProcessInfo* parent_info = nullptr;

constinit std::atomic<ForkChildHook*> hooks{nullptr};
constinit std::atomic<LeaveHook*> leave_hooks{nullptr};

void in_forked_child() {
    unlock_tokens_after_fork();
    generation.fetch_add(1, std::memory_order_relaxed);
    own_threads.store(0, std::memory_order_relaxed);
    shm::Heap::after_fork();
    if (shm::Region::exists()) shm::Region::instance().after_fork();
    Supervisor::after_fork();
    run_fork_child_hooks();
}

}    // namespace

ForkChildHook::ForkChildHook(void (*hook)()) noexcept : hook_(hook), next_(hooks.load()) { hooks.store(this); }

LeaveHook::LeaveHook(void (*hook)() noexcept) noexcept : hook_(hook), next_(leave_hooks.load()) {
    leave_hooks.store(this);
}

void run_leave_hooks() noexcept {
    for (const auto* entry = leave_hooks.load(); entry != nullptr; entry = entry->next_) entry->hook_();
}

void run_fork_child_hooks() {
    for (const auto* entry = hooks.load(); entry != nullptr; entry = entry->next_) entry->hook_();
}

std::uint32_t fork_generation() noexcept { return generation.load(std::memory_order_relaxed); }

ForkGuard::ForkGuard() noexcept : current_(&generation), made_(fork_generation()) {}

void ForkGuard::leave() noexcept { leave_child(0); }

void watch_forks() {
    static std::once_flag once;
    std::call_once(once, [] {
        // Learned once here, not in each child anew.
        prepare_tokens();
        prepare_throw_trace();
        ::pthread_atfork(lock_tokens_before_fork, unlock_tokens_after_fork, in_forked_child);
    });
}

void count_own_thread(int change) noexcept {
    own_threads.fetch_add(static_cast<std::uint32_t>(change), std::memory_order_relaxed);
}

namespace {
thread_local bool this_thread_never_waits = false;
}    // namespace

void let_never_wait() noexcept { this_thread_never_waits = true; }
bool never_waits() noexcept { return this_thread_never_waits; }

void warn_if_threaded(const char* what) {
    static std::atomic<bool> said{false};
    if (os::thread_count() <= 1 + own_threads.load(std::memory_order_relaxed) || said.exchange(true)) return;
    log(LogLevel::warning,
        std::string(what) +
            " forks a program that runs threads: a lock that another thread holds now stays locked in the "
            "child for ever. Call multihull::init(argc, argv) as main's first line, or start it before the threads");
}

void set_self(ProcessInfo self, ProcessInfo parent) {
    self_info = new ProcessInfo(std::move(self));
    parent_info = new ProcessInfo(std::move(parent));
}

void leave_child(int status) noexcept {
    run_leave_hooks();
    shm::leave_objects();
    os::flush_standard_streams();
    ::_exit(status);
}

void detach_stream(int stream) noexcept {
    const int null = ::open("/dev/null", O_RDWR | O_CLOEXEC);
    if (null < 0) return;
    if (null == stream) {
        ::fcntl(null, F_SETFD, 0);
        return;
    }
    ::dup2(null, stream);
    ::close(null);
}

}    // namespace detail

ProcessInfo current_process() {
    if (detail::self_info != nullptr && detail::self_info->pid() == ::getpid()) return *detail::self_info;
    return ProcessInfo(::getpid(), "MainProcess", false);
}

std::optional<ProcessInfo> parent_process() {
    if (detail::parent_info == nullptr) return std::nullopt;
    return *detail::parent_info;
}

std::size_t cpu_count() noexcept { return os::usable_cpus(); }

}    // namespace multihull
