#include <multihull/progress_bar.hpp>

#include "os/fd.hpp"

#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <mutex>
#include <string_view>
#include <utility>
#include <vector>

namespace multihull {

namespace {

using Clock = std::chrono::steady_clock;

constexpr auto kRedraw = std::chrono::milliseconds(100);
constexpr auto kPlainLine = std::chrono::seconds(1);
constexpr std::size_t kBarWidth = 24;
constexpr std::size_t kLeastBar = 8;

bool is_terminal(int descriptor) {
    const char* const kind = std::getenv("TERM");
    return ::isatty(descriptor) == 1 && kind != nullptr && std::string_view(kind) != "dumb";
}

std::size_t terminal_width(int descriptor) {
    winsize size{};
    return ::ioctl(descriptor, TIOCGWINSZ, &size) == 0 && size.ws_col > 1 ? size.ws_col : 80U;
}

std::string duration(double seconds) {
    const long whole = std::lround(std::ceil(seconds));
    char text[48];
    if (whole < 60) {
        std::snprintf(text, sizeof text, "%ld s", whole);
    } else if (whole < 3600) {
        std::snprintf(text, sizeof text, "%ld:%02ld min", whole / 60, whole % 60);
    } else {
        std::snprintf(text, sizeof text, "%ld:%02ld h", whole / 3600, whole / 60 % 60);
    }
    return text;
}

// Characters, not bytes: each takes a column.
bool begins_character(char c) { return (static_cast<unsigned char>(c) & 0xc0U) != 0x80U; }

std::size_t columns(std::string_view text) {
    return static_cast<std::size_t>(std::count_if(text.begin(), text.end(), begins_character));
}

std::string first_columns(std::string_view text, std::size_t count) {
    std::size_t end = 0;
    for (; end < text.size(); ++end) {
        if (begins_character(text[end]) && count-- == 0) break;
    }
    return std::string(text.substr(0, end));
}

}    // namespace

class ProgressBar::State {
    // The bars that a process shows, drawn together: one below the other, over what was drawn last.
    struct Screen {
        explicit Screen(Screen* inherited) : before_fork(inherited) {}

        const pid_t process = ::getpid();
        [[maybe_unused]] Screen* const before_fork;    // kept only to be reachable
        std::mutex mutex;
        std::vector<const State*> bars;
        std::size_t lines = 0;    // that are drawn over; the cursor stands on the last one
    };

    // Made on first use, never destroyed. A forked child makes its own: somebody may have been drawing on its parent's when it forked.
    static Screen& screen() {
        static std::atomic<Screen*> current{nullptr};
        Screen* known = current.load(std::memory_order_acquire);
        while (known == nullptr || known->process != ::getpid()) {
            auto fresh = std::make_unique<Screen>(known);
            if (current.compare_exchange_strong(known, fresh.get(), std::memory_order_acq_rel)) return *fresh.release();
        }
        return *known;
    }

public:
    explicit State(ProgressBarOptions options)
        : options_(std::move(options)), terminal_(is_terminal(options_.descriptor)) {
        // What would steer a terminal is not for a label.
        std::replace_if(
            options_.label.begin(), options_.label.end(), [](unsigned char c) { return c < 0x20 || c == 0x7f; }, ' ');
        if (!terminal_) return;
        const std::lock_guard guard(screen_.mutex);
        screen_.bars.push_back(this);
    }
    State(const State&) = delete;
    State& operator=(const State&) = delete;
    ~State() { finish(); }

    void show(std::size_t done, std::size_t failed, std::optional<std::size_t> total) {
        if (elsewhere()) return;
        const std::lock_guard guard(screen_.mutex);
        if (finished_) return;
        done_ = done;
        failed_ = failed;
        if (total) options_.total = total;
        const auto now = Clock::now();
        const bool last = options_.total && done_ >= *options_.total;
        if (terminal_) {
            if (now - drawn_ < kRedraw && (!last || complete_)) return;
            complete_ = last;
            drawn_ = now;
            draw_all({});
            return;
        }
        // Ten lines are enough for a log, however long the run.
        const std::size_t step = std::max<std::size_t>(options_.total.value_or(0) / 10, 1);
        if (!last && done_ >= written_ + step && now - std::max(drawn_, start_) >= kPlainLine) {
            drawn_ = now;
            write_line();
        }
    }

