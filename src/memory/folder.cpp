#include "memory/folder.hpp"

#include "memory/xxh3.hpp"
#include "os/new_file.hpp"

#include <multihull/detail/memory_store.hpp>
#include <multihull/error.hpp>

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <cstring>
#include <dirent.h>
#include <fcntl.h>
#include <memory>
#include <string_view>
#include <sys/stat.h>
#include <system_error>
#include <unistd.h>
#include <vector>

namespace multihull::detail {

namespace {

constexpr const char* kMarker = "CACHEDIR.TAG";
// The first line is what backup programs look for; the second is ours.
constexpr std::string_view kMarkerText =
    "Signature: 8a477f597d28d172789f06886806bc55\n"
    "# Results kept by multihull::Memory. They can be removed at any time.\n";

std::string why() { return std::generic_category().message(errno); }

// Never through a symbolic link, except above a cache's own folder.
os::Fd open_folder(int parent, const char* name, int flags = O_NOFOLLOW) {
    return os::Fd(::openat(parent, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC | flags));
}

struct CloseFolder {
    void operator()(DIR* folder) const noexcept { ::closedir(folder); }
};

// Names in a folder, but for "." and "..".
std::vector<std::string> names_in(int folder) {
    std::vector<std::string> names;
    const int copy = ::openat(folder, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    const std::unique_ptr<DIR, CloseFolder> stream(copy < 0 ? nullptr : ::fdopendir(copy));
    if (stream == nullptr) os::throw_errno("looking into a folder");
    for (;;) {
        errno = 0;
        const dirent* const entry = ::readdir(stream.get());
        if (entry == nullptr) break;
        const std::string_view name(entry->d_name);
        if (name != "." && name != "..") names.emplace_back(name);
    }
    if (errno != 0) os::throw_errno("looking into a folder");
    return names;
}

bool is_marked(int folder) {
    const os::Fd file(::openat(folder, kMarker, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK));
    if (!file) return false;
    char text[kMarkerText.size()];
    const ssize_t size = ::read(file.get(), text, sizeof text);
    return size == static_cast<ssize_t>(sizeof text) && std::string_view(text, sizeof text) == kMarkerText;
}

bool belongs_to_marker(const std::string& name) {
    return name == kMarker || (os::is_temporary_name(name.c_str()) && name.find(kMarker) != name.npos);
}

[[noreturn]] void refuse_foreign(const std::string& path) {
    throw Error("The folder " + path +
                " is not a cache of Multihull's: it holds other files, and no CACHEDIR.TAG of a Memory. Name a folder "
                "that is empty or does not exist yet.");
}

void mark(int folder, const std::string& path) {
    if (is_marked(folder)) return;
    const auto names = names_in(folder);
    // Another process may have marked it meanwhile, and begun to use it.
    if (is_marked(folder)) return;
    if (!std::all_of(names.begin(), names.end(), belongs_to_marker) ||
        std::find(names.begin(), names.end(), kMarker) != names.end()) {
        refuse_foreign(path);
    }
    os::NewFile file(folder, kMarker);
    file.write(std::as_bytes(std::span(kMarkerText)));
    file.publish();
}

void make_folders(const std::string& path) {
    if (::mkdir(path.c_str(), 0777) == 0 || errno == EEXIST) return;
    const std::size_t slash = path.rfind('/');
    if (errno == ENOENT && slash != path.npos && slash != 0) {
        make_folders(path.substr(0, slash));
        if (::mkdir(path.c_str(), 0777) == 0 || errno == EEXIST) return;
    }
    os::throw_errno("making a folder");
}

bool is_entry(const std::string& name) {
    return name.size() == 32 + std::strlen(kEntrySuffix) && name.ends_with(kEntrySuffix);
}

// The cache's folder, to remove things from: empty where there is none.
os::Fd open_own(const std::string& path) {
    os::Fd root = open_folder(AT_FDCWD, path.c_str(), 0);
    if (!root) {
        if (errno == ENOENT) return root;
        throw Error("The cache " + path + " can't be opened: " + why() + ".");
    }
    if (!is_marked(root.get())) {
        if (names_in(root.get()).empty()) return {};
        refuse_foreign(path);
    }
    return root;
}

void remove_name(int folder, const std::string& name, const std::string& path) {
    if (::unlinkat(folder, name.c_str(), 0) == 0 || errno == ENOENT) return;
    throw Error("The kept result " + name + " in " + path + " can't be removed: " + why() +
                ". Check who may write to the folder.");
}

void clear_function(int root, const std::string& folder_name, const std::string& path) {
    const os::Fd folder = open_folder(root, folder_name.c_str());
    if (!folder) return;    // not a folder, or gone
    for (const auto& name : names_in(folder.get())) {
        if (is_entry(name)) {
            remove_name(folder.get(), name, path);
        } else if (os::is_temporary_name(name.c_str())) {
            os::sweep_temporary(folder.get(), name.c_str());
        }
    }
    // The folder stays: who is about to write a result into it would lose it to one who clears again and again.
}

struct Found {
    std::size_t folder;
    std::string name;
    std::uint64_t bytes;
    std::int64_t used;    // nanoseconds since 1970
};

std::int64_t nanoseconds_of(const timespec& time) noexcept {
    return static_cast<std::int64_t>(time.tv_sec) * 1'000'000'000 + time.tv_nsec;
}

}    // namespace

void make_cache_folder(const std::string& path) {
    make_folders(path);
    const os::Fd folder = open_folder(AT_FDCWD, path.c_str(), 0);
    if (!folder) {
        if (errno == ENOTDIR) {
            throw Error("The cache " + path + " can't be made: there is a file of that name. Name a folder.");
        }
        os::throw_errno("opening a folder");
    }
    mark(folder.get(), path);
}

os::Fd open_function_folder(const std::string& path, const std::string& folder) {
    const std::string whole = path + '/' + folder;
    os::Fd opened = open_folder(AT_FDCWD, whole.c_str());
    if (opened || errno != ENOENT) {
        if (!opened) os::throw_errno("opening a folder");
        return opened;
    }
    make_cache_folder(path);
    if (::mkdir(whole.c_str(), 0777) != 0 && errno != EEXIST) os::throw_errno("making a folder");
    opened = open_folder(AT_FDCWD, whole.c_str());
    if (!opened) os::throw_errno("opening a folder");
    return opened;
}

void clear_cache_folder(const std::string& path, const std::string* folder) {
    const os::Fd root = open_own(path);
    if (!root) return;
    if (folder != nullptr) {
        clear_function(root.get(), *folder, path);
        return;
    }
    for (const auto& name : names_in(root.get())) {
        if (os::is_temporary_name(name.c_str())) {
            os::sweep_temporary(root.get(), name.c_str());
        } else if (!name.starts_with('.')) {
            clear_function(root.get(), name, path);
        }
    }
}

std::size_t reduce_cache_folder(const std::string& path, const ReduceLimits& limits) {
    const os::Fd root = open_own(path);
    if (!root) return 0;
    std::vector<os::Fd> folders;
    std::vector<Found> found;
    std::uint64_t bytes = 0;
    for (const auto& folder_name : names_in(root.get())) {
        if (folder_name.starts_with('.')) continue;
        os::Fd folder = open_folder(root.get(), folder_name.c_str());
        if (!folder) continue;
        const std::size_t before = found.size();
        for (auto& name : names_in(folder.get())) {
            if (os::is_temporary_name(name.c_str())) os::sweep_temporary(folder.get(), name.c_str());
            struct stat status {};
            if (!is_entry(name) || ::fstatat(folder.get(), name.c_str(), &status, AT_SYMLINK_NOFOLLOW) != 0) continue;
            bytes += static_cast<std::uint64_t>(status.st_size);
            found.push_back({folders.size(), std::move(name), static_cast<std::uint64_t>(status.st_size),
                             nanoseconds_of(status.st_atim)});
        }
        if (found.size() != before) folders.push_back(std::move(folder));
    }
    std::sort(found.begin(), found.end(), [](const Found& a, const Found& b) { return a.used < b.used; });
    timespec now{};
    ::clock_gettime(CLOCK_REALTIME, &now);
    std::size_t removed = 0;
    for (const Found& entry : found) {
        const bool too_old = limits.age && nanoseconds_of(now) - entry.used > limits.age->count();
        const bool too_many = limits.items && found.size() - removed > *limits.items;
        const bool too_big = limits.bytes && bytes > *limits.bytes;
        if (!too_old && !too_many && !too_big) break;
        remove_name(folders[entry.folder].get(), entry.name, path);
        bytes -= entry.bytes;
        ++removed;
    }
    return removed;
}

std::string Store::folder_of(const std::string& function) {
    // For people to read, so as far as possible the name; the hash tells apart what looks the same then.
    std::string folder;
    for (const char c : function.substr(0, 64)) {
        const bool plain =
            (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' || c == '-';
        folder += plain ? c : '_';
    }
    static constexpr char kDigits[] = "0123456789abcdef";
    folder += '-';
    const std::uint64_t hash = XXH3_64bits(function.data(), function.size());
    for (int shift = 28; shift >= 0; shift -= 4) folder += kDigits[hash >> shift & 15];
    return folder;
}

}    // namespace multihull::detail
