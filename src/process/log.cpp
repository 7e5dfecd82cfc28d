#include <multihull/log.hpp>

#include "os/fd.hpp"
#include "process/self.hpp"

#include <atomic>
#include <exception>
#include <memory>
#include <mutex>
#include <string>
#include <unistd.h>

namespace multihull {

namespace {

std::atomic<LogLevel> lowest{LogLevel::warning};

// Leaked: there may be something to say until the process ends.
struct SinkHolder {
    std::mutex mutex;
    std::shared_ptr<const LogSink> sink;
};

SinkHolder& holder() {
    static auto* const instance = new SinkHolder;
    return *instance;
}

void write_to_stderr(LogLevel level, std::string_view message) {
    std::string line = "multihull: ";
    if (level == LogLevel::error) line += "error: ";
    line += message;
    line += '\n';
    // The supervisor waits for nobody: what can't be said at once is not said.
    if (detail::never_waits() && !os::writable(STDERR_FILENO)) return;
    os::write_all(STDERR_FILENO, line);
}

}    // namespace

void set_log_sink(LogSink sink) {
    auto fresh = sink ? std::make_shared<const LogSink>(std::move(sink)) : nullptr;
    const std::lock_guard guard(holder().mutex);
    holder().sink = std::move(fresh);
}

void set_log_level(LogLevel level) noexcept { lowest.store(level, std::memory_order_relaxed); }

void log(LogLevel level, std::string_view message) noexcept {
    if (level < lowest.load(std::memory_order_relaxed)) return;
    try {
        std::shared_ptr<const LogSink> sink;
        {
            const std::lock_guard guard(holder().mutex);
            sink = holder().sink;
        }
        if (sink) {
            (*sink)(level, message);
        } else {
            write_to_stderr(level, message);
        }
    } catch (const std::exception&) {
        // A sink that throws, or memory that ran out, must not turn a message into a failure.
    }
}

}    // namespace multihull
