// Children crash in every way there is; what they leave in their records is looked at by this process, which they were
// forked from, so that their addresses are its own.
#include "process/crash_handler.hpp"

#include "process/symbolize.hpp"
#include "support/sanitizer.hpp"

#include <gtest/gtest.h>

#include <malloc.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstdlib>
#include <functional>
#include <string>
#include <thread>
#include <vector>

namespace {

using multihull::detail::CrashRecord;
using multihull::detail::install_crash_handler;
using multihull::detail::stack_signal;

// Kept out of its caller, and its caller kept on the stack, whatever the optimizer thinks. It does what sanitizers
// forbid.
#define CRASHER __attribute__((noinline, no_sanitize("undefined")))

void keep_caller() { asm volatile("" ::: "memory"); }

// What children and this process share.
struct Shared {
    CrashRecord record;
    std::atomic<int> step;
    std::atomic<std::uintptr_t> seen_address;
    std::atomic<std::uintptr_t> seen_counter;
    std::atomic<int> seen_code;
    std::atomic<int> seen_pid;
};

Shared* shared = nullptr;

bool wait_until(const std::function<bool()>& condition) {
    const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(60);
    while (!condition()) {
        if (std::chrono::steady_clock::now() > deadline) {
            return false;
        }
        std::this_thread::yield();
    }
    return true;
}

class CrashHandlerTest : public testing::Test {
protected:
    void SetUp() override {
        void* const memory = mmap(nullptr, sizeof(Shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
        ASSERT_NE(memory, MAP_FAILED);
        shared = static_cast<Shared*>(memory);
    }

    void TearDown() override {
        if (child_ > 0) {
            kill(child_, SIGKILL);
            waitpid(child_, nullptr, 0);
        }
        munmap(shared, sizeof(Shared));
    }

    CrashRecord& record() { return shared->record; }

    // Runs the function in a child that accounts for its crashes.
    template <class Function>
    void start(Function function) {
        child_ = fork();
        ASSERT_GE(child_, 0);
        if (child_ == 0) {
            const rlimit no_core{0, 0};
            setrlimit(RLIMIT_CORE, &no_core);
            before_install_();
            install_crash_handler(&shared->record);
            function();
            _exit(0);
        }
    }

    int wait() {
        int status = -1;
        EXPECT_EQ(waitpid(child_, &status, 0), child_);
        child_ = -1;
        return status;
    }

    template <class Function>
    int run(Function function) {
        start(function);
        return wait();
    }

    // It died of the signal; or of the runtime's report, where a sanitizer handles the signal.
    static void expect_death(int status, int signal) {
        struct sigaction action {};
        sigaction(signal, nullptr, &action);
        if (action.sa_handler == SIG_DFL) {
            EXPECT_TRUE(WIFSIGNALED(status)) << status;
            EXPECT_EQ(WTERMSIG(status), signal);
        } else {
            EXPECT_NE(status, 0);
        }
    }

    void expect_record(int signal, int code) {
        EXPECT_EQ(record().written.load(), CrashRecord::kWhole);
        EXPECT_EQ(record().signal, signal);
        EXPECT_EQ(record().code, code);
        EXPECT_GE(record().stack.size, 1u);
    }

    static std::vector<std::string> names(const multihull::detail::RawStack& stack) {
        std::vector<std::string> result;
        for (const multihull::Frame& frame : multihull::detail::symbolize(copy_frames(stack))) {
            result.push_back(frame.function);
        }
        return result;
    }

    static bool contains(const std::vector<std::string>& names, const std::string& part) {
        return std::any_of(names.begin(), names.end(),
                           [&](const std::string& name) { return name.find(part) != std::string::npos; });
    }

    std::string crashed_in() {
        const auto functions = names(record().stack);
        return functions.empty() ? "" : functions.front();
    }

    std::function<void()> before_install_ = [] {};
    pid_t child_ = -1;
};

// Names are searched for parts of themselves, because each compiler writes anonymous namespaces in its own way.
#define EXPECT_NAME(name, part) EXPECT_NE((name).find(part), std::string::npos) << (name)

CRASHER void write_to(volatile int* place) {
    *place = 1;
    keep_caller();
}

CRASHER void write_to_null() {
    volatile int* volatile place = nullptr;
    write_to(place);
    keep_caller();
}

TEST_F(CrashHandlerTest, null_pointer) {
    expect_death(run(write_to_null), SIGSEGV);
    expect_record(SIGSEGV, SEGV_MAPERR);
    EXPECT_EQ(record().address, 0u);
    EXPECT_EQ(record().sender, 0);
    EXPECT_NAME(crashed_in(), "write_to(");
    const auto functions = names(record().stack);
    ASSERT_GE(functions.size(), 2u);
    EXPECT_NAME(functions[1], "write_to_null");
    EXPECT_TRUE(contains(functions, "main"));
}

TEST_F(CrashHandlerTest, address_is_the_one_that_faulted) {
    run([] { write_to(reinterpret_cast<volatile int*>(0x1230)); });
    expect_record(SIGSEGV, SEGV_MAPERR);
    EXPECT_EQ(record().address, 0x1230u);
}

CRASHER int overflow_stack(int depth) {
    volatile char room[1024];
    room[static_cast<std::size_t>(depth) % sizeof room] = static_cast<char>(depth);
    return depth < 0 ? 0 : overflow_stack(depth + 1) + room[0];
}

TEST_F(CrashHandlerTest, stack_overflow) {
    expect_death(run([] { overflow_stack(0); }), SIGSEGV);
    EXPECT_EQ(record().written.load(), CrashRecord::kWhole);
    EXPECT_EQ(record().signal, SIGSEGV);
    EXPECT_EQ(record().stack.size, multihull::detail::RawStack::kFrames);
    EXPECT_NAME(crashed_in(), "overflow_stack");
}

TEST_F(CrashHandlerTest, abort) {
    expect_death(run([] { std::abort(); }), SIGABRT);
    expect_record(SIGABRT, SI_TKILL);
    EXPECT_TRUE(contains(names(record().stack), "abort"));
    EXPECT_NE(record().sender, 0);
}

CRASHER int divide(volatile int* numbers) { return numbers[0] / numbers[1]; }

TEST_F(CrashHandlerTest, division_by_zero) {
#if !defined(__x86_64__)
    GTEST_SKIP() << "only x86 traps it";
#endif
    expect_death(run([] {
                     volatile int numbers[2] = {1, 0};
                     numbers[0] = divide(numbers);
                 }),
                 SIGFPE);
    expect_record(SIGFPE, FPE_INTDIV);
    EXPECT_NAME(crashed_in(), "divide");
    EXPECT_EQ(record().address, record().stack.frames[0]);
}

CRASHER void execute_nonsense() {
#if defined(__x86_64__)
    asm volatile("ud2");
#else
    asm volatile("udf #0");
#endif
}

TEST_F(CrashHandlerTest, illegal_instruction) {
    expect_death(run(execute_nonsense), SIGILL);
    EXPECT_EQ(record().signal, SIGILL);
    EXPECT_NAME(crashed_in(), "execute_nonsense");
}

CRASHER void hit_breakpoint() {
#if defined(__x86_64__)
    asm volatile("int3");
#else
    asm volatile("brk #0");
#endif
    keep_caller();
}

TEST_F(CrashHandlerTest, breakpoint_does_not_go_on) {
    expect_death(run(hit_breakpoint), SIGTRAP);
    EXPECT_EQ(record().signal, SIGTRAP);
    EXPECT_NAME(crashed_in(), "hit_breakpoint");
}

CRASHER void read_beyond_end_of_file() {
    const int fd = memfd_create("empty", MFD_CLOEXEC);
    void* const memory = mmap(nullptr, 4096, PROT_READ, MAP_SHARED, fd, 0);
    static_cast<void>(*static_cast<volatile int*>(memory));
    keep_caller();
}

TEST_F(CrashHandlerTest, beyond_end_of_mapped_file) {
    expect_death(run(read_beyond_end_of_file), SIGBUS);
    expect_record(SIGBUS, BUS_ADRERR);
    EXPECT_NE(record().address, 0u);
    EXPECT_NAME(crashed_in(), "read_beyond_end_of_file");
}

TEST_F(CrashHandlerTest, killed_from_outside) {
    start([] {
        shared->step = 1;
        for (;;) {
            pause();
        }
    });
    ASSERT_TRUE(wait_until([] { return shared->step == 1; }));
    kill(child_, SIGSEGV);
    expect_death(wait(), SIGSEGV);
    expect_record(SIGSEGV, SI_USER);
    EXPECT_EQ(record().sender, getpid());
    EXPECT_EQ(record().address, 0u);
}

TEST_F(CrashHandlerTest, second_thread) {
    expect_death(run([] { std::thread(write_to_null).join(); }), SIGSEGV);
    expect_record(SIGSEGV, SEGV_MAPERR);
    EXPECT_NAME(crashed_in(), "write_to(");
    EXPECT_FALSE(contains(names(record().stack), "RUN_ALL_TESTS"));
}

TEST_F(CrashHandlerTest, first_of_two_threads_is_the_one_recorded) {
    for (int round = 0; round < 30; ++round) {
        record().reset();
        const int status = run([] {
            std::atomic<int> ready{0};
            const auto together = [&ready] {
                ++ready;
                while (ready < 2) {}
            };
            std::thread other([&] {
                together();
                execute_nonsense();
            });
            together();
            write_to_null();
            other.join();
        });
        EXPECT_EQ(record().written.load(), CrashRecord::kWhole);
        EXPECT_NE(record().thread, 0u);
        expect_death(status, record().signal);
        EXPECT_NAME(crashed_in(), record().signal == SIGSEGV ? "write_to(" : "execute_nonsense");
    }
}

#if defined(__x86_64__)

// Stack pointers to nowhere, to an address that can't exist, and to the end of what is mapped.
TEST_F(CrashHandlerTest, wild_stack_pointer) {
    if (test::kTsan) {
        GTEST_SKIP() << "it blocks every signal while a handler runs, so that unwinding may not fault";
    }
    for (const std::uintptr_t pointer : {std::uintptr_t{64}, std::uintptr_t{0x123456789abcdef0}, ~std::uintptr_t{7}}) {
        record().reset();
        const int status = run([pointer] { asm volatile("mov %0, %%rsp\n\tpush %%rax" : : "r"(pointer) : "memory"); });
        EXPECT_NE(status, 0);
        EXPECT_EQ(record().written.load(), CrashRecord::kWhole) << pointer;
        EXPECT_TRUE(record().signal == SIGSEGV || record().signal == SIGBUS);
        EXPECT_GE(record().stack.size, 1u);
    }
}

// A frame that says that it was called by itself.
extern "C" void endless_stack();
asm(R"(
    .pushsection .text
    .type endless_stack, @function
endless_stack:
    .cfi_startproc
    subq $64, %rsp
    movq %rsp, %rbp
    .cfi_def_cfa %rbp, 16
    .cfi_offset %rbp, -16
    .cfi_offset %rip, -8
    movq %rbp, (%rbp)
    leaq 1f(%rip), %rax
    movq %rax, 8(%rbp)
1:  ud2
    .cfi_endproc
    .size endless_stack, . - endless_stack
    .popsection
)");

TEST_F(CrashHandlerTest, endless_stack_ends) {
    expect_death(run(endless_stack), SIGILL);
    EXPECT_EQ(record().written.load(), CrashRecord::kWhole);
    EXPECT_EQ(record().stack.size, multihull::detail::RawStack::kFrames);
}

// Pushes what is no return address, then faults; it has no unwind table.
extern "C" void assembly_without_table();
asm(R"(
    .pushsection .text
    .type assembly_without_table, @function
assembly_without_table:
    pushq %rbp
    movq %rsp, %rbp
    subq $32, %rsp
    movq $12345, (%rsp)
    ud2
    .size assembly_without_table, . - assembly_without_table
    .popsection
)");

CRASHER void call_assembly() {
    assembly_without_table();
    keep_caller();
}

TEST_F(CrashHandlerTest, caller_of_code_without_unwind_table) {
    expect_death(run(call_assembly), SIGILL);
    const auto functions = names(record().stack);
    ASSERT_GE(functions.size(), 2u);
    EXPECT_EQ(functions[0], "assembly_without_table");
    EXPECT_NAME(functions[1], "call_assembly");
    EXPECT_TRUE(contains(functions, "main"));
}

#endif

CRASHER void call_pointer(void (*function)()) {
    void (*volatile wild)() = function;
    wild();
    keep_caller();
}

TEST_F(CrashHandlerTest, caller_of_wild_pointer) {
    for (const std::uintptr_t pointer : {std::uintptr_t{0}, std::uintptr_t{0x5550}}) {
        record().reset();
        expect_death(run([pointer] { call_pointer(reinterpret_cast<void (*)()>(pointer)); }), SIGSEGV);
        EXPECT_EQ(record().stack.frames[0], pointer);
        const auto functions = names(record().stack);
        ASSERT_GE(functions.size(), 3u);
        EXPECT_NAME(functions[1], "call_pointer");
        EXPECT_TRUE(contains(functions, "main"));
    }
}

CRASHER void crash_in_malloc() {
    // A second thread makes malloc take its lock.
    std::thread([] { pause(); }).detach();
    char* volatile block = static_cast<char*>(std::malloc(100000));
    char* const end = block + malloc_usable_size(block);
    // The size of what is left of the heap is behind the last block, and malloc finds it damaged once it needs it.
    for (volatile char* place = end; place < end + 64; ++place) {
        *place = static_cast<char>(0xff);
    }
    for (int i = 0; i < 100; ++i) {
        block = static_cast<char*>(std::malloc(100000));
    }
}

TEST_F(CrashHandlerTest, inside_malloc) {
    if (test::kAsan || test::kTsan) {
        GTEST_SKIP() << "a sanitizer's malloc would have to be broken in another way";
    }
    EXPECT_NE(run(crash_in_malloc), 0);
    EXPECT_EQ(record().written.load(), CrashRecord::kWhole);
    EXPECT_TRUE(contains(names(record().stack), "crash_in_malloc"));
}

// A handler of the program's, installed before ours.
void note_and_exit(int, siginfo_t* info, void* context) {
    shared->seen_address = reinterpret_cast<std::uintptr_t>(info->si_addr);
    shared->seen_code = info->si_code;
    shared->seen_pid = info->si_pid;
#if defined(__x86_64__)
    const auto& machine = static_cast<const ucontext_t*>(context)->uc_mcontext;
    shared->seen_counter = static_cast<std::uintptr_t>(machine.gregs[REG_RIP]);
#elif defined(__aarch64__)
    shared->seen_counter = static_cast<const ucontext_t*>(context)->uc_mcontext.pc;
#endif
    _exit(42);
}

void install_plainly(int signal, void (*handler)(int, siginfo_t*, void*)) {
    struct sigaction action {};
    action.sa_sigaction = handler;
    action.sa_flags = SA_SIGINFO | SA_ONSTACK;
    sigaction(signal, &action, nullptr);
}

TEST_F(CrashHandlerTest, previous_handler_sees_the_same_fault) {
    before_install_ = [] { install_plainly(SIGSEGV, note_and_exit); };
    const int status = run([] { write_to(reinterpret_cast<volatile int*>(0x1230)); });
    ASSERT_TRUE(WIFEXITED(status));
    EXPECT_EQ(WEXITSTATUS(status), 42);
    expect_record(SIGSEGV, SEGV_MAPERR);
    EXPECT_EQ(shared->seen_address, 0x1230u);
    EXPECT_EQ(shared->seen_code, SEGV_MAPERR);
    EXPECT_EQ(shared->seen_counter, record().stack.frames[0]);
}

TEST_F(CrashHandlerTest, previous_handler_sees_the_same_sent_signal) {
    for (const int signal : {SIGABRT, SIGSEGV, SIGTRAP, SIGSYS}) {
        record().reset();
        shared->seen_code = 0;
        before_install_ = [signal] { install_plainly(signal, note_and_exit); };
        const int status = run([signal] { kill(getpid(), signal); });
        ASSERT_TRUE(WIFEXITED(status)) << signal;
        EXPECT_EQ(WEXITSTATUS(status), 42);
        expect_record(signal, SI_USER);
        EXPECT_EQ(shared->seen_code, SI_USER);
        EXPECT_EQ(shared->seen_pid, record().sender);
    }
}

#if defined(__x86_64__)

TEST_F(CrashHandlerTest, previous_handler_runs_even_where_unwinding_faults) {
    if (test::kTsan) {
        GTEST_SKIP() << "it blocks every signal while a handler runs, so that unwinding may not fault";
    }
    before_install_ = [] { install_plainly(SIGSEGV, note_and_exit); };
    const int status = run([] { asm volatile("mov $64, %%rsp\n\tpush %%rax" : : : "memory"); });
    ASSERT_TRUE(WIFEXITED(status));
    EXPECT_EQ(WEXITSTATUS(status), 42);
    EXPECT_EQ(shared->seen_counter, record().stack.frames[0]);
}

#endif

TEST_F(CrashHandlerTest, ignored_signal_stays_ignored) {
    before_install_ = [] { signal(SIGTRAP, SIG_IGN); };
    EXPECT_EQ(run([] {
                  kill(getpid(), SIGTRAP);
                  raise(SIGTRAP);
              }),
              0);
    EXPECT_EQ(record().written.load(), CrashRecord::kNothing);
}

TEST_F(CrashHandlerTest, handler_installed_later_replaces_ours) {
    const int status = run([] {
        install_plainly(SIGSEGV, note_and_exit);
        write_to_null();
    });
    ASSERT_TRUE(WIFEXITED(status));
    EXPECT_EQ(WEXITSTATUS(status), 42);
    EXPECT_EQ(record().written.load(), CrashRecord::kNothing);
}

struct sigaction replaced_action;

TEST_F(CrashHandlerTest, handler_installed_later_may_call_ours) {
    expect_death(run([] {
                     sigaction(SIGILL, nullptr, &replaced_action);
                     install_plainly(SIGILL, [](int signal, siginfo_t* info, void* context) {
                         replaced_action.sa_sigaction(signal, info, context);
                     });
                     execute_nonsense();
                 }),
                 SIGILL);
    EXPECT_EQ(record().written.load(), CrashRecord::kWhole);
    EXPECT_NAME(crashed_in(), "execute_nonsense");
}

TEST_F(CrashHandlerTest, signals_blocked_by_the_parent_are_unblocked) {
    before_install_ = [] {
        sigset_t all;
        sigfillset(&all);
        pthread_sigmask(SIG_BLOCK, &all, nullptr);
    };
    expect_death(run(write_to_null), SIGSEGV);
    expect_record(SIGSEGV, SEGV_MAPERR);
}

TEST_F(CrashHandlerTest, child_of_a_worker_writes_nothing) {
    EXPECT_EQ(run([] {
                  const pid_t grandchild = fork();
                  if (grandchild == 0) {
                      write_to_null();
                  }
                  int status = 0;
                  waitpid(grandchild, &status, 0);
                  _exit(status == 0);
              }),
              0);
    EXPECT_EQ(record().written.load(), CrashRecord::kNothing);
}

TEST_F(CrashHandlerTest, may_be_installed_again) {
    before_install_ = [] {
        static CrashRecord unused;
        install_crash_handler(&unused);
    };
    expect_death(run(write_to_null), SIGSEGV);
    expect_record(SIGSEGV, SEGV_MAPERR);
}

TEST_F(CrashHandlerTest, record_that_can_not_be_written) {
    void* const memory = mmap(nullptr, sizeof(CrashRecord), PROT_READ, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    ASSERT_NE(memory, MAP_FAILED);
    EXPECT_NE(run([memory] {
                  install_crash_handler(static_cast<CrashRecord*>(memory));
                  execute_nonsense();
              }),
              0);
    munmap(memory, sizeof(CrashRecord));
}

CRASHER void spin_until_told() {
    shared->step = 1;
    while (shared->step != 2) {}
    keep_caller();
}

TEST_F(CrashHandlerTest, stack_of_a_running_task) {
    start(spin_until_told);
    ASSERT_TRUE(wait_until([] { return shared->step == 1; }));
    record().stack_requested = 1;
    kill(child_, stack_signal());
    ASSERT_TRUE(wait_until([this] { return record().stack_ready == 1; }));
    EXPECT_TRUE(contains(names(record().stuck_stack), "spin_until_told"));
    shared->step = 2;
    EXPECT_EQ(wait(), 0);
    EXPECT_EQ(record().written.load(), CrashRecord::kNothing);
}

TEST_F(CrashHandlerTest, stack_of_a_task_in_a_system_call) {
    if (test::kTsan) {
        GTEST_SKIP() << "it keeps signals back while a thread is in a system call";
    }
    int ends[2];
    ASSERT_EQ(pipe(ends), 0);
    start([&ends] {
        shared->step = 1;
        char byte = 0;
        // Goes on after the signal: no EINTR.
        _exit(read(ends[0], &byte, 1) == 1 ? 0 : errno);
    });
    ASSERT_TRUE(wait_until([] { return shared->step == 1; }));
    record().stack_requested = 1;
    kill(child_, stack_signal());
    ASSERT_TRUE(wait_until([this] { return record().stack_ready == 1; }));
    EXPECT_TRUE(contains(names(record().stuck_stack), "main"));
    EXPECT_EQ(write(ends[1], "x", 1), 1);
    EXPECT_EQ(wait(), 0);
    close(ends[0]);
    close(ends[1]);
}

TEST_F(CrashHandlerTest, stack_signal_without_request_does_nothing) {
    EXPECT_EQ(run([] {
                  errno = EDOM;
                  raise(stack_signal());
                  kill(getpid(), stack_signal());
                  _exit(errno == EDOM ? 0 : 1);
              }),
              0);
    EXPECT_EQ(record().stack_ready, 0u);
    EXPECT_EQ(record().stuck_stack.size, 0u);
}

TEST_F(CrashHandlerTest, stack_signal_keeps_errno) {
    if (!test::kSignalsArriveAtOnce) GTEST_SKIP() << "the process ends before the signal arrives";
    record().stack_requested = 1;
    EXPECT_EQ(run([] {
                  errno = EDOM;
                  raise(stack_signal());
                  _exit(errno == EDOM ? 0 : 1);
              }),
              0);
    EXPECT_EQ(record().stack_ready, 1u);
}

TEST_F(CrashHandlerTest, DISABLED_sanitizer_reports) {
    int ends[2];
    ASSERT_EQ(pipe(ends), 0);
    start([&ends] {
        dup2(ends[1], STDERR_FILENO);
        close(ends[1]);
        write_to_null();
    });
    close(ends[1]);
    std::string report;
    std::array<char, 4096> part;
    for (ssize_t size = 0; (size = read(ends[0], part.data(), part.size())) > 0;) {
        report.append(part.data(), static_cast<std::size_t>(size));
    }
    close(ends[0]);
    EXPECT_NE(wait(), 0);
    EXPECT_NE(report.find("AddressSanitizer: SEGV"), std::string::npos) << report;
    expect_record(SIGSEGV, SEGV_MAPERR);
}

TEST_F(CrashHandlerTest, sanitizer_still_reports) {
    if (!test::kAsan) {
        GTEST_SKIP() << "only under the address sanitizer";
    }
    // The tests' own default is that it does not handle crashes: this program started again, with its handlers.
    const pid_t child = fork();
    if (child == 0) {
        setenv("ASAN_OPTIONS", "handle_segv=1", 1);
        execl("/proc/self/exe", "crash_handler", "--gtest_filter=CrashHandlerTest.DISABLED_sanitizer_reports",
              "--gtest_also_run_disabled_tests", nullptr);
        _exit(127);
    }
    int status = -1;
    ASSERT_EQ(waitpid(child, &status, 0), child);
    EXPECT_EQ(status, 0);
}

}    // namespace
