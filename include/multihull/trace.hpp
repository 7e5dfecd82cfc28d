// A pool's trace: who ran what, when, how long it waited, how it ended.
//
// A value: what was known when it was taken, safe to read from any thread. Take it while the pool works or after its end, as often
// as you like: the workers are not held up.
//
// ```cpp
// multihull::Pool pool({.processes = 4, .trace = true});
// ...
// pool.trace().write_html("trace.html");           // open in a browser
// pool.trace().write_chrome_json("trace.json");    // open in ui.perfetto.dev or chrome://tracing
// ```
#pragma once

#include <multihull/pool_stats.hpp>

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <iosfwd>
#include <string>
#include <vector>

namespace multihull {

/// A call, or a range of a map's inputs that one worker took at once. Times count from when the pool was made.
struct TraceEvent {
    std::size_t function = 0;    ///< Its name is Trace::functions[function].
    std::size_t worker = 0;      ///< Which place.
    int pid = 0;
    std::chrono::nanoseconds submitted{0};
    std::chrono::nanoseconds started{0};
    std::chrono::nanoseconds ended{0};    ///< Of one that still runs: when the trace was taken.
    std::size_t first_input = 0;          ///< Of a map.
    std::size_t inputs = 0;               ///< 0 for a single call.
    TaskOutcome outcome = TaskOutcome::value;
};

/// One process that had a place.
struct TraceProcess {
    std::size_t worker = 0;    ///< Which place.
    int pid = 0;
    std::chrono::nanoseconds requested{0};
    std::chrono::nanoseconds born{0};
    std::chrono::nanoseconds ready{0};    ///< Its initializer had returned; `ended` where it never did.
    std::chrono::nanoseconds ended{0};    ///< Of one that lives: when the trace was taken.
    bool alive = false;
};

/// What Pool::trace() answers.
struct Trace {
    std::string pool{};    ///< Its name.
    int pid = 0;           ///< Of the program.
    std::chrono::nanoseconds elapsed{
        0};                     ///< From when the pool was made until the trace was taken, or its last worker left.
    std::size_t workers = 0;    ///< Places.
    std::vector<std::string> functions{};
    std::vector<TraceEvent> events{};         ///< By the time at which they started.
    std::vector<TraceProcess> processes{};    ///< By the time at which they were asked for.
    std::vector<PoolFailure> failures{};      ///< Oldest first.
    std::uint64_t dropped = 0;    ///< Older events that the trace had no room for: see PoolOptions::trace_capacity.

    /// Writes Chrome's trace event format, which Perfetto reads too: a row for each worker, arrows from where a task was submitted,
    /// marks where one died. Throws std::system_error where the file can't be written.
    void write_chrome_json(const std::filesystem::path& path) const;
    void write_chrome_json(std::ostream& out) const;
    /// Writes one page for a browser that needs nothing but itself: a time line to zoom into, failures, the slowest tasks, where the
    /// time went. Throws std::system_error where the file can't be written.
    void write_html(const std::filesystem::path& path) const;
    void write_html(std::ostream& out) const;
};

}    // namespace multihull