    void finish() {
        if (elsewhere()) return;
        const std::lock_guard guard(screen_.mutex);
        if (std::exchange(finished_, true)) return;
        if (!terminal_) {
            write_line();
            return;
        }
        std::erase(screen_.bars, this);
        draw_all(options_.keep ? line() : std::string());
    }

private:
    // Of the functions below all need the screen's mutex.

    std::string numbers() const {
        const double seconds = std::chrono::duration<double>(Clock::now() - start_).count();
        const double rate = seconds > 0 ? static_cast<double>(done_) / seconds : 0.0;
        std::string text = std::to_string(done_);
        if (options_.total) text += " of " + std::to_string(*options_.total);
        text += " done";
        if (failed_ > 0 || options_.show_failed) text += ", " + std::to_string(failed_) + " failed";
        char speed[32];
        std::snprintf(speed, sizeof speed, ", %.1f", rate);
        text += speed + (options_.unit.empty() ? "/s" : " " + options_.unit + "/s");
        if (options_.total && done_ > 0 && done_ < *options_.total)
            text += ", " + duration(static_cast<double>(*options_.total - done_) / rate) + " left";
        return text;
    }

    std::string line() const {
        // A full line would wrap, and could not be drawn over.
        std::size_t room = terminal_width(options_.descriptor) - 1;
        if (options_.width != 0) room = std::min(room, options_.width);
        std::string text = options_.label.empty() ? std::string() : options_.label + " ";
        const std::string figures = numbers();
        if (options_.total) {
            // Of a narrow terminal the figures get what they need first.
            const std::size_t taken = columns(text) + columns(figures) + 3;
            const std::size_t bar = std::clamp(room > taken ? room - taken : 0, kLeastBar, kBarWidth);
            const double total = static_cast<double>(std::max<std::size_t>(*options_.total, 1));
            const double part = std::min(static_cast<double>(done_) / total, 1.0);
            const auto filled = static_cast<std::size_t>(part * static_cast<double>(bar));
            text += "[" + std::string(filled, '#') + std::string(bar - filled, '.') + "] ";
        }
        return first_columns(text + figures, room);
    }

    void write_line() {
        written_ = done_;
        const std::string text = (options_.label.empty() ? std::string() : options_.label + ": ") + numbers() + "\n";
        os::write_all(options_.descriptor, text);
    }

    // `last_state`: of a bar that has ended; it stays above those that are still drawn.
    void draw_all(const std::string& last_state) {
        std::vector<std::string> lines;
        if (!last_state.empty()) lines.push_back(last_state);
        for (const State* bar : screen_.bars) lines.push_back(bar->line());
        std::string text = "\r";
        if (screen_.lines > 1) text += "\x1b[" + std::to_string(screen_.lines - 1) + "A";
        for (std::size_t i = 0; i < lines.size(); ++i) text += (i == 0 ? "" : "\r\n") + lines[i] + "\x1b[K";
        if (lines.empty()) text += "\x1b[K";
        if (screen_.lines > std::max<std::size_t>(lines.size(), 1)) text += "\x1b[J";
        if (!last_state.empty() && screen_.bars.empty()) text += "\r\n";
        screen_.lines = screen_.bars.size();
        os::write_all(options_.descriptor, text);
    }

    // In a forked child: the bar is its parent's.
    bool elsewhere() const { return screen_.process != ::getpid(); }

    ProgressBarOptions options_;
    const bool terminal_;
    Screen& screen_ = screen();
    const Clock::time_point start_ = Clock::now();
    Clock::time_point drawn_{};
    std::size_t done_ = 0;
    std::size_t failed_ = 0;
    std::size_t written_ = 0;    // how many were done when the last plain line was written
    bool complete_ = false;      // the full bar has been drawn
    bool finished_ = false;
};

ProgressBar::ProgressBar(ProgressBarOptions options) : state_(std::make_shared<State>(std::move(options))) {}

void ProgressBar::show(std::size_t done, std::size_t failed, std::optional<std::size_t> total) const {
    state_->show(done, failed, total);
}

void ProgressBar::finish() const { state_->finish(); }

}    // namespace multihull
