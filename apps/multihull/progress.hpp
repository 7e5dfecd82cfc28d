// How far a run is: one line that is drawn again and again on a terminal, a plain line now and then elsewhere.
//
// The terminal is left as it was found: nothing is hidden or switched, so that nothing has to be put back after a kill.
// Not thread-safe: the main thread alone draws.
#pragma once

#include <chrono>
#include <cstddef>
#include <string>

namespace app {

/// Written to stderr, so that stdout holds the summary alone.
class Progress {
public:
    /// `unit` is what `total` counts.
    explicit Progress(std::size_t total, std::string unit = "images");
    Progress(const Progress&) = delete;
    Progress& operator=(const Progress&) = delete;
    ~Progress();

    /// Tells how far it is; draws if it is time to.
    void show(std::size_t made, std::size_t failed);
    /// Clears the bar, or writes the last plain line. Called again, it does nothing.
    void finish();

private:
    using Clock = std::chrono::steady_clock;

    std::string numbers() const;
    void draw_bar();
    void write_line();

    const std::size_t total_;
    const std::string unit_;
    const bool terminal_;
    const Clock::time_point start_ = Clock::now();
    Clock::time_point last_drawn_{};
    std::size_t made_ = 0;
    std::size_t failed_ = 0;
    std::size_t written_ = 0;    // how many were done when the last plain line was written
    bool finished_ = false;
};

/// Text from outside, such as a file's name, without the characters that would steer a terminal.
std::string printable(std::string text);

}    // namespace app
