#include "progress.hpp"

#include <algorithm>

namespace app {

std::string printable(std::string text) {
    std::ranges::replace_if(
        text, [](unsigned char c) { return c < 0x20 || c == 0x7F; }, '?');
    return text;
}

}    // namespace app
