#include <multihull/error.hpp>

#include "process/signal_name.hpp"

#include <charconv>
#include <csignal>
#include <iterator>
#include <utility>

namespace multihull {
namespace {

// How much of a worker's last lines goes into a sentence; all of them are in last_stderr().
constexpr std::size_t kShownStderr = 240;

std::string hexadecimal(std::uintptr_t value) {
    char digits[2 * sizeof value];
    return "0x" + std::string(digits, std::to_chars(digits, std::end(digits), value, 16).ptr);
}

// Why it died of its signal, in brackets.
std::string reason_of(const CrashReport& report) {
    if (report.sender_pid != 0) {
        return report.sender_pid == report.pid ? "raised by itself"
                                               : "sent by process " + std::to_string(report.sender_pid);
    }
    if (report.signal == SIGKILL) {
        return "killed from outside, perhaps by the kernel because memory ran out";
    }
    const std::string_view meaning = detail::signal_code_meaning(report.signal, report.code);
    return std::string(meaning.empty() ? detail::signal_description(report.signal) : meaning);
}

std::string ending_of(const CrashReport& report) {
    if (report.signal == 0) {
        return "ended: the task ended its worker with exit(" + std::to_string(report.exit_status.value_or(0)) + ")";
    }
    std::string text = "crashed with " + detail::signal_name(report.signal);
    if (const std::string reason = reason_of(report); !reason.empty()) {
        text += " (" + reason + ")";
    }
    if (detail::signal_has_address(report.signal, report.code)) {
        text += " at address " + hexadecimal(report.address);
    }
    return text;
}

// The first of the last lines, as one.
std::string in_one_line(std::string_view lines) {
    std::string text;
    bool between_lines = false;
    for (const char character : lines) {
        if (text.size() >= kShownStderr) {
            return text + " ...";
        }
        if (character == '\n' || character == '\r') {
            between_lines = !text.empty();
            continue;
        }
        if (std::exchange(between_lines, false)) {
            text += " / ";
        }
        text += static_cast<unsigned char>(character) < ' ' || character == '\x7f' ? '?' : character;
    }
    return text;
}

std::string sentence_for(const CrashReport& report) {
    std::string text = "worker " + std::to_string(report.pid) + " " + ending_of(report);
    if (report.map_index) {
        text += ", at element " + std::to_string(*report.map_index) + " of the input";
    }
    if (!report.stack.empty()) {
        text += "; stack() says where";
    }
    if (const std::string lines = in_one_line(report.last_stderr); !lines.empty()) {
        text += "; last stderr: " + lines;
    }
    return text;
}

std::string sentence_for(const std::string& type_name, const std::string& text) {
    return text.empty() ? type_name : type_name + ": " + text;
}

}    // namespace

RemoteError::RemoteError(std::string type_name, std::string text, Stack stack)
    : Error(sentence_for(type_name, text)),
      type_name_(std::move(type_name)),
      text_(std::move(text)),
      stack_(std::move(stack)) {}

WorkerCrashed::WorkerCrashed(CrashReport report)
    : Error(sentence_for(report)), report_(std::make_shared<const CrashReport>(std::move(report))) {}

std::string WorkerCrashed::signal_name() const { return signal() == 0 ? "exit" : detail::signal_name(signal()); }

TaskTimeout::TaskTimeout(const std::string& sentence, std::chrono::nanoseconds limit, Stack stack)
    : Error(sentence), limit_(limit), stack_(std::move(stack)) {}

}    // namespace multihull
