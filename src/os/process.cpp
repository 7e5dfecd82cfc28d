#include "os/process.hpp"

#include "os/clock.hpp"
#include "os/fault.hpp"

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <dirent.h>
#include <fcntl.h>
#include <fstream>
#include <iostream>
#include <limits>
#include <poll.h>
#include <sched.h>
#include <sstream>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <system_error>
#include <unistd.h>

namespace multihull::os {

void flush_standard_streams() noexcept {
    try {
        std::cout.flush();
        std::cerr.flush();
        std::clog.flush();
    } catch (...) {
        // A stream that throws on failure has nothing more to say here: what could be written has been.
    }
    std::fflush(stdout);
    std::fflush(stderr);
}

pid_t fork_process() noexcept {
    flush_standard_streams();
    return checked(Call::fork, [] { return ::fork(); });
}

Fd open_pidfd(pid_t pid) {
    Fd fd(checked(Call::pidfd_open, [&] { return static_cast<int>(::syscall(SYS_pidfd_open, pid, 0)); }));
    if (!fd) throw_errno("pidfd_open");
    return fd;
}

bool is_running(pid_t id) noexcept {
    if (::kill(id, 0) != 0 && errno == ESRCH) return false;
    const Fd fd(static_cast<int>(::syscall(SYS_pidfd_open, id, 0)));
    if (!fd) return errno != ESRCH;    // a thread that is not its process's first has no pidfd
    pollfd entry{fd.get(), POLLIN, 0};
    return ::poll(&entry, 1, 0) == 0;
}

bool signal_process(const Fd& pidfd, int signal) noexcept {
    return pidfd && ::syscall(SYS_pidfd_send_signal, pidfd.get(), signal, nullptr, 0) == 0;
}

namespace {

std::optional<ExitStatus> reap_child(idtype_t kind, id_t id, int flags) noexcept {
    siginfo_t info{};
    int result = 0;
    do result = ::waitid(kind, id, &info, WEXITED | flags);
    while (result != 0 && errno == EINTR);
    if (result != 0 || info.si_pid == 0) return std::nullopt;
    return ExitStatus{info.si_pid, info.si_code == CLD_EXITED ? info.si_status : -info.si_status};
}

}    // namespace

std::optional<ExitStatus> reap(const Fd& pidfd, bool block) noexcept {
    return reap_child(P_PIDFD, static_cast<id_t>(pidfd.get()), block ? 0 : WNOHANG);
}

std::optional<ExitStatus> reap_any() noexcept { return reap_child(P_ALL, 0, WNOHANG); }

bool die_with_parent(pid_t parent) noexcept {
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    return ::getppid() == parent;    // it may have died before the request was made
}

void become_subreaper() noexcept { ::prctl(PR_SET_CHILD_SUBREAPER, 1); }

std::size_t list_children(std::span<pid_t> out) noexcept {
    char path[64];
    std::snprintf(path, sizeof path, "/proc/self/task/%d/children", static_cast<int>(::getpid()));
    const Fd fd(::open(path, O_RDONLY | O_CLOEXEC));
    if (!fd) return 0;
    char buffer[4096];
    std::size_t count = 0;
    pid_t number = 0;
    bool digits = false;
    for (;;) {
        const ssize_t n = ::read(fd.get(), buffer, sizeof buffer);
        if (n <= 0) break;
        for (ssize_t i = 0; i < n; ++i) {
            if (buffer[i] >= '0' && buffer[i] <= '9') {
                number = number * 10 + (buffer[i] - '0');
                digits = true;
            } else if (digits) {
                if (count < out.size()) out[count++] = number;
                number = 0;
                digits = false;
            }
        }
    }
    if (digits && count < out.size()) out[count++] = number;
    return count;
}

void set_process_name(const char* name) noexcept { ::prctl(PR_SET_NAME, name); }

void limit_private_memory(std::size_t base, std::size_t bytes) {
    rlimit limit{};
    ::getrlimit(RLIMIT_DATA, &limit);
    const rlim_t wanted = bytes > RLIM_INFINITY - 1 - base ? RLIM_INFINITY - 1 : static_cast<rlim_t>(base + bytes);
    limit.rlim_cur = std::min(wanted, limit.rlim_max);
    if (checked(Call::setrlimit, [&] { return ::setrlimit(RLIMIT_DATA, &limit); }) != 0) throw_errno("setrlimit");
}

void unlimit_private_memory() noexcept {
    rlimit limit{};
    ::getrlimit(RLIMIT_DATA, &limit);
    limit.rlim_cur = limit.rlim_max;
    ::setrlimit(RLIMIT_DATA, &limit);
}

namespace {

// One number of /proc/self/status, in the file's own unit.
std::optional<std::size_t> status_number(const char* key) noexcept {
    const Fd fd(::open("/proc/self/status", O_RDONLY | O_CLOEXEC));
    if (!fd) return std::nullopt;
    char buffer[8192];
    const ssize_t n = ::read(fd.get(), buffer, sizeof buffer - 1);
    if (n <= 0) return std::nullopt;
    buffer[n] = '\0';
    const char* line = std::strstr(buffer, key);
    if (line == nullptr) return std::nullopt;
    return std::strtoull(line + std::strlen(key), nullptr, 10);
}

std::optional<double> read_quota(const std::string& folder) {
    std::ifstream unified(folder + "/cpu.max");
    std::string quota;
    double period = 0;
    if (unified >> quota >> period) {
        if (quota == "max" || period <= 0) return std::nullopt;
        return std::strtod(quota.c_str(), nullptr) / period;
    }
    std::ifstream quota_file(folder + "/cpu.cfs_quota_us");
    std::ifstream period_file(folder + "/cpu.cfs_period_us");
    double us = 0;
    if (quota_file >> us && period_file >> period && us > 0 && period > 0) return us / period;
    return std::nullopt;
}

// The tightest quota of this process's cgroups and all above them, versions 1 and 2.
std::optional<double> cgroup_cpus() {
    std::optional<double> tightest;
    std::ifstream groups("/proc/self/cgroup");
    for (std::string line; std::getline(groups, line);) {
        const auto first = line.find(':');
        const auto second = line.find(':', first + 1);
        if (first == std::string::npos || second == std::string::npos) continue;
        const std::string controllers = line.substr(first + 1, second - first - 1);
        std::string root;
        if (controllers.empty()) {
            root = "/sys/fs/cgroup";
        } else {
            std::istringstream list(controllers);
            for (std::string controller; std::getline(list, controller, ',');) {
                if (controller == "cpu") root = "/sys/fs/cgroup/" + controllers;
            }
            if (root.empty()) continue;
        }
        for (std::string path = line.substr(second + 1);;) {
            if (const auto cpus = read_quota(root + (path == "/" ? "" : path))) {
                tightest = std::min(tightest.value_or(*cpus), *cpus);
            }
            if (path.empty() || path == "/") break;
            path.resize(path.rfind('/'));
        }
    }
    return tightest;
}

}    // namespace

std::size_t private_memory() noexcept { return status_number("VmData:").value_or(0) * 1024; }

std::size_t thread_count() noexcept {
    // A folder for each thread is what makes the links of the folder above them, and that is cheaper to ask for than a text.
    struct stat folder {};
    return ::stat("/proc/self/task", &folder) == 0 && folder.st_nlink > 2 ? folder.st_nlink - 2 : 1;
}

std::size_t usable_cpus() noexcept {
    std::size_t cpus = 1;
    // The kernel may know more processors than cpu_set_t has bits; grow until the call fits.
    for (int bits = CPU_SETSIZE; bits <= 1 << 20; bits *= 2) {
        cpu_set_t* set = CPU_ALLOC(static_cast<std::size_t>(bits));
        if (set == nullptr) break;
        const std::size_t size = CPU_ALLOC_SIZE(static_cast<std::size_t>(bits));
        const int result = ::sched_getaffinity(0, size, set);
        if (result == 0) cpus = static_cast<std::size_t>(CPU_COUNT_S(size, set));
        CPU_FREE(set);
        if (result == 0 || errno != EINVAL) break;
    }
    try {
        if (const auto quota = cgroup_cpus()) {
            cpus = std::min(cpus, static_cast<std::size_t>(std::max(1.0, *quota + 0.999)));
        }
    } catch (const std::exception&) {
        // An unreadable cgroup tree limits nothing.
    }
    return std::max<std::size_t>(cpus, 1);
}

std::string errno_text(int error) { return std::generic_category().message(error); }

}    // namespace multihull::os
