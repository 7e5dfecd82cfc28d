#include "bare_process.hpp"

#include "harness.hpp"

#include <linux/futex.h>
#include <spawn.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <climits>
#include <csignal>
#include <cstdio>
#include <vector>

extern char** environ;

namespace bench {

namespace {

void relax() {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    asm volatile("yield");
#endif
}

pid_t checked_fork() {
    const pid_t child = ::fork();
    require(child >= 0, "fork() failed");
    return child;
}

}    // namespace

void fork_and_wait() {
    const pid_t child = checked_fork();
    if (child == 0) ::_exit(0);
    ::waitpid(child, nullptr, 0);
}

void spawn_and_wait() {
    char name[] = "compare";
    std::vector<char> option(kLeaveAtOnce, kLeaveAtOnce + std::char_traits<char>::length(kLeaveAtOnce) + 1);
    char* const arguments[] = {name, option.data(), nullptr};
    pid_t child = 0;
    require(::posix_spawn(&child, "/proc/self/exe", nullptr, nullptr, arguments, environ) == 0, "posix_spawn() failed");
    ::waitpid(child, nullptr, 0);
}

void fork_and_wait(int count) {
    std::vector<pid_t> children;
    for (int i = 0; i < count; ++i) {
        const pid_t child = checked_fork();
        if (child == 0) ::_exit(0);
        children.push_back(child);
    }
    for (const pid_t child : children) ::waitpid(child, nullptr, 0);
}

BareEcho::BareEcho(bool awake) : awake_(awake) {
    void* const page = ::mmap(nullptr, sizeof(Words), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    require(page != MAP_FAILED, "mmap() failed");
    words_ = new (page) Words{};
    child_ = checked_fork();
    if (child_ != 0) return;
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    for (std::uint32_t seen = 0;;) {
        wait_change(words_->request, seen);
        seen = words_->request.load(std::memory_order_acquire);
        put(words_->answer, seen + 1);
    }
}

BareEcho::~BareEcho() {
    ::kill(child_, SIGKILL);
    ::waitpid(child_, nullptr, 0);
    ::munmap(words_, sizeof(Words));
}

std::uint32_t BareEcho::add_one(std::uint32_t value) {
    const std::uint32_t before = words_->answer.load(std::memory_order_relaxed);
    put(words_->request, value);
    wait_change(words_->answer, before);
    return words_->answer.load(std::memory_order_acquire);
}

void BareEcho::wait_change(std::atomic<std::uint32_t>& word, std::uint32_t before) const {
    while (word.load(std::memory_order_acquire) == before) {
        if (awake_) {
            relax();
        } else {
            ::syscall(SYS_futex, &word, FUTEX_WAIT, before, nullptr, nullptr, 0);
        }
    }
}

void BareEcho::put(std::atomic<std::uint32_t>& word, std::uint32_t value) const {
    word.store(value, std::memory_order_release);
    if (!awake_) ::syscall(SYS_futex, &word, FUTEX_WAKE, INT_MAX, nullptr, nullptr, 0);
}

void crash_and_start_anew() {
    const pid_t first = checked_fork();
    if (first == 0) {
        ::raise(SIGSEGV);
        ::_exit(1);
    }
    ::waitpid(first, nullptr, 0);
    int ends[2];
    require(::pipe(ends) == 0, "pipe() failed");
    const pid_t second = checked_fork();
    char answer = 'a';
    if (second == 0) ::_exit(::write(ends[1], &answer, 1) == 1 ? 0 : 1);
    require(::read(ends[0], &answer, 1) == 1, "read() failed");
    ::waitpid(second, nullptr, 0);
    ::close(ends[0]);
    ::close(ends[1]);
}

}    // namespace bench
