#include "progress.hpp"

#include <fmt/format.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <string_view>
#include <utility>

namespace app {

namespace {

constexpr auto kRedraw = std::chrono::milliseconds(100);
constexpr auto kPlainLine = std::chrono::seconds(1);
constexpr int kBarWidth = 24;

bool is_terminal() {
    const char* kind = std::getenv("TERM");
    return isatty(STDERR_FILENO) == 1 && kind != nullptr && std::string_view(kind) != "dumb";
}

std::size_t terminal_width() {
    winsize size{};
    return ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 1 ? size.ws_col : 80U;
}

std::string duration(double seconds) {
    const long whole = std::lround(std::ceil(seconds));
    if (whole < 60) {
        return fmt::format("{} s", whole);
    }
    return whole < 3600 ? fmt::format("{}:{:02} min", whole / 60, whole % 60)
                        : fmt::format("{}:{:02} h", whole / 3600, whole / 60 % 60);
}

}    // namespace

Progress::Progress(std::size_t total, std::string unit)
    : total_(total), unit_(std::move(unit)), terminal_(is_terminal()) {}

Progress::~Progress() { finish(); }

void Progress::show(std::size_t made, std::size_t failed) {
    made_ = made;
    failed_ = failed;
    const auto now = Clock::now();
    if (terminal_) {
        if (now - last_drawn_ >= kRedraw) {
            last_drawn_ = now;
            draw_bar();
        }
        return;
    }
    // Ten lines are enough for a log, however long the run.
    const std::size_t step = std::max<std::size_t>(total_ / 10, 1);
    if (made_ + failed_ < total_ && made_ + failed_ - written_ >= step &&
        now - std::max(last_drawn_, start_) >= kPlainLine) {
        last_drawn_ = now;
        write_line();
    }
}

void Progress::finish() {
    if (std::exchange(finished_, true)) {
        return;
    }
    if (terminal_) {
        fmt::print(stderr, "\r\x1b[K");
        std::fflush(stderr);
    } else {
        write_line();
    }
}

std::string Progress::numbers() const {
    const std::size_t done = made_ + failed_;
    const double seconds = std::chrono::duration<double>(Clock::now() - start_).count();
    const double rate = seconds > 0 ? static_cast<double>(done) / seconds : 0.0;
    std::string text = fmt::format("{} of {} done, {} failed, {:.1f} {}/s", done, total_, failed_, rate, unit_);
    if (done > 0 && done < total_) {
        text += fmt::format(", {} left", duration(static_cast<double>(total_ - done) / rate));
    }
    return text;
}

void Progress::draw_bar() {
    const auto filled = static_cast<std::size_t>(kBarWidth) * (made_ + failed_) / std::max<std::size_t>(total_, 1);
    std::string line = fmt::format("[{:.<{}}] {}", std::string(filled, '#'), kBarWidth, numbers());
    line.resize(std::min(line.size(), terminal_width() - 1));    // a line that wraps could not be drawn over
    fmt::print(stderr, "\r{}\x1b[K", line);
    std::fflush(stderr);
}

void Progress::write_line() {
    written_ = made_ + failed_;
    fmt::print(stderr, "{}\n", numbers());
}

std::string printable(std::string text) {
    std::ranges::replace_if(
        text, [](unsigned char c) { return c < 0x20 || c == 0x7F; }, '?');
    return text;
}

}    // namespace app
