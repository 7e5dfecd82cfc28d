// The dashboard's page, which CMake makes a string of: dashboard_page.html.
#pragma once

#include <string_view>

namespace app {

/// The page. Where it says NONCE, a word must come that the policy of the same answer names.
extern const std::string_view kDashboardPage;

}    // namespace app
