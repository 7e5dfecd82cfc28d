// Most system calls of the handlers are made here and not through src/os: nothing between a crash and its record may
// allocate, lock, throw or be made to fail by a test.
#include "process/crash_handler.hpp"

#include "os/futex.hpp"
#include "process/signal_name.hpp"

#include <sys/auxv.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstddef>
#include <ctime>
#include <iterator>
#include <type_traits>

namespace multihull::detail {
namespace {

static_assert(std::is_standard_layout_v<CrashRecord>);
static_assert(std::atomic<std::uint32_t>::is_always_lock_free);
static_assert(std::atomic<CrashRecord*>::is_always_lock_free);

constexpr int kCrashSignals[] = {SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGABRT, SIGSYS, SIGTRAP};
constexpr std::size_t kAlternateStackSize = std::size_t{64} << 10;

// Written by install_crash_handler() before the handlers can run; a fork copies them with the handlers they belong to.
std::atomic<CrashRecord*> own_record{nullptr};
std::atomic<pid_t> own_process{0};
// The thread whose crash the record is for; 0 while none has crashed.
std::atomic<pid_t> crashed_thread{0};
struct sigaction previous_actions[std::size(kCrashSignals)];

class KeepErrno {
public:
    KeepErrno() noexcept : saved_(errno) {}
    ~KeepErrno() { errno = saved_; }
    KeepErrno(const KeepErrno&) = delete;
    KeepErrno& operator=(const KeepErrno&) = delete;

private:
    int saved_;
};

// The record that this process may write: a child of a worker has none.
CrashRecord* record_of_this_process() noexcept {
    return own_process.load(std::memory_order_relaxed) == getpid() ? own_record.load(std::memory_order_relaxed)
                                                                   : nullptr;
}

struct sigaction& previous_action(int signal) noexcept {
    const auto* const place = std::find(std::begin(kCrashSignals), std::end(kCrashSignals) - 1, signal);
    return previous_actions[place - kCrashSignals];
}

// Signals that an instruction causes again when it is executed again. A breakpoint and a filtered system call are over.
bool comes_again(int signal, int code) noexcept {
    const bool faults = signal == SIGSEGV || signal == SIGBUS || signal == SIGILL || signal == SIGFPE;
    return faults && code > 0 && !(signal == SIGBUS && code == BUS_MCEERR_AO);
}

// A crash of another thread is being written. The process ends with that one, unless a handler of the program saves it.
void wait_for_first_crash() noexcept {
    timespec left{1, 0};
    while (nanosleep(&left, &left) != 0 && errno == EINTR) {}
}

void write_crash(CrashRecord& record, int signal, const siginfo_t& info, ucontext_t* context) noexcept {
    const pid_t thread = gettid();
    pid_t first = 0;
    // Fails at once for the first thread itself, as where writing the record faults: then its crash goes its way
    // unrecorded.
    if (!crashed_thread.compare_exchange_strong(first, thread, std::memory_order_relaxed)) {
        if (first != thread) {
            wait_for_first_crash();
        }
        return;
    }
    record.signal = signal;
    record.code = info.si_code;
    record.address = signal_has_address(signal, info.si_code) ? reinterpret_cast<std::uintptr_t>(info.si_addr) : 0;
    const bool sent = info.si_code == SI_USER || info.si_code == SI_TKILL || info.si_code == SI_QUEUE;
    record.sender = sent ? info.si_pid : 0;
    record.thread = static_cast<std::uint32_t>(thread);
    record.written.store(CrashRecord::kSignal, std::memory_order_release);
    capture_from(record.stack, context);
    record.written.store(CrashRecord::kWhole, std::memory_order_release);
}

// Leaves the signal pending for this thread, to be delivered when the handler returns, so that the previous action sees
// the interrupted code and not this handler.
void send_again(int signal, siginfo_t& info) noexcept {
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, signal);
    pthread_sigmask(SIG_BLOCK, &set, nullptr);
    const pid_t process = getpid();
    const pid_t thread = gettid();
    if (syscall(SYS_rt_tgsigqueueinfo, process, thread, signal, &info) != 0) {
        syscall(SYS_tgkill, process, thread, signal);
    }
}

void on_crash(int signal, siginfo_t* info, void* context) noexcept {
    leave_faulty_capture();
    const KeepErrno keep_errno;
    const struct sigaction& previous = previous_action(signal);
    if (previous.sa_handler == SIG_IGN && info->si_code <= 0 && signal != SIGABRT) {
        return;
    }
    if (CrashRecord* const record = record_of_this_process()) {
        write_crash(*record, signal, *info, static_cast<ucontext_t*>(context));
    }
    sigaction(signal, &previous, nullptr);
    if (!comes_again(signal, info->si_code)) {
        send_again(signal, *info);
    }
}

void on_stack_request(int, siginfo_t*, void* context) noexcept {
    const KeepErrno keep_errno;
    CrashRecord* const record = record_of_this_process();
    if (record == nullptr || record->stack_requested.exchange(0, std::memory_order_acquire) == 0) {
        return;
    }
    capture_from(record->stuck_stack, static_cast<ucontext_t*>(context));
    record->stack_ready.store(1, std::memory_order_release);
    os::futex_wake_all(record->stack_ready);
}

bool has_alternate_stack() noexcept {
    stack_t current{};
    return sigaltstack(nullptr, &current) == 0 && (current.ss_flags & SS_DISABLE) == 0 &&
           current.ss_size >= kAlternateStackSize;
}

// Everything but the crash signals waits while a handler runs: they stay deliverable, because unwinding may fault.
sigset_t mask_of_handlers() noexcept {
    sigset_t mask;
    sigfillset(&mask);
    for (const int signal : kCrashSignals) {
        sigdelset(&mask, signal);
    }
    return mask;
}

void install(int signal, void (*handler)(int, siginfo_t*, void*), int flags) noexcept {
    struct sigaction action {};
    action.sa_sigaction = handler;
    action.sa_flags = SA_SIGINFO | SA_ONSTACK | flags;
    action.sa_mask = mask_of_handlers();
    sigaction(signal, &action, nullptr);
}

void install_for_crash(int signal) noexcept {
    struct sigaction current {};
    sigaction(signal, nullptr, &current);
    if ((current.sa_flags & SA_SIGINFO) != 0 && current.sa_sigaction == on_crash) {
        return;
    }
    previous_action(signal) = current;
    install(signal, on_crash, SA_NODEFER);
}

}    // namespace

