// What a Future looks at: a task, in whichever engine runs it.
#pragma once

#include <multihull/codec.hpp>

#include <cstdint>
#include <exception>
#include <functional>

namespace multihull::detail {

class MapResults;

/// Calls it, and says in the log what it throws.
void run_callback(const std::function<void()>& callback) noexcept;

/// Where a result is read from: the bytes of one task, or the arrays of a map.
struct ResultSource {
    Reader* reader = nullptr;
    const MapResults* map = nullptr;
    const void* value = nullptr;    ///< A value of this process (executors that need no encoding).
};

/// Turns a result into a value; `out` is a std::optional of it.
using ReadResult = void (*)(const ResultSource& source, void* out);

/// Tasks of one engine, by index. Thread-safe. An index stays valid while it is retained.
class Completion {
public:
    virtual ~Completion() = default;
    virtual bool ready(std::uint32_t task) noexcept = 0;
    /// Waits until the task has ended; false when the deadline (monotonic ns) passed.
    virtual bool wait(std::uint32_t task, std::int64_t deadline_ns) = 0;
    /// Of an ended task: what it failed with; empty when there is a value.
    virtual std::exception_ptr failure(std::uint32_t task) = 0;
    /// Of an ended task: reads its value, or throws what it failed with.
    virtual void read(std::uint32_t task, ReadResult read, void* out) = 0;
    /// Keeps a waiting task from starting, or ends one that runs; false when it has ended already.
    virtual bool cancel(std::uint32_t task) = 0;
    /// Keeps a waiting task from starting; one that runs is left alone.
    virtual void abandon(std::uint32_t) {}
    /// Calls back once when the task has ended: at once when it has.
    virtual void on_done(std::uint32_t task, std::function<void()> callback) = 0;
    virtual void retain(std::uint32_t task) noexcept = 0;
    virtual void release(std::uint32_t task) noexcept = 0;
};

}    // namespace multihull::detail
