#include "output_file.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <cerrno>
#include <charconv>
#include <csignal>
#include <optional>
#include <string_view>
#include <system_error>

namespace app {

namespace fs = std::filesystem;

namespace {

constexpr std::string_view kPrefix = ".multihull-";
constexpr std::string_view kSuffix = ".tmp";

std::string reason(int error) { return std::generic_category().message(error); }

/// The process whose unfinished file this is: `.multihull-PID-INDEX.tmp`.
std::optional<pid_t> owner_of(std::string_view name) {
    if (!name.starts_with(kPrefix) || !name.ends_with(kSuffix)) {
        return std::nullopt;
    }
    pid_t owner = 0;
    const char* begin = name.data() + kPrefix.size();
    const auto [end, error] = std::from_chars(begin, name.data() + name.size(), owner);
    if (error != std::errc{} || *end != '-' || owner <= 0) {
        return std::nullopt;
    }
    return owner;
}

/// An unfinished file can only be in the way of nothing, so that trouble here is nobody's concern.
template <class Condition>
void remove_temporaries(const fs::path& folder, Condition wanted) noexcept {
    try {
        std::error_code ignored;
        for (auto entry = fs::directory_iterator(folder, ignored); entry != fs::directory_iterator();
             entry.increment(ignored)) {
            const std::optional<pid_t> owner = owner_of(entry->path().filename().native());
            if (owner && wanted(*owner)) {
                std::error_code gone;
                fs::remove_all(entry->path(), gone);
            }
        }
    } catch (...) {}
}

}    // namespace

fs::path temporary_name(const fs::path& folder, std::size_t index) {
    return folder / fmt::format("{}{}-{}{}", kPrefix, getpid(), index, kSuffix);
}

std::string write_whole(const std::string& temporary, const std::string& path, std::span<const std::byte> content) {
    const int file = ::open(temporary.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    if (file < 0) {
        return reason(errno);
    }
    int error = 0;
    while (!content.empty() && error == 0) {
        const ssize_t written = ::write(file, content.data(), content.size());
        if (written >= 0) {
            content = content.subspan(static_cast<std::size_t>(written));
        } else if (errno != EINTR) {
            error = errno;
        }
    }
    // Network file systems tell only here that there was no room.
    if (::close(file) != 0 && error == 0) {
        error = errno;
    }
    if (error == 0 && ::rename(temporary.c_str(), path.c_str()) != 0) {
        error = errno;
    }
    if (error != 0) {
        ::unlink(temporary.c_str());
        return reason(error);
    }
    return {};
}

void remove_own_temporaries(const fs::path& folder) noexcept {
    remove_temporaries(folder, [](pid_t owner) { return owner == getpid(); });
}

void remove_stale_temporaries(const fs::path& folder) noexcept {
    // A number of our own is as stale: whatever ran under it before this run is gone.
    remove_temporaries(folder,
                       [](pid_t owner) { return owner == getpid() || (::kill(owner, 0) != 0 && errno == ESRCH); });
}

}    // namespace app
