// What the kill tests share: armed kill points, numbers that survive any death, and a census of what a program holds.
#pragma once

#include "os/fault.hpp"
#include "os/futex.hpp"
#include "pool/layout.hpp"
#include "process/exchange.hpp"
#include "process/symbolize.hpp"
#include "process/zygote.hpp"
#include "shm/heap.hpp"
#include "shm/region.hpp"

#include <multihull/pool.hpp>

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <charconv>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <map>
#include <random>
#include <span>
#include <string>
#include <thread>
#include <unistd.h>
#include <vector>

namespace chaos {

using namespace std::chrono_literals;
namespace mh = multihull;
using mh::os::KillPoint;

/// Nothing here takes a second; who waits for this long waits for ever.
inline constexpr std::chrono::seconds kForever{60};

/// How often to do something: as given, or MULTIHULL_CHAOS_ROUNDS times as often (script/soak sets it).
inline int rounds(int ordinary) {
    const char* const factor = std::getenv("MULTIHULL_CHAOS_ROUNDS");
    return factor == nullptr ? ordinary : ordinary * std::max(1, std::atoi(factor));
}

/// Another seed in each run, named where a test fails.
inline std::uint32_t seed() {
    static const std::uint32_t value = [] {
        const char* const given = std::getenv("MULTIHULL_CHAOS_SEED");
        return given != nullptr ? static_cast<std::uint32_t>(std::strtoul(given, nullptr, 10)) : std::random_device()();
    }();
    return value;
}

/// A hang can't be repaired: says so, and ends the program with all that it started.
[[noreturn]] inline void hang(const std::string& what) {
    std::fprintf(stderr, "HANG (MULTIHULL_CHAOS_SEED=%u): %s\n", seed(), what.c_str());
    std::abort();
}

template <class Condition>
bool eventually(Condition condition, std::chrono::nanoseconds patience = kForever) {
    const auto end = std::chrono::steady_clock::now() + patience;
    while (!condition()) {
        if (std::chrono::steady_clock::now() > end) return false;
        std::this_thread::sleep_for(200us);
    }
    return true;
}

template <class T>
const mh::Future<T>& ended(const mh::Future<T>& future, const std::string& what) {
    if (!future.wait_for(kForever)) hang(what);
    return future;
}

// Kill points.

inline std::atomic<std::uint32_t>& countdown(KillPoint point) {
    return mh::shm::Region::instance().header().kill_points.countdown[static_cast<std::uint32_t>(point)];
}
inline void arm(KillPoint point, std::uint32_t nth) { countdown(point).store(nth); }
inline void disarm() {
    for (auto& counter : mh::shm::Region::instance().header().kill_points.countdown) counter.store(0);
}

inline const char* name_of(KillPoint point) {
    static const char* const names[] = {
        "worker_born",       "worker_ready",       "task_intent",      "task_taken",          "task_head_advanced",
        "task_before_run",   "task_after_run",     "pins_published",   "task_result_written", "task_done",
        "task_before_wake",  "task_before_notify", "task_notified",    "range_intent",        "range_claimed",
        "element_started",   "element_stored",     "block_allocated",  "worker_before_sleep", "worker_woken",
        "worker_leaving",    "extent_claimed",     "zygote_request",   "zygote_forked",       "zygote_reaped",
        "lock_taken",        "lock_before_sleep",  "lock_released",    "object_claimed",      "object_referred",
        "object_ending",     "object_ended",       "object_pinned",    "pin_dropped",         "pin_uncounted",
        "waiter_enlisted",   "waiter_chosen",      "waiter_granted",   "permit_taken",        "permit_returned",
        "barrier_arrived",   "barrier_tripped",    "put_slot_written", "block_queued",        "pins_queued",
        "put_published",     "put_before_wake",    "get_copied",       "get_taken",           "pins_taken",
        "block_loaned",      "block_freed",        "ring_grown",       "queue_repaired",      "watch_woken",
        "watch_told",        "watch_settled",      "descriptor_asked", "descriptor_kept",     "descriptor_given",
        "file_written",      "file_named",         "file_replaced",    "file_sweeping",       "result_locked",
        "mailbox_filled",    "mailbox_posted",     "mailbox_rung",     "mailbox_slept",       "mailbox_taken",
        "mailbox_answering", "mailbox_answered",   "trace_begun",      "trace_written",       "value_announced",
        "value_received",    "value_forwarded",    "bell_awaited",     "bell_silenced"};
    static_assert(std::size(names) == mh::os::kKillPointCount);
    return names[static_cast<std::uint32_t>(point)];
}

/// Counters that every process of the family sees, named by an offset that a task takes as an argument.
class Counts {
public:
    explicit Counts(std::size_t size)
        : size_(size), offset_(mh::shm::Heap::instance().allocate(size * sizeof(std::atomic<std::uint32_t>))) {
        clear();
    }
    Counts(const Counts&) = delete;
    Counts& operator=(const Counts&) = delete;
    ~Counts() { mh::shm::Heap::instance().free(offset_, size_ * sizeof(std::atomic<std::uint32_t>)); }

