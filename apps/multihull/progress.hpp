// How far a run is: the library's progress bar, for thumbnails and whatever else a command counts.
#pragma once

#include <multihull/progress_bar.hpp>

#include <cstddef>
#include <string>
#include <utility>

namespace app {

/// Written to stderr, so that stdout holds the summary alone; gone when the run has ended.
class Progress {
public:
    /// `unit` is what `total` counts.
    explicit Progress(std::size_t total, std::string unit = "images")
        : bar_({.total = total, .unit = std::move(unit), .show_failed = true, .keep = false}) {}

    /// Tells how far it is; draws if it is time to.
    void show(std::size_t made, std::size_t failed) { bar_.show(made + failed, failed); }
    /// Clears the bar, or writes the last plain line. Called again, it does nothing.
    void finish() { bar_.finish(); }

private:
    multihull::ProgressBar bar_;
};

/// Text from outside, such as a file's name, without the characters that would steer a terminal.
std::string printable(std::string text);

}    // namespace app
