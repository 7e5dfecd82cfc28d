#include <multihull/monitor.hpp>

#include "os/clock.hpp"
#include "os/message.hpp"
#include "os/poll.hpp"
#include "os/process.hpp"
#include "os/unix_socket.hpp"
#include "pool/monitor_wire.hpp"
#include "process/symbolize.hpp"

#include <multihull/error.hpp>
#include <multihull/stack.hpp>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cxxabi.h>
#include <fstream>
#include <map>
#include <span>
#include <sys/stat.h>
#include <unistd.h>
#include <utility>

namespace multihull {

namespace {

constexpr std::uint64_t kMostBytes = std::uint64_t{256} << 20;

std::string demangled(const std::string& type) {
    int status = 0;
    const std::unique_ptr<char, void (*)(void*)> text(abi::__cxa_demangle(type.c_str(), nullptr, nullptr, &status),
                                                      std::free);
    return status == 0 && text ? text.get() : type;
}

std::string read_line(const std::string& path) {
    std::ifstream file(path);
    std::string line;
    std::getline(file, line);
    return line;
}

// Private memory: what is resident and not shared.
std::size_t memory_of(int pid) {
    if (pid <= 0) return 0;
    std::ifstream file("/proc/" + std::to_string(pid) + "/statm");
    std::size_t size = 0;
    std::size_t resident = 0;
    std::size_t shared = 0;
    file >> size >> resident >> shared;
    static const auto page = static_cast<std::size_t>(::sysconf(_SC_PAGESIZE));
    return resident > shared ? (resident - shared) * page : 0;
}

// The process in `PREFIX UID/PID/NONCE`, where that is this user's.
std::optional<pid_t> pid_in(const std::string& name) {
    const char* at = name.data() + detail::kMonitorPrefix.size();
    const char* const end = name.data() + name.size();
    uid_t uid = 0;
    const auto user = std::from_chars(at, end, uid);
    if (user.ec != std::errc{} || user.ptr == end || *user.ptr != '/' || uid != ::geteuid()) return std::nullopt;
    pid_t pid = 0;
    const auto process = std::from_chars(user.ptr + 1, end, pid);
    if (process.ec != std::errc{} || process.ptr == end || *process.ptr != '/') return std::nullopt;
    return pid;
}

}    // namespace

struct PoolWatcher::State {
    // Of one program. A number may be given to another program later, which began at another time.
    struct Symbols {
        std::string began;
        detail::RemoteSymbols remote;
        std::map<std::uint64_t, std::vector<Frame>> frames{};
    };
    std::map<pid_t, Symbols> known;

    Symbols& symbols(pid_t pid) {
        // Field 22 of stat, behind the name in brackets, which may hold anything.
        std::string stat = read_line("/proc/" + std::to_string(pid) + "/stat");
        stat.erase(0, stat.rfind(')') + 1);
        for (int field = 3; field <= 22; ++field) stat.erase(0, stat.find_first_not_of(' ', stat.find(' ')));
        std::string began = stat.substr(0, stat.find(' '));
        const auto entry = known.find(pid);
        if (entry != known.end() && entry->second.began == began) return entry->second;
        return known.insert_or_assign(pid, Symbols{std::move(began), detail::RemoteSymbols(pid)}).first->second;
    }

    static const std::vector<Frame>& frames(Symbols& symbols, std::uint64_t address) {
        const auto entry = symbols.frames.find(address);
        if (entry != symbols.frames.end()) return entry->second;
        const auto place = static_cast<std::uintptr_t>(address);
        return symbols.frames[address] = symbols.remote.frames(std::span(&place, 1));
    }

    static std::string name(Symbols& symbols, const detail::FunctionOnWire& function) {
        if (function.address != 0) {
            const auto& found = frames(symbols, function.address);
            if (!found.empty() && !found.back().function.empty()) return found.back().function;
        }
        return function.type.empty() ? "(unknown)" : demangled(function.type);
    }

    static std::string text(Symbols& symbols, const std::vector<std::uint64_t>& stack) {
        std::string lines;
        int number = 0;
        for (const std::uint64_t address : stack) {
            for (const Frame& frame : frames(symbols, address)) {
                lines += '#' + std::to_string(number++) + ' ';
                lines += frame.function.empty() ? "??" : frame.function;
                if (!frame.file.empty()) {
                    lines += " at " + frame.file.substr(frame.file.rfind('/') + 1) + ':' + std::to_string(frame.line);
                } else if (!frame.module.empty()) {
                    lines += " in " + frame.module.substr(frame.module.rfind('/') + 1);
                }
                lines += '\n';
            }
        }
        return lines;
    }

