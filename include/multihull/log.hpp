// What the library has to say, through one sink that the program may replace.
//
// Thread-safe. Silent by default except for warnings, which go to stderr. Each process has its own sink; a forked child keeps its
// parent's.
#pragma once

#include <functional>
#include <string_view>

namespace multihull {

enum class LogLevel { debug, info, warning, error };

using LogSink = std::function<void(LogLevel, std::string_view)>;

/// Replaces the sink; an empty one restores the default (warnings and errors to stderr, a line each).
void set_log_sink(LogSink sink);

/// Messages below this level are dropped before the sink sees them. Default: warning.
void set_log_level(LogLevel level) noexcept;

/// Says something through the sink.
void log(LogLevel level, std::string_view message) noexcept;

}    // namespace multihull
