// What a comparison comes to, in sentences.
#pragma once

#include <multihull/compare.hpp>

#include <cstddef>
#include <string>
#include <vector>

namespace app {

/// "1 thread", "4 processes".
std::string jobs_text(std::size_t jobs, multihull::Prefer way);

/// Lines of text. `comparison` is complete, and has a plain loop as its first way.
std::string conclusion(const multihull::Comparison& comparison, const std::vector<multihull::BreakEven>& break_evens);

}    // namespace app