    PublishedPool published(pid_t pid, detail::PoolOnWire&& pool) {
        Symbols& names = symbols(pid);
        PublishedPool result{.stats = std::move(pool.stats)};
        for (std::size_t i = 0; i < result.stats.workers.size(); ++i) {
            WorkerStats& worker = result.stats.workers[i];
            if (i < pool.functions.size() && pool.functions[i]) worker.task = name(names, *pool.functions[i]);
            result.memory.push_back(memory_of(worker.pid));
        }
        for (detail::FailureOnWire& failure : pool.failures) {
            result.failures.push_back({.age = failure.age,
                                       .worker = failure.worker,
                                       .pid = failure.pid,
                                       .outcome = failure.outcome,
                                       .function = failure.function ? name(names, *failure.function) : "",
                                       .what = std::move(failure.what),
                                       .stack = text(names, failure.stack),
                                       .last_stderr = std::move(failure.last_stderr)});
        }
        return result;
    }

    void receive(const os::Fd& socket, PublishedProgram& program) {
        detail::MonitorGreeting greeting;
        std::vector<os::Fd> fds;
        if (os::receive_message(socket, std::as_writable_bytes(std::span(&greeting, 1)), fds, false) !=
                os::Received::yes ||
            fds.size() != 1) {
            program.trouble = "it ended, or could not answer, while it was asked";
            return;
        }
        struct stat status {};
        if (greeting.magic != detail::MonitorGreeting::kMagic || greeting.size > kMostBytes ||
            ::fstat(fds.front().get(), &status) != 0 || !S_ISREG(status.st_mode)) {
            program.trouble =
                "it was built with another version of Multihull: use the program multihull of that version";
            return;
        }
        std::vector<std::byte> bytes(greeting.size);
        std::size_t got = 0;
        while (got < bytes.size()) {
            const ssize_t n =
                ::pread(fds.front().get(), bytes.data() + got, bytes.size() - got, static_cast<off_t>(got));
            if (n <= 0) break;
            got += static_cast<std::size_t>(n);
        }
        try {
            detail::Reader reader(std::span<const std::byte>(bytes.data(), got));
            auto answer = detail::decode<detail::ProgramOnWire>(reader);
            for (detail::PoolOnWire& pool : answer.pools) {
                program.pools.push_back(published(program.pid, std::move(pool)));
            }
        } catch (const CodecError&) {
            program.pools.clear();
            program.trouble = "its answer can't be read: it was built with another version of Multihull";
        }
    }
};

PoolWatcher::PoolWatcher() : state_(std::make_unique<State>()) {}
PoolWatcher::~PoolWatcher() = default;

std::vector<PublishedProgram> PoolWatcher::look(std::chrono::nanoseconds patience) {
    const std::int64_t deadline = os::deadline_after(patience);
    std::vector<std::pair<os::Fd, PublishedProgram>> asked;
    for (const std::string& name : os::names_listened_at(detail::kMonitorPrefix)) {
        const auto pid = pid_in(name);
        if (!pid) continue;
        os::Fd socket = os::connect_now(name);
        const bool busy = !socket && errno == EAGAIN;
        if (!socket && !busy) continue;    // it has just ended
        if (socket) {
            // Anybody may listen under any name.
            const auto peer = os::peer_of(socket);
            if (!peer || peer->uid != ::geteuid() || peer->pid != *pid) continue;
        }
        PublishedProgram program{.pid = *pid, .memory = memory_of(*pid)};
        program.command = read_line("/proc/" + std::to_string(*pid) + "/comm");
        if (busy) program.trouble = "it does not answer: it is stopped, or asked by too many at once";
        asked.emplace_back(std::move(socket), std::move(program));
    }
    std::vector<PublishedProgram> programs;
    for (auto& [socket, program] : asked) {
        if (socket) {
            if (os::wait_readable(socket.get(), deadline)) {
                state_->receive(socket, program);
            } else {
                program.trouble = "it does not answer: it is stopped, or its machine is very busy";
            }
        }
        programs.push_back(std::move(program));
    }
    std::ranges::sort(programs, {}, &PublishedProgram::pid);
    std::erase_if(state_->known, [&](const auto& entry) {
        return std::ranges::find(programs, entry.first, &PublishedProgram::pid) == programs.end();
    });
    return programs;
}

}    // namespace multihull
