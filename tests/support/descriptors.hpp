// Which descriptors this process has open, so that a test can tell when one is left.
#pragma once

#include <cstddef>
#include <filesystem>
#include <iterator>

namespace test {

inline std::size_t open_descriptors() {
    const std::filesystem::directory_iterator all("/proc/self/fd");
    return static_cast<std::size_t>(std::distance(begin(all), end(all))) - 1;    // the listing's own
}

}    // namespace test
