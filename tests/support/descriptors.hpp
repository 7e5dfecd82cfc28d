// Which descriptors this process has open, so that a test can tell when one is left.
#pragma once

#include <cstddef>
#include <filesystem>
#include <string>
#include <system_error>

namespace test {

/// All but pidfds: the forkserver makes itself a twin, whose pidfd comes when it comes.
inline std::size_t open_descriptors() {
    std::size_t count = 0;
    for (const auto& entry : std::filesystem::directory_iterator("/proc/self/fd")) {
        std::error_code gone;    // the listing's own
        const std::string target = std::filesystem::read_symlink(entry.path(), gone).string();
        if (!gone && target != "anon_inode:[pidfd]" && !target.ends_with("/fd")) ++count;
    }
    return count;
}

}    // namespace test
