#include "summary.hpp"

#include "progress.hpp"

#include <fmt/format.h>

#include <csignal>
#include <cstdio>
#include <cstring>
#include <string_view>

namespace app {

namespace {

std::string count(std::size_t number, std::string_view what) {
    return fmt::format("{} {}{}", number, what, number == 1 ? "" : "s");
}

std::string signal_name(int signal) {
    const char* name = sigabbrev_np(signal);
    return name != nullptr ? fmt::format("SIG{}", name) : fmt::format("signal {}", signal);
}

void print_troubles(const Summary& summary) {
    if (!summary.failures.empty()) {
        fmt::print(stderr, "{} failed:\n", count(summary.failures.size(), "file"));
    }
    for (const Failure& failure : summary.failures) {
        fmt::print(stderr, "  {}: {}\n", printable(failure.input.native()), printable(failure.reason));
    }
    if (!summary.stopped.empty()) {
        fmt::print(stderr, "multihull: {}\n", printable(summary.stopped));
    }
    if (summary.signal != 0) {
        fmt::print(stderr, "multihull: Interrupted by {}.\n", signal_name(summary.signal));
    }
}

void print_figures(const Summary& summary) {
    std::string line = fmt::format("{} made in {}, {} failed, {} already up to date", count(summary.made, "thumbnail"),
                                   printable(summary.output.native()), summary.failed, summary.up_to_date);
    if (const std::size_t left = summary.planned - summary.made - summary.failed; left > 0) {
        line += fmt::format(", {} not reached", left);
    }
    fmt::print("{}.\n", line);
    if (summary.seconds > 0) {
        fmt::print("{:.2f} s, {:.1f} images/s, {}.\n", summary.seconds,
                   static_cast<double>(summary.made) / summary.seconds, count(summary.workers, "worker"));
    }
    if (summary.seconds_alone) {
        fmt::print("One worker alone: {:.2f} s, so {} did it {:.2f} times as fast.\n", *summary.seconds_alone,
                   count(summary.workers, "worker"), *summary.seconds_alone / summary.seconds);
    }
    if (!summary.contact_sheet.empty()) {
        fmt::print("Contact sheet: {}\n", printable(summary.contact_sheet.native()));
    }
    if (!summary.report.empty()) {
        fmt::print("Report: {}\n", printable(summary.report.native()));
    }
}

}    // namespace

void print(const Summary& summary) {
    print_troubles(summary);
    print_figures(summary);
    std::fflush(stdout);
}

int exit_status(const Summary& summary) {
    if (summary.signal != 0) {
        return 128 + summary.signal;
    }
    if (!summary.stopped.empty()) {
        return 2;
    }
    return summary.failures.empty() ? 0 : 1;
}

}    // namespace app
