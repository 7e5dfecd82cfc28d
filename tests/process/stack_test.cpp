// Stacks and their names.
#include <multihull/stack.hpp>

#include "process/backtrace.hpp"
#include "process/symbolize.hpp"

#include <gtest/gtest.h>

#include <arpa/inet.h>
#include <dlfcn.h>
#include <netinet/in.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <string>
#include <thread>
#include <vector>

namespace {

using multihull::Frame;
using multihull::Stack;
using multihull::detail::RawStack;

constexpr int kCaptureLine = __LINE__ + 4;

__attribute__((noinline)) Stack capture_here() {
    RawStack raw{};
    multihull::detail::capture(raw, 0);
    return Stack(copy_frames(raw));
}

__attribute__((always_inline)) inline Stack capture_inlined() {
    RawStack raw{};
    multihull::detail::capture(raw, 0);
    return Stack(copy_frames(raw));
}

__attribute__((noinline)) Stack calls_inlined() {
    Stack stack = capture_inlined();
    asm volatile("" ::: "memory");
    return stack;
}

__attribute__((noinline)) Stack skip_one() {
    RawStack raw{};
    multihull::detail::capture(raw, 1);
    asm volatile("" ::: "memory");
    return Stack(copy_frames(raw));
}

__attribute__((noinline)) Stack calls_skip_one() {
    Stack stack = skip_one();
    asm volatile("" ::: "memory");
    return stack;
}

bool has(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

TEST(StackTest, empty) {
    const Stack stack;
    EXPECT_TRUE(stack.empty());
    EXPECT_TRUE(stack.addresses().empty());
    EXPECT_TRUE(stack.frames().empty());
    EXPECT_EQ(stack.to_string(), "");
    EXPECT_TRUE(Stack(std::span<const std::uintptr_t>{}).empty());
}

TEST(StackTest, names_functions_files_and_lines) {
    const Stack stack = capture_here();
    ASSERT_FALSE(stack.empty());
    const Frame& frame = stack.frames().front();
    EXPECT_TRUE(has(frame.function, "capture_here")) << frame.function;
    EXPECT_EQ(frame.address, stack.addresses().front());
    EXPECT_NE(frame.module_offset, 0u);
    EXPECT_FALSE(frame.module.empty());
    if (frame.line == 0) {
        GTEST_SKIP() << "built without debug information";
    }
    EXPECT_TRUE(has(frame.file, "stack_test.cpp")) << frame.file;
    EXPECT_EQ(frame.line, kCaptureLine);
    const std::string text = stack.to_string();
    EXPECT_EQ(text.rfind("#0 ", 0), 0u) << text;
    EXPECT_TRUE(has(text, " at stack_test.cpp:" + std::to_string(kCaptureLine) + "\n#1 ")) << text;
}

TEST(StackTest, inlined_functions_have_frames) {
    const Stack stack = calls_inlined();
    const std::vector<Frame>& frames = stack.frames();
    ASSERT_GE(frames.size(), 2u);
    if (frames[0].line == 0) {
        GTEST_SKIP() << "built without debug information";
    }
    EXPECT_TRUE(has(frames[0].function, "capture_inlined")) << stack.to_string();
    EXPECT_TRUE(has(frames[1].function, "calls_inlined")) << stack.to_string();
    EXPECT_EQ(frames[0].address, frames[1].address);
    EXPECT_GT(frames[1].line, frames[0].line);
}

TEST(StackTest, skips) {
    const Stack stack = calls_skip_one();
    EXPECT_TRUE(has(stack.frames().front().function, "calls_skip_one")) << stack.to_string();
}

TEST(StackTest, copies_share_what_was_looked_up) {
    const Stack stack = capture_here();
    const std::vector<Stack> copies(2, stack);
    EXPECT_EQ(&stack.frames(), &copies[0].frames());
    EXPECT_EQ(&stack.frames(), &copies[1].frames());
}

TEST(StackTest, address_of_nothing) {
    const std::uintptr_t addresses[] = {0, 0x10, ~std::uintptr_t{0}};
    const Stack stack(addresses);
    ASSERT_EQ(stack.frames().size(), 3u);
    EXPECT_EQ(stack.to_string(), "#0 0x0\n#1 0x10\n#2 0xffffffffffffffff\n");
}

TEST(StackTest, address_in_a_file_without_a_symbol) {
    // The header of the program's file.
    Dl_info info{};
    ASSERT_NE(dladdr(reinterpret_cast<void*>(&capture_here), &info), 0);
    const std::uintptr_t addresses[] = {reinterpret_cast<std::uintptr_t>(info.dli_fbase) + 8};
    const Stack stack(addresses);
    const Frame& frame = stack.frames().at(0);
    EXPECT_EQ(frame.function, "");
    const std::string name = frame.module.substr(frame.module.rfind('/') + 1);
    EXPECT_EQ(stack.to_string().rfind("#0 " + name + "+0x", 0), 0u) << stack.to_string();
}

TEST(StackTest, address_in_a_shared_library) {
    const std::uintptr_t addresses[] = {reinterpret_cast<std::uintptr_t>(dlsym(RTLD_DEFAULT, "getppid")) + 1};
    const Stack stack(addresses);
    EXPECT_TRUE(has(stack.to_string(), "getppid")) << stack.to_string();
    EXPECT_TRUE(has(stack.frames().at(0).module, "libc.so")) << stack.to_string();
}

TEST(StackTest, library_loaded_later) {
    static_cast<void>(capture_here().frames());
    void* const library = dlopen("libresolv.so.2", RTLD_NOW | RTLD_LOCAL);
    if (library == nullptr) {
        GTEST_SKIP() << dlerror();
    }
    const std::uintptr_t addresses[] = {reinterpret_cast<std::uintptr_t>(dlsym(library, "ns_initparse")) + 1};
    EXPECT_TRUE(has(Stack(addresses).to_string(), "ns_initparse")) << Stack(addresses).to_string();
    dlclose(library);
}

TEST(StackTest, looked_up_by_many_threads) {
    const Stack shared = capture_here();
    std::vector<std::thread> threads;
    threads.reserve(8);
    for (int i = 0; i < 8; ++i) {
        threads.emplace_back([&shared] {
            EXPECT_TRUE(has(shared.frames().front().function, "capture_here"));
            EXPECT_TRUE(has(capture_here().frames().front().function, "capture_here"));
        });
    }
    for (std::thread& thread : threads) {
        thread.join();
    }
}

TEST(StackTest, looked_up_in_a_forked_child) {
    static_cast<void>(capture_here().frames());
    const pid_t child = fork();
    if (child == 0) {
        _exit(has(capture_here().frames().front().function, "capture_here") ? 0 : 1);
    }
    int status = -1;
    EXPECT_EQ(waitpid(child, &status, 0), child);
    EXPECT_EQ(status, 0);
}

TEST(StackTest, asks_no_server) {
    const int server = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof address;
    ASSERT_EQ(bind(server, reinterpret_cast<sockaddr*>(&address), size), 0);
    ASSERT_EQ(listen(server, 1), 0);
    ASSERT_EQ(getsockname(server, reinterpret_cast<sockaddr*>(&address), &size), 0);
    const pid_t child = fork();
    if (child == 0) {
        const std::string url = "http://127.0.0.1:" + std::to_string(ntohs(address.sin_port)) + "/";
        setenv("DEBUGINFOD_URLS", url.c_str(), 1);
        setenv("DEBUGINFOD_TIMEOUT", "1", 1);
        // Of several libraries, because debug information of some may be installed.
        std::vector<std::uintptr_t> addresses;
        for (const char* const name : {"getppid", "_Unwind_Backtrace", "__cxa_throw", "dwfl_begin", "elf_begin"}) {
            if (void* const function = dlsym(RTLD_DEFAULT, name)) {
                addresses.push_back(reinterpret_cast<std::uintptr_t>(function) + 1);
            }
        }
        _exit(has(Stack(addresses).to_string(), "getppid") ? 0 : 1);
    }
    int status = -1;
    EXPECT_EQ(waitpid(child, &status, 0), child);
    EXPECT_EQ(status, 0);
    EXPECT_LT(accept(server, nullptr, nullptr), 0);
    EXPECT_EQ(errno, EAGAIN);
    close(server);
}

TEST(StackTest, size_written_by_a_stranger_is_checked) {
    RawStack raw{};
    raw.size = 0xffffffff;
    EXPECT_EQ(copy_frames(raw).size(), RawStack::kFrames);
}

}    // namespace
