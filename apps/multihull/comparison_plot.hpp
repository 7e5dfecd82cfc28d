// The picture of a comparison, as a script for gnuplot: times by way on the left, speed-up by the size of a task on the right.
#pragma once

#include <multihull/compare.hpp>

#include <string>
#include <vector>

namespace app {

enum class PictureFormat { svg, png };
enum class Theme { light, dark };

/// What is drawn.
struct ComparisonPicture {
    std::string title;
    std::string subtitle;
    multihull::Comparison comparison;
    std::vector<multihull::BreakEven> break_evens;    ///< None: the left half alone.
};

/// The script. Needs at least one way that was measured.
std::string plot_script(const ComparisonPicture& picture, PictureFormat format, Theme theme);

}    // namespace app
