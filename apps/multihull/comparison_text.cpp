#include "comparison_text.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <optional>

namespace app {

using multihull::BreakEven;
using multihull::ComparedWay;
using multihull::Comparison;
using multihull::Prefer;

namespace {

constexpr double kGain = 1.05;
// How far one thread may be from the plain loop, and from how much work on.
constexpr double kDoubt = 1.2;
constexpr std::chrono::milliseconds kEnough{20};

std::string pays_from(const BreakEven& found, const std::optional<std::chrono::nanoseconds>& size) {
    if (!size) {
        return "more than " + multihull::to_string(found.points.back().task);
    }
    const std::string text = multihull::to_string(*size);
    return *size == found.points.front().task ? "less than " + text : text;
}

std::string fastest(const Comparison& comparison) {
    const auto best = std::ranges::min_element(comparison.ways, {}, &ComparedWay::median);
    const double gain = comparison.speed_up(*best).value_or(1);
    if (best->way == Prefer::serial || gain < kGain) {
        return "Nothing was clearly faster than a plain loop: this work, at this size and on this machine, does not "
               "pay in "
               "parallel.\n";
    }
    return fmt::format("Fastest: {}, {:.2f} times as fast as a plain loop.\n", jobs_text(best->jobs, best->way), gain);
}

// What one thread takes other than the plain loop did is the machine's doing.
std::string doubt(const Comparison& comparison) {
    const auto one = std::ranges::find_if(comparison.ways, [](const ComparedWay& way) {
        return way.way == Prefer::threads && way.jobs == 1;
    });
    // Of less work, starting the thread is a part.
    if (one == comparison.ways.end() || comparison.ways.front().median() < kEnough) {
        return "";
    }
    const double factor = comparison.speed_up(*one).value_or(1);
    if (std::max(factor, 1 / factor) < kDoubt) {
        return "";
    }
    return fmt::format(
        "Do not trust these figures: one thread was {:.2f} times as fast as the loop, and does the same. Does "
        "something\n"
        "else run here? Otherwise measure more: --repeat, --items.\n",
        factor);
}

}    // namespace

std::string jobs_text(std::size_t jobs, Prefer way) {
    if (jobs == 1) {
        return way == Prefer::processes ? "1 process" : "1 thread";
    }
    return fmt::format("{} {}", jobs, multihull::to_string(way));
}

std::string conclusion(const Comparison& comparison, const std::vector<BreakEven>& break_evens) {
    std::string text = comparison.same_results.value_or(true) ? "Every way had the same results. "
                                                              : "THE RESULTS DIFFER from one way to another.\n";
    text +=
        fmt::format("One call takes {}.\n", multihull::to_string(comparison.ways.front().median() / comparison.items));
    text += fastest(comparison) + doubt(comparison);
    for (const BreakEven& found : break_evens) {
        text += fmt::format("A task pays in {} from {} on in a map, from {} on with a future for each.\n",
                            jobs_text(found.jobs, found.way), pays_from(found, found.map()),
                            pays_from(found, found.futures()));
    }
    return text;
}

}    // namespace app
