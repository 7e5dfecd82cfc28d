// What `multihull top` shows, as lines of text for a given width: the same for a terminal and for --once.
#pragma once

#include "observer.hpp"

#include <cstddef>
#include <string>
#include <vector>

namespace app {

/// How a line is shown.
enum class Tone { plain, title, head, busy, faint, bad };

struct ScreenLine {
    Tone tone = Tone::plain;
    std::string text{};    ///< Printable ASCII, at most as long as the screen is wide.
};

/// The lines, as many as there are: the terminal shows a part of them.
std::vector<ScreenLine> top_lines(const std::vector<ProgramView>& programs, std::size_t width);

/// Such as "12.3 MB"; "-" for 0.
std::string size_text(std::size_t bytes);

}    // namespace app
