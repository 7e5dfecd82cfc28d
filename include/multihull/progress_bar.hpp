// A progress bar that behaves: as wide as the terminal, a few plain lines where there is none, several at once, nothing to put back
// when the program is killed.
//
// Thread-safe. A handle: copies show the same bar, and the last one's end finishes it. In a forked child it draws nothing.
//
// ```cpp
// pool.map(render, frames, {.progress = multihull::ProgressBar({.label = "frames"})});
// ```
#pragma once

#include <multihull/progress.hpp>

#include <cstddef>
#include <memory>
#include <optional>
#include <string>

namespace multihull {

/// Settings of a ProgressBar.
struct ProgressBarOptions {
    std::string label{};                   ///< Stands before the bar.
    std::optional<std::size_t> total{};    ///< Where Progress does not say it.
    std::string unit{};                    ///< What is counted, for the speed: "images" makes "12.5 images/s".
    bool show_failed = false;              ///< Say "0 failed", too, as long as none has.
    bool keep = true;         ///< On a terminal: leave the last state as a line. Otherwise the bar vanishes.
    int descriptor = 2;       ///< Where to; stderr, so that stdout holds results alone.
    std::size_t width = 0;    ///< Columns at most; 0: the terminal's.
};

class ProgressBar {
public:
    explicit ProgressBar(ProgressBarOptions options = {});

    /// As a map's `.progress`.
    void operator()(const Progress& progress) const { show(progress.done, 0, progress.total); }
    /// How far it is: `done` tasks in all, `failed` of them failed. Draws at most ten times a second, and when all is done.
    void show(std::size_t done, std::size_t failed = 0, std::optional<std::size_t> total = {}) const;
    /// Draws the last state and leaves it (`keep`), or takes the bar away; elsewhere than on a terminal writes the last line. What is
    /// shown after that is ignored.
    void finish() const;

private:
    class State;
    std::shared_ptr<State> state_;
};

}    // namespace multihull