void CrashRecord::reset() noexcept {
    written.store(kNothing, std::memory_order_relaxed);
    stack.size = 0;
    stack_requested.store(0, std::memory_order_relaxed);
    stack_ready.store(0, std::memory_order_relaxed);
    stuck_stack.size = 0;
}

int stack_signal() noexcept { return SIGRTMAX - 1; }

bool ensure_alternate_stack() noexcept {
    if (has_alternate_stack()) {
        return true;
    }
    // The kernel says how much of it one delivery takes on this processor.
    const std::size_t page = static_cast<std::size_t>(sysconf(_SC_PAGESIZE));
    const std::size_t needed = kAlternateStackSize + getauxval(AT_MINSIGSTKSZ);
    const std::size_t size = (needed + page - 1) / page * page;
    void* const memory =
        mmap(nullptr, size + page, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_STACK | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED) {
        return false;
    }
    stack_t stack{};
    stack.ss_sp = static_cast<std::byte*>(memory) + page;
    stack.ss_size = size;
    if (mprotect(stack.ss_sp, size, PROT_READ | PROT_WRITE) != 0 || sigaltstack(&stack, nullptr) != 0) {
        munmap(memory, size + page);
        return false;
    }
    return true;
}

void install_crash_handler(CrashRecord* record) noexcept {
    own_record.store(record, std::memory_order_relaxed);
    own_process.store(getpid(), std::memory_order_relaxed);
    crashed_thread.store(0, std::memory_order_relaxed);
    warm_up_unwinder();
    // Without one, all but stack overflows is still reported.
    static_cast<void>(ensure_alternate_stack());
    sigset_t unblocked;
    sigemptyset(&unblocked);
    for (const int signal : kCrashSignals) {
        install_for_crash(signal);
        sigaddset(&unblocked, signal);
    }
    install(stack_signal(), on_stack_request, SA_RESTART);
    sigaddset(&unblocked, stack_signal());
    pthread_sigmask(SIG_UNBLOCK, &unblocked, nullptr);
}

}    // namespace multihull::detail
