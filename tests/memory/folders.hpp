// What the tests of files share: a folder that goes with the test, what lies in it, and what was said in the log.
#pragma once

#include "support/folder.hpp"

#include <multihull/error.hpp>
#include <multihull/log.hpp>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <fcntl.h>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <mutex>
#include <stdexcept>
#include <string>
#include <string_view>
#include <sys/stat.h>
#include <utility>
#include <vector>

namespace test {

/// Catches what the library says while it lives.
class Log {
public:
    Log() {
        multihull::set_log_sink([this](multihull::LogLevel, std::string_view line) {
            const std::lock_guard guard(mutex_);
            lines_.emplace_back(line);
        });
    }
    Log(const Log&) = delete;
    Log& operator=(const Log&) = delete;
    ~Log() { multihull::set_log_sink({}); }

    /// What was said since the last look.
    std::vector<std::string> take() {
        const std::lock_guard guard(mutex_);
        return std::exchange(lines_, {});
    }
    std::vector<std::string> lines() const {
        const std::lock_guard guard(mutex_);
        return lines_;
    }

private:
    mutable std::mutex mutex_;
    std::vector<std::string> lines_;
};

/// The text of the library's error that the function throws; empty where it throws none.
template <class Function>
std::string error_of(Function function) {
    try {
        function();
    } catch (const multihull::Error& error) {
        return error.what();
    }
    return {};
}

inline std::vector<std::filesystem::path> files_in(const std::filesystem::path& folder) {
    std::vector<std::filesystem::path> files;
    if (!std::filesystem::exists(folder)) return files;
    for (const auto& entry : std::filesystem::recursive_directory_iterator(folder)) {
        if (!entry.is_directory()) files.push_back(entry.path());
    }
    return files;
}

/// The results that are kept below a folder.
inline std::vector<std::filesystem::path> entries_in(const std::filesystem::path& folder) {
    auto files = files_in(folder);
    std::erase_if(files, [](const auto& file) { return file.extension() != ".entry"; });
    return files;
}

/// Files of a cache that are neither results nor belong there always.
inline std::vector<std::filesystem::path> leftovers_in(const std::filesystem::path& cache) {
    auto files = files_in(cache);
    std::erase_if(files, [](const auto& file) {
        return file.extension() == ".entry" || file.filename() == "CACHEDIR.TAG" || file.filename() == ".locks";
    });
    return files;
}

inline std::filesystem::path newest_entry(const std::filesystem::path& folder) {
    const auto all = entries_in(folder);
    const auto time = [](const auto& file) {
        struct stat status {};
        ::stat(file.c_str(), &status);
        return std::pair(status.st_mtim.tv_sec, status.st_mtim.tv_nsec);
    };
    return *std::max_element(all.begin(), all.end(), [&](const auto& a, const auto& b) { return time(a) < time(b); });
}

/// Makes a file look as if it was used so long ago, and written long before.
inline void set_used(const std::filesystem::path& file, std::chrono::seconds ago) {
    timespec times[2] = {{std::time(nullptr) - ago.count(), 0}, {0, 0}};
    if (::utimensat(AT_FDCWD, file.c_str(), times, 0) != 0) throw std::runtime_error("a file's times can't be set");
}

inline std::string read_file(const std::filesystem::path& file) {
    std::ifstream in(file, std::ios::binary);
    return {std::istreambuf_iterator<char>(in), {}};
}
inline void write_file(const std::filesystem::path& file, std::string_view text) {
    std::ofstream(file, std::ios::binary) << text;
}

/// Whether the address lies in a mapping of a file with a result.
inline bool is_mapped(const void* address) {
    std::ifstream maps("/proc/self/maps");
    for (std::string line; std::getline(maps, line);) {
        std::uintptr_t begin = 0;
        std::uintptr_t end = 0;
        if (std::sscanf(line.c_str(), "%lx-%lx", &begin, &end) != 2) continue;
        const auto at = reinterpret_cast<std::uintptr_t>(address);
        if (begin <= at && at < end)
            return line.find(".entry") != line.npos || line.find(".dump") != line.npos ||
                   line.find("deleted") != line.npos;
    }
    return false;
}

}    // namespace test
