#include "comparison_plot.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <string_view>
#include <utility>

namespace app {

using multihull::BreakEven;
using multihull::ComparedWay;
using multihull::Prefer;
using std::chrono::nanoseconds;

namespace {

/// Told apart by whoever sees no red or no green, and by their lightness in print.
struct Colours {
    const char* background;
    const char* text;
    const char* faint;
    const char* grid;
    const char* shade;
    const char* serial;
    const char* threads;
    const char* processes;
};

constexpr Colours kLight{"#ffffff", "#1f2328", "#59636e", "#d8dee4", "#f3f4f6", "#8c959f", "#c2570c", "#1d5fd1"};
constexpr Colours kDark{"#0d1117", "#e6edf3", "#9198a1", "#30363d", "#161b22", "#7d8590", "#f0883e", "#58a6ff"};

const char* colour_of(Prefer way, const Colours& colours) {
    switch (way) {
        case Prefer::threads:
            return colours.threads;
        case Prefer::processes:
            return colours.processes;
        case Prefer::serial:
            break;
    }
    return colours.serial;
}

/// As a string of gnuplot's: in single quotes, where nothing but the quote itself means anything.
std::string in_quotes(std::string_view text) {
    std::string result = "'";
    for (const char c : text) {
        result += c == '\n' || c == '\r' ? ' ' : c;
        if (c == '\'') {
            result += '\'';
        }
    }
    return result + "'";
}

double milliseconds(nanoseconds time) { return std::chrono::duration<double, std::milli>(time).count(); }

struct Bar {
    double x;
    const ComparedWay* way;
};

struct Tick {
    double x;
    std::string text;
};

/// Bars stand in groups: the plain loop, then one group for each number of jobs.
struct Bars {
    std::vector<Bar> bars;
    std::vector<Tick> ticks;
    double end = 0;
};

Bars arrange(const multihull::Comparison& comparison) {
    Bars result;
    double x = 0;
    const auto add_group = [&](const std::string& text, const auto& belongs) {
        const double begin = x;
        for (const ComparedWay& way : comparison.ways) {
            if (belongs(way) && !way.times.empty()) {
                result.bars.push_back({x, &way});
                x += 1;
            }
        }
        if (x > begin) {
            result.ticks.push_back({(begin + x - 1) / 2, text});
            x += 0.6;
        }
    };
    add_group("loop", [](const ComparedWay& way) { return way.way == Prefer::serial; });
    std::vector<std::size_t> jobs;
    for (const ComparedWay& way : comparison.ways) {
        if (way.way != Prefer::serial && std::ranges::find(jobs, way.jobs) == jobs.end()) {
            jobs.push_back(way.jobs);
        }
    }
    std::ranges::sort(jobs);
    for (const std::size_t number : jobs) {
        add_group(fmt::format("{}", number),
                  [number](const ComparedWay& way) { return way.way != Prefer::serial && way.jobs == number; });
    }
    result.end = x - 0.6;
    return result;
}

/// Seconds where milliseconds would have too many digits.
struct Unit {
    const char* name;
    double milliseconds;
};

Unit unit_for(double longest_ms) {
    if (longest_ms >= 1000) {
        return {"s", 1000};
    }
    return longest_ms >= 1 ? Unit{"ms", 1} : Unit{"us", 0.001};
}

std::string speed_up_text(const multihull::Comparison& comparison, const ComparedWay& way) {
    const auto factor = comparison.speed_up(way);
    return factor && way.way != Prefer::serial ? fmt::format("{:.2f}×", *factor) : multihull::to_string(way.median());
}

std::string style(const Colours& colours) {
    return fmt::format(
        "set style fill solid 1.0 noborder\n"
        "set border 1 lc rgb '{0}'\n"
        "set grid ytics lc rgb '{1}' lw 1 lt 1\n"
        "set xtics nomirror scale 0 tc rgb '{2}'\n"
        "set ytics nomirror scale 0 tc rgb '{2}'\n"
        "set xlabel tc rgb '{2}'\n"
        "set ylabel tc rgb '{2}'\n",
        colours.faint, colours.grid, colours.faint);
}

std::string left_panel(const ComparisonPicture& picture, const Colours& colours) {
    const Bars bars = arrange(picture.comparison);
    double longest = 0;
    for (const Bar& bar : bars.bars) {
        longest = std::max(longest, milliseconds(bar.way->slowest()));
    }
    const Unit unit = unit_for(longest);
    std::string script = "$bars << EOD\n";
    for (const Bar& bar : bars.bars) {
        const auto scaled = [&](nanoseconds time) { return milliseconds(time) / unit.milliseconds; };
        script += fmt::format("{:.2f} {:.6g} {:.6g} {:.6g} 0x{} \"{}\"\n", bar.x, scaled(bar.way->median()),
                              scaled(bar.way->fastest()), scaled(bar.way->slowest()),
                              std::string_view(colour_of(bar.way->way, colours)).substr(1),
                              speed_up_text(picture.comparison, *bar.way));
    }
    script += "EOD\n";
    std::string ticks;
    for (const Tick& tick : bars.ticks) {
        ticks += fmt::format("{}{} {:.2f}", ticks.empty() ? "" : ", ", in_quotes(tick.text), tick.x);
    }
    script += fmt::format("set xtics ({})\nset xrange [-0.8:{:.2f}]\nset yrange [0:{:.6g}]\n", ticks, bars.end - 0.2,
                          longest / unit.milliseconds * 1.14);
    script += fmt::format("set xlabel 'threads or processes' offset 0,0.3\nset ylabel 'time ({}), median and spread'\n",
                          unit.name);
    script += "set boxwidth 0.86\nset key off\n";
    script += fmt::format(
        "plot $bars using 1:2:5 with boxes lc rgb variable, "
        "'' using 1:3:(0):($4-$3) with vectors heads size 0.09,90 fixed lw 1.6 lc rgb '{0}', "
        "'' using 1:4:6 with labels offset 0,0.7 tc rgb '{0}'\n",
        colours.text);
    return script;
}

/// Which colour is what: beside the title where there is room, else in a line of its own.
std::string legend(const ComparisonPicture& picture, const Colours& colours) {
    std::string script;
    double x = 0.985;
    const double y = picture.break_evens.empty() ? 0.825 : 0.945;
    constexpr std::array kWays{Prefer::processes, Prefer::threads, Prefer::serial};
    for (const Prefer way : kWays) {
        const auto has = std::ranges::find(picture.comparison.ways, way, &ComparedWay::way);
        if (has == picture.comparison.ways.end()) {
            continue;
        }
        const char* const name = way == Prefer::serial ? "loop" : multihull::to_string(way);
        script += fmt::format("set label '■ {}' at screen {:.3f},{} right tc rgb '{}'\n", name, x, y,
                              colour_of(way, colours));
        const double width = 0.011 * static_cast<double>(std::string_view(name).size() + 3);
        x -= picture.break_evens.empty() ? 1.7 * width : width;
    }
    return script;
}

// Their colours are those of the bars: what is left to say is what a dashed line is. Above the curves, which may be anywhere.
std::string line_legend(const ComparisonPicture& picture) {
    std::string who;
    for (const BreakEven& curve : picture.break_evens) {
        who += fmt::format("{}{} {}", who.empty() ? "" : ", ", curve.jobs, multihull::to_string(curve.way));
    }
    return who + ":  ━━ one map   ╍╍ a future each";
}

std::string right_panel(const ComparisonPicture& picture, const Colours& colours) {
    std::string script;
    std::string plots;
    std::string marks;
    double highest = 1;
    double smallest = 1e30, largest = 0;
    for (std::size_t i = 0; i < picture.break_evens.size(); ++i) {
        const BreakEven& curve = picture.break_evens[i];
        script += fmt::format("$curve{} << EOD\n", i);
        for (const BreakEven::Point& point : curve.points) {
            const double us = milliseconds(point.task) * 1000;
            script += fmt::format("{:.6g} {:.6g} {:.6g}\n", us, point.map, point.futures);
            highest = std::max({highest, point.map, point.futures});
            smallest = std::min(smallest, us);
            largest = std::max(largest, us);
        }
        script += "EOD\n";
        const char* const colour = colour_of(curve.way, colours);
        plots += fmt::format(
            ", $curve{0} using 1:2 with linespoints lw 2.5 pt 7 ps 0.55 lc rgb '{1}' notitle"
            ", $curve{0} using 1:3 with linespoints lw 2 dt 2 pt 6 ps 0.55 lc rgb '{1}' notitle",
            i, colour);
        for (const auto& from : {curve.map(), curve.futures()}) {
            if (from && *from > curve.points.front().task) {
                marks += fmt::format("{:.6g} 1 0x{}\n", milliseconds(*from) * 1000, colour + 1);
            }
        }
    }
    if (!marks.empty()) {
        script += "$marks << EOD\n" + marks + "EOD\n";
        plots += ", $marks using 1:2:3 with points pt 7 ps 1.3 lc rgb variable notitle";
    }
    script +=
        fmt::format("unset label\nunset title\nset xrange [{:.6g}:{:.6g}]\nset yrange [0:{:.6g}]\nset logscale x\n",
                    smallest * 0.8, largest * 1.25, std::max(highest * 1.12, 1.3));
    script +=
        "set xtics ('100 ns' 0.1, '1 us' 1, '10 us' 10, '100 us' 100, '1 ms' 1000)\n"
        "set xlabel 'what one task takes by itself' offset 0,0.3\nset ylabel 'times as fast as a plain loop'\n";
    script += fmt::format(
        "set label {0} at screen 0.985,0.885 right tc rgb '{2}'\n"
        "set object 1 rectangle from graph 0,0 to graph 1,first 1 behind fc rgb '{1}' fillstyle solid noborder\n"
        "set label 'slower than a plain loop' at graph 0.985,graph 0.045 right tc rgb '{2}'\n",
        in_quotes(line_legend(picture)), colours.shade, colours.faint);
    return script + fmt::format("plot 1 with lines lw 1.2 lc rgb '{}' notitle{}\n", colours.faint, plots);
}

std::string terminal(PictureFormat format, bool two_panels, const Colours& colours) {
    const char* const kind = format == PictureFormat::svg ? "svg dynamic" : "pngcairo pointscale 2";
    const char* const font =
        format == PictureFormat::svg ? "system-ui, Segoe UI, DejaVu Sans, sans-serif" : "DejaVu Sans";
    // PNG at twice the pixels: it is looked at on dense screens, too.
    const double scale = format == PictureFormat::svg ? 1 : 2;
    return fmt::format(
        "set terminal {} noenhanced size {:g},{:g} font '{},{}' fontscale {:g} linewidth {:g} background rgb '{}'\n",
        kind, (two_panels ? 1120 : 620) * scale, 460 * scale, font, format == PictureFormat::svg ? 13 : 10, scale,
        scale, colours.background);
}

}    // namespace

std::string plot_script(const ComparisonPicture& picture, PictureFormat format, Theme theme) {
    const Colours& colours = theme == Theme::dark ? kDark : kLight;
    const bool two = !picture.break_evens.empty();
    std::string script = "set encoding utf8\n" + terminal(format, two, colours) + style(colours);
    script += fmt::format("set label 1001 {} at screen 0.012,0.945 left tc rgb '{}' font ',{}'\n",
                          in_quotes(picture.title), colours.text, format == PictureFormat::svg ? 17 : 13);
    script += fmt::format("set label 1002 {} at screen 0.012,0.885 left tc rgb '{}'\n", in_quotes(picture.subtitle),
                          colours.faint);
    script += legend(picture, colours);
    script += fmt::format("set multiplot\nset tmargin at screen {}\nset bmargin at screen 0.15\n", two ? 0.83 : 0.77);
    script += fmt::format("set lmargin at screen {}\nset rmargin at screen {}\n", two ? 0.07 : 0.11, two ? 0.46 : 0.98);
    script += left_panel(picture, colours);
    if (two) {
        script += "set lmargin at screen 0.545\nset rmargin at screen 0.985\n";
        script += right_panel(picture, colours);
    }
    return script + "unset multiplot\n";
}

}    // namespace app
