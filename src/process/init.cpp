#include "process/self.hpp"
#include "process/spawn.hpp"
#include "process/zygote.hpp"

#include "os/fault.hpp"
#include "os/process.hpp"
#include "shm/region.hpp"

#include <multihull/error.hpp>
#include <multihull/process.hpp>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <fcntl.h>
#include <spawn.h>
#include <string>
#include <system_error>
#include <unistd.h>
#include <vector>

extern char** environ;

namespace multihull {

namespace {

// The descriptors a spawned process starts with, as "socket region parent" (numbers).
constexpr const char* kChildVariable = "MULTIHULL_SPAWNED";

struct Program {
    std::atomic<bool> initialized{false};
    std::atomic<StartMethod> method{StartMethod::fork};
    std::vector<std::string> arguments;    // both written once by init(), before `initialized`
    sigset_t signal_mask{};
};

Program& program() {
    static auto* const instance = new Program;
    return *instance;
}

void serve_if_spawned() {
    const char* description = std::getenv(kChildVariable);
    if (description == nullptr) return;
    int socket = -1;
    int region = -1;
    int parent = -1;
    const int found = std::sscanf(description, "%d %d %d", &socket, &region, &parent);
    ::unsetenv(kChildVariable);
    if (found != 3) return;
    for (const int fd : {socket, region, parent}) ::fcntl(fd, F_SETFD, FD_CLOEXEC);
    detail::watch_forks();
    shm::Region::attach(os::Fd(region));
    detail::run_zygote(os::Fd(socket), os::Fd(parent));
}

}    // namespace

void init(int argc, char** argv) {
    serve_if_spawned();
    Program& self = program();
    if (self.initialized.load()) return;
    for (int i = 0; i < argc; ++i) self.arguments.emplace_back(argv[i]);
    if (self.arguments.empty()) self.arguments.emplace_back("multihull");
    ::pthread_sigmask(SIG_SETMASK, nullptr, &self.signal_mask);
    detail::warn_if_threaded("multihull::init(), called late,");
    detail::Zygote::start_forkserver();
    self.initialized.store(true);
    self.method.store(StartMethod::forkserver);
}

StartMethod default_start_method() noexcept {
    const StartMethod method = program().method.load();
    // A forked child has no forkserver of its own; what it starts are copies of itself.
    if (method == StartMethod::forkserver && !detail::Zygote::has_forkserver()) return StartMethod::fork;
    return method;
}

void set_start_method(StartMethod method) {
    if (method != StartMethod::fork && !program().initialized.load()) {
        throw StartError(
            "the start methods forkserver and spawn need multihull::init(argc, argv) as main's first line; it was not "
            "called");
    }
    program().method.store(method);
}

namespace detail {

SpawnedZygote spawn_zygote() {
    if (!program().initialized.load()) {
        throw StartError(
            "the start method spawn needs multihull::init(argc, argv) as main's first line; it was not called");
    }
    watch_forks();
    const shm::Region& region = shm::Region::instance();
    os::FdPair sockets = os::make_socket_pair();
    const os::Fd parent = os::open_pidfd(::getpid());

    const std::string variable = std::string(kChildVariable) + "=" + std::to_string(sockets.second.get()) + " " +
                                 std::to_string(region.fd()) + " " + std::to_string(parent.get());
    std::vector<char*> environment;
    for (char** entry = environ; *entry != nullptr; ++entry) environment.push_back(*entry);
    environment.push_back(const_cast<char*>(variable.c_str()));
    environment.push_back(nullptr);
    std::vector<char*> arguments;
    for (const auto& argument : program().arguments) arguments.push_back(const_cast<char*>(argument.c_str()));
    arguments.push_back(nullptr);

    posix_spawn_file_actions_t actions;
    ::posix_spawn_file_actions_init(&actions);
    // dup2 of a descriptor onto itself clears close-on-exec in the child alone.
    for (const int fd : {sockets.second.get(), region.fd(), parent.get()})
        ::posix_spawn_file_actions_adddup2(&actions, fd, fd);
    // The caller may be a thread that blocks signals for its own reasons; the new program starts as init() found it.
    posix_spawnattr_t attributes;
    ::posix_spawnattr_init(&attributes);
    ::posix_spawnattr_setsigmask(&attributes, &program().signal_mask);
    ::posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK);
    os::flush_standard_streams();
    pid_t pid = 0;
    int error = 0;
    if (os::fails(os::Call::exec)) {
        error = errno;
    } else {
        error = ::posix_spawn(&pid, "/proc/self/exe", &actions, &attributes, arguments.data(), environment.data());
    }
    ::posix_spawn_file_actions_destroy(&actions);
    ::posix_spawnattr_destroy(&attributes);
    if (error != 0) throw std::system_error(error, std::generic_category(), "posix_spawn of this program");
    return {pid, std::move(sockets.first)};
}

}    // namespace detail

}    // namespace multihull
