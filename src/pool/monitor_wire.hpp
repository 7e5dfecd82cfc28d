// What a program that publishes its pools tells whoever asks. Names are not looked up there: that costs milliseconds, and is the
// reader's to do, who finds the program's symbols by its process id.
#pragma once

#include <multihull/codec.hpp>
#include <multihull/pool_stats.hpp>

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace multihull::detail {

/// `PREFIX UID/PID/NONCE`: the abstract socket at which a program answers.
inline constexpr std::string_view kMonitorPrefix = "multihull-monitor/";

/// Comes first, beside the descriptor of a memory file with the encoded ProgramOnWire. Another version has another number.
struct MonitorGreeting {
    std::uint64_t magic = kMagic;
    std::uint64_t size = 0;

    static constexpr std::uint64_t kMagic = 0x4d48'4d4f'4e00'0001;    // MHMON, format 1
};

/// A function, as its own process can tell it cheaply.
struct FunctionOnWire {
    std::uint64_t address = 0;    ///< 0: it has a type, and no address that is known.
    std::string type{};           ///< Mangled.
};

struct FailureOnWire {
    std::chrono::nanoseconds age{0};
    std::uint64_t worker = 0;
    int pid = 0;
    TaskOutcome outcome = TaskOutcome::crashed;
    std::optional<FunctionOnWire> function{};
    std::string what{};
    std::vector<std::uint64_t> stack{};
    std::string last_stderr{};
};

struct PoolOnWire {
    PoolStats stats{};
    std::vector<std::optional<FunctionOnWire>> functions{};    ///< Of the workers.
    std::vector<FailureOnWire> failures{};                     ///< Oldest first.
};

struct ProgramOnWire {
    std::vector<PoolOnWire> pools{};
};

}    // namespace multihull::detail