    std::uint64_t offset() const noexcept { return offset_; }
    std::size_t size() const noexcept { return size_; }
    std::uint32_t operator[](std::size_t index) const { return at(offset_, index).load(); }
    void clear() {
        for (std::size_t i = 0; i < size_; ++i) at(offset_, i).store(0);
    }

    static std::atomic<std::uint32_t>& at(std::uint64_t offset, std::size_t index) {
        return mh::shm::Region::instance().at<std::atomic<std::uint32_t>>(offset)[index];
    }

private:
    std::size_t size_;
    std::uint64_t offset_;
};

// Tasks. Each counts that it was run.

struct Job {
    std::uint64_t counts = 0;
    std::uint32_t index = 0;
    std::uint32_t size = 0;    // of the result
};

inline int run_small(Job job) {
    ++Counts::at(job.counts, job.index);
    return static_cast<int>(job.index) * 3 + 1;
}

/// A result that fits into no slot, and that can't be mistaken for another's.
inline std::string text_of(std::uint32_t index, std::uint32_t size) {
    std::string text = std::to_string(index) + ":";
    text.resize(std::max<std::size_t>(text.size(), size), static_cast<char>('a' + index % 26));
    return text;
}
inline std::string run_big(Job job) {
    ++Counts::at(job.counts, job.index);
    return text_of(job.index, job.size);
}

inline int ping(int x) { return x + 1; }

/// The home of the only pool of this process. The supervisor may hold the one before for a moment longer.
inline mh::detail::PoolHome only_home() {
    auto& region = mh::shm::Region::instance();
    const std::uint32_t own = region.own_number();
    std::vector<std::uint32_t> homes;
    const auto look = [&] {
        homes.clear();
        for (std::uint32_t i = 0; i < mh::shm::kHomes; ++i) {
            if (region.header().homes[i].load() == own) homes.push_back(i);
        }
        return homes.size() == 1;
    };
    if (!eventually(look)) throw std::logic_error("there is not one pool, but " + std::to_string(homes.size()));
    return mh::detail::PoolHome(region.header().homes_begin + std::uint64_t{homes.front()} * region.home_size());
}

// Processes.

inline std::string first_line(const std::string& path) {
    std::ifstream file(path);
    std::string line;
    std::getline(file, line);
    return line;
}

/// Living processes (no zombies) with something to be found in one of their files in /proc.
template <class Predicate>
std::vector<pid_t> processes(Predicate predicate) {
    std::vector<pid_t> found;
    std::error_code error;
    for (const auto& entry : std::filesystem::directory_iterator("/proc", error)) {
        const std::string name = entry.path().filename();
        pid_t pid = 0;
        if (std::from_chars(name.data(), name.data() + name.size(), pid).ptr != name.data() + name.size()) continue;
        const std::string stat = first_line(entry.path() / "stat");
        const auto end = stat.rfind(')');
        if (end == std::string::npos || end + 2 >= stat.size() || stat[end + 2] == 'Z' || stat[end + 2] == 'X')
            continue;
        if (predicate(pid, entry.path())) found.push_back(pid);
    }
    return found;
}

inline std::vector<pid_t> family() {
    std::error_code error;
    const auto self = std::filesystem::read_symlink("/proc/self/exe", error);
    return processes([&](pid_t, const std::filesystem::path& folder) {
        std::error_code unreadable;
        return std::filesystem::read_symlink(folder / "exe", unreadable) == self;
    });
}

inline pid_t parent_of(pid_t pid) {
    const std::string stat = first_line("/proc/" + std::to_string(pid) + "/stat");
    const auto end = stat.rfind(')');
    return end == std::string::npos ? 0 : static_cast<pid_t>(std::atoi(stat.c_str() + end + 4));
}

inline std::vector<pid_t> zygotes_of(pid_t parent) {
    return processes([&](pid_t pid, const std::filesystem::path& folder) {
        return first_line(folder / "comm") == "mh-zygote" && parent_of(pid) == parent;
    });
}

inline bool is_worker(pid_t pid) {
    return pid > 0 && first_line("/proc/" + std::to_string(pid) + "/comm") == "mh-worker";
}

// What a program holds.

struct Census {
    std::map<std::string, std::size_t> numbers;
    bool operator==(const Census&) const = default;
};

inline std::size_t entries(const char* folder) {
    std::size_t count = 0;
    for ([[maybe_unused]] const auto& entry : std::filesystem::directory_iterator(folder)) ++count;
    return count;
}

inline Census take_census() {
    auto& header = mh::shm::Region::instance().header();
    Census census;
    census.numbers["file descriptors"] = entries("/proc/self/fd");
    std::ifstream maps("/proc/self/maps");
    std::size_t shared = 0;
    for (std::string line; std::getline(maps, line);) shared += line.find("memfd") != std::string::npos ? 1 : 0;
    census.numbers["shared mappings"] = shared;
    census.numbers["bytes of the heap in use"] = mh::shm::Heap::instance().used();
    const std::uint32_t own = mh::shm::Region::instance().own_number();
    std::size_t extents = 0;
    for (const auto& owner : header.extents) extents += owner.load() != 0 && owner.load() != own ? 1 : 0;
    census.numbers["extents of others"] = extents;
    std::size_t homes = 0;
    for (const auto& owner : header.homes) homes += owner.load() != 0 ? 1 : 0;
    census.numbers["homes"] = homes;
    std::size_t numbered = 0;
    for (const auto& pid : header.processes) numbered += pid.load() != 0 ? 1 : 0;
    census.numbers["numbered processes"] = numbered;
    census.numbers["processes"] = family().size();
    return census;
}

/// Fails where the program comes to hold more, once all is over, than it did before.
class NothingLeft {
public:
    NothingLeft() {
        // The forkserver's twin is made when it has been idle for a while; it would be counted as new.
        if (const auto server = mh::detail::Zygote::forkserver()) eventually([&] { return server->has_twin(); }, 10s);
        // Started on first use, kept until the end.
        mh::detail::Supervisor::instance();
        mh::detail::keep_descriptors_of_family();
        mh::shm::Region::instance().own_number();
        const auto code = reinterpret_cast<std::uintptr_t>(&ping);
        mh::detail::symbolize(std::span(&code, 1));
        // The pool of the test before may be on its way out.
        eventually([&] { return (before_ = take_census()).numbers["homes"] == 0 && take_census() == before_; }, 10s);
    }
    ~NothingLeft() {
        Census after;
        // Less is fine: something of the test before may have been on its way out, and have been counted.
        const bool nothing = eventually(
            [&] {
                after = take_census();
                return std::all_of(after.numbers.begin(), after.numbers.end(),
                                   [&](const auto& entry) { return entry.second <= before_.numbers[entry.first]; });
            },
            20s);
        if (nothing) return;
        for (const auto& [what, count] : after.numbers) {
            EXPECT_LE(count, before_.numbers[what]) << what << " left (seed " << seed() << ")";
        }
    }
    NothingLeft(const NothingLeft&) = delete;
    NothingLeft& operator=(const NothingLeft&) = delete;

private:
    Census before_;
};

inline const char* name_of(mh::StartMethod method) {
    switch (method) {
        case mh::StartMethod::fork:
            return "fork";
        case mh::StartMethod::forkserver:
            return "forkserver";
        case mh::StartMethod::spawn:
            return "spawn";
    }
    return "";
}

#define MULTIHULL_NEEDS_FAILPOINTS() \
    if (!multihull::os::kFailpoints) GTEST_SKIP() << "built without MULTIHULL_FAILPOINTS"

}    // namespace chaos
