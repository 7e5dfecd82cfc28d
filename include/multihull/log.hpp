// What the library has to say, through one sink that the program may replace.
//
// Thread-safe. Silent by default except for warnings and errors, which go to stderr. Each process has its own sink and levels; a
// forked child keeps its parent's, a spawned one reads the environment.
//
// MULTIHULL_LOG in the environment says which levels are heard, in a program that has not said so itself: debug, info, warning,
// error or off, each with those above it.
#pragma once

#include <functional>
#include <string_view>

namespace multihull {

enum class LogLevel {
    debug,      ///< What the library does: pools made, workers started.
    info,       ///< What happens to it: workers that died and were replaced.
    warning,    ///< What a user should know: something works worse than it could, or was made good.
    error,      ///< What nobody else can be told of: an exception that was thrown where there is no caller.
};

/// "debug", "info", "warning", "error".
const char* to_string(LogLevel level) noexcept;

/// Called with each message, a sentence without a newline, from any thread. It may log; it must not make or end a pool.
using LogSink = std::function<void(LogLevel, std::string_view)>;

/// Replaces the sink; an empty one restores the default (a line each to stderr, `multihull: ` first).
void set_log_sink(LogSink sink);

/// Messages below this level are dropped before the sink sees them. Default: warning.
void set_log_level(LogLevel lowest) noexcept;

/// Drops the messages of one level, or lets them through, whatever the others do.
void set_log_enabled(LogLevel level, bool enabled) noexcept;

/// Whether messages of that level are heard: worth asking before a long one is made.
bool log_enabled(LogLevel level) noexcept;

/// Says something through the sink.
void log(LogLevel level, std::string_view message) noexcept;

}    // namespace multihull
