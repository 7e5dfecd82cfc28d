// The page that shows a trace in a browser: trace_page.html, which the build makes a string of.
#pragma once

#include <string_view>

namespace multihull::detail {

/// Stands where the page wants its data: JSON, in which `<` is escaped.
inline constexpr std::string_view kTracePlace = "@TRACE@";
extern const std::string_view kTracePage;

}    // namespace multihull::detail
