// The stacks of exceptions: that they are those of the throw expressions.
#include "process/throw_trace.hpp"

#include "process/crash_handler.hpp"
#include "process/symbolize.hpp"

#include <gtest/gtest.h>

#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <exception>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

namespace {

using multihull::detail::call_with_throw_trace;
using multihull::detail::clear_throw_stack;
using multihull::detail::last_throw_stack;

std::vector<std::string> names_of(std::span<const std::uint64_t> stack) {
    std::vector<std::string> names;
    for (const multihull::Frame& frame :
         multihull::detail::symbolize(std::vector<std::uintptr_t>(stack.begin(), stack.end()))) {
        names.push_back(frame.function);
    }
    return names;
}

std::vector<std::string> trace_names() { return names_of(last_throw_stack()); }

bool contains(const std::vector<std::string>& names, const std::string& part) {
    return std::any_of(names.begin(), names.end(),
                       [&](const std::string& name) { return name.find(part) != std::string::npos; });
}

void keep_caller() { asm volatile("" ::: "memory"); }

__attribute__((noinline)) void thrower(void*) { throw std::runtime_error("thrown"); }

__attribute__((noinline)) void calls_thrower(void* context) {
    thrower(context);
    keep_caller();
}

__attribute__((noinline)) void rethrower(void* context) {
    try {
        thrower(context);
    } catch (...) {
        throw;
    }
}

__attribute__((noinline)) void pointer_thrower(void*) {
    std::rethrow_exception(std::make_exception_ptr(std::runtime_error("kept")));
}

void expect_trace(void (*function)(void*), const std::string& innermost) {
    clear_throw_stack();
    EXPECT_ANY_THROW(call_with_throw_trace(function, nullptr));
    const auto names = trace_names();
    ASSERT_FALSE(names.empty());
    EXPECT_NE(names.front().find(innermost), std::string::npos) << names.front();
}

TEST(ThrowTraceTest, begins_at_the_throw_expression) {
    expect_trace(calls_thrower, "thrower");
    const auto names = trace_names();
    ASSERT_GE(names.size(), 3u);
    EXPECT_NE(names[1].find("calls_thrower"), std::string::npos) << names[1];
    EXPECT_TRUE(contains(names, "main"));
}

TEST(ThrowTraceTest, thrown_again) {
    expect_trace(rethrower, "rethrower");
    expect_trace(pointer_thrower, "pointer_thrower");
}

__attribute__((noinline)) void asks_beyond_the_end(void*) {
    const std::vector<int> numbers(3);
    volatile std::size_t index = 7;
    EXPECT_EQ(numbers.at(index), 0);
}

TEST(ThrowTraceTest, thrown_by_the_standard_library) {
    clear_throw_stack();
    EXPECT_THROW(call_with_throw_trace(asks_beyond_the_end, nullptr), std::out_of_range);
    EXPECT_TRUE(contains(trace_names(), "asks_beyond_the_end"));
}

void catches_its_own(void*) {
    try {
        thrower(nullptr);
    } catch (const std::exception&) {}
}

TEST(ThrowTraceTest, caught_inside_leaves_no_trace) {
    clear_throw_stack();
    call_with_throw_trace(catches_its_own, nullptr);
    EXPECT_TRUE(last_throw_stack().empty());
}

TEST(ThrowTraceTest, cleared) {
    expect_trace(thrower, "thrower");
    clear_throw_stack();
    EXPECT_TRUE(last_throw_stack().empty());
}

TEST(ThrowTraceTest, context_arrives) {
    int number = 0;
    call_with_throw_trace([](void* context) { *static_cast<int*>(context) = 7; }, &number);
    EXPECT_EQ(number, 7);
}

int destroyed = 0;

struct CountsDestruction {
    ~CountsDestruction() { ++destroyed; }
};

void unwinds(void*) {
    const CountsDestruction first;
    const CountsDestruction second;
    thrower(nullptr);
}

TEST(ThrowTraceTest, unwinding_is_as_ever) {
    destroyed = 0;
    try {
        call_with_throw_trace(unwinds, nullptr);
        FAIL();
    } catch (const std::runtime_error& error) {
        EXPECT_STREQ(error.what(), "thrown");
    }
    EXPECT_EQ(destroyed, 2);
    EXPECT_EQ(std::uncaught_exceptions(), 0);
}

TEST(ThrowTraceTest, nested) {
    expect_trace([](void*) { call_with_throw_trace(calls_thrower, nullptr); }, "thrower");
}

TEST(ThrowTraceTest, of_each_thread) {
    expect_trace(thrower, "thrower");
    std::thread([] {
        EXPECT_TRUE(last_throw_stack().empty());
        expect_trace(rethrower, "rethrower");
    }).join();
    EXPECT_NE(trace_names().front().find("thrower"), std::string::npos);
    EXPECT_FALSE(contains(trace_names(), "rethrower"));
}

TEST(ThrowTraceTest, end_of_a_thread_is_no_exception) {
    std::thread([] { call_with_throw_trace([](void*) { pthread_exit(nullptr); }, nullptr); }).join();
}

__attribute__((noinline)) void throws_deeply(int depth) {
    if (depth == 0) {
        thrower(nullptr);
    }
    if (depth > 0) {
        throws_deeply(depth - 1);
    }
    keep_caller();
}

TEST(ThrowTraceTest, deep_stack_keeps_its_innermost_part) {
    expect_trace([](void*) { throws_deeply(500); }, "thrower");
    EXPECT_EQ(last_throw_stack().size(), multihull::detail::RawStack::kFrames);
}

TEST(ThrowTraceTest, many_times) {
    for (int i = 0; i < 10000; ++i) {
        try {
            call_with_throw_trace(thrower, nullptr);
        } catch (const std::runtime_error&) {}
    }
    EXPECT_NE(trace_names().front().find("thrower"), std::string::npos);
}

#if defined(__x86_64__)

// No exception can pass it: it has no unwind table.
extern "C" void call_without_table(void (*function)(void*));
asm(R"(
    .pushsection .text
    .type call_without_table, @function
call_without_table:
    subq $8, %rsp
    movq %rdi, %rax
    call *%rax
    addq $8, %rsp
    ret
    .size call_without_table, . - call_without_table
    .popsection
)");

TEST(ThrowTraceTest, exception_that_can_not_pass_is_a_crash_with_a_stack) {
    using multihull::detail::CrashRecord;
    auto* const record = static_cast<CrashRecord*>(mmap(nullptr, sizeof(CrashRecord), PROT_READ | PROT_WRITE,
                                                        MAP_SHARED | MAP_ANONYMOUS, -1, 0));
    ASSERT_NE(static_cast<void*>(record), MAP_FAILED);
    const pid_t child = fork();
    if (child == 0) {
        const rlimit no_core{0, 0};
        setrlimit(RLIMIT_CORE, &no_core);
        multihull::detail::install_crash_handler(record);
        call_with_throw_trace([](void*) { call_without_table(thrower); }, nullptr);
        _exit(0);
    }
    int status = 0;
    waitpid(child, &status, 0);
    ASSERT_TRUE(WIFSIGNALED(status));
    EXPECT_EQ(WTERMSIG(status), SIGABRT);
    EXPECT_EQ(record->written.load(), CrashRecord::kWhole);
    const auto names = names_of(std::span(record->stack.frames, record->stack.size));
    EXPECT_TRUE(contains(names, "thrower"));
    EXPECT_TRUE(contains(names, "main"));
    munmap(record, sizeof(CrashRecord));
}

#endif

}    // namespace
