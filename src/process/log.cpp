#include <multihull/log.hpp>

#include "os/fd.hpp"
#include "process/self.hpp"

#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <iterator>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <unistd.h>

namespace multihull {

namespace {

constexpr unsigned bit(LogLevel level) { return 1U << static_cast<unsigned>(level); }
constexpr unsigned kAll = 2 * bit(LogLevel::error) - 1;
// A level and those above it.
constexpr unsigned from(LogLevel lowest) { return kAll & ~(bit(lowest) - 1); }

constexpr unsigned kUnread = ~0U;    // the environment has not been looked at
std::atomic<unsigned> heard{kUnread};

unsigned levels_of_environment() {
    const char* const text = std::getenv("MULTIHULL_LOG");
    if (text == nullptr) return from(LogLevel::warning);
    const std::string_view wish = text;
    if (wish == "off") return 0;
    for (const LogLevel level : {LogLevel::debug, LogLevel::info, LogLevel::warning, LogLevel::error}) {
        if (wish == to_string(level)) return from(level);
    }
    std::fprintf(stderr, "multihull: MULTIHULL_LOG is \"%s\": it may be debug, info, warning, error or off\n", text);
    return from(LogLevel::warning);
}

unsigned heard_levels() noexcept {
    unsigned levels = heard.load(std::memory_order_relaxed);
    if (levels != kUnread) return levels;
    const unsigned wished = levels_of_environment();
    // Whoever was quicker has read the same, or knows better.
    return heard.compare_exchange_strong(levels, wished, std::memory_order_relaxed) ? wished : levels;
}

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
    if (level != LogLevel::warning) line.append(to_string(level)).append(": ");
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

const char* to_string(LogLevel level) noexcept {
    constexpr const char* kNames[] = {"debug", "info", "warning", "error"};
    return kNames[static_cast<unsigned>(level) % std::size(kNames)];
}

void set_log_level(LogLevel lowest) noexcept { heard.store(from(lowest), std::memory_order_relaxed); }

void set_log_enabled(LogLevel level, bool enabled) noexcept {
    unsigned levels = heard_levels();
    while (!heard.compare_exchange_weak(levels, enabled ? levels | bit(level) : levels & ~bit(level),
                                        std::memory_order_relaxed)) {}
}

bool log_enabled(LogLevel level) noexcept { return (heard_levels() & bit(level)) != 0; }

void log(LogLevel level, std::string_view message) noexcept {
    if (!log_enabled(level)) return;
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
