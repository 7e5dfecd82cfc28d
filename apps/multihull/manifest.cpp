#include "manifest.hpp"

#include "output_file.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <fstream>
#include <span>
#include <system_error>
#include <vector>

namespace app {

namespace fs = std::filesystem;

namespace {

constexpr std::string_view kFileName = ".multihull-thumbnails";
constexpr std::size_t kFields = 7;

/// A field in which no tab and no line's end is left.
std::string escaped(std::string_view text) {
    std::string result;
    for (const char c : text) {
        switch (c) {
            case '\\':
                result += "\\\\";
                break;
            case '\t':
                result += "\\t";
                break;
            case '\n':
                result += "\\n";
                break;
            default:
                result += c;
        }
    }
    return result;
}

std::string unescaped(std::string_view text) {
    std::string result;
    for (std::size_t i = 0; i < text.size(); ++i) {
        if (text[i] == '\\' && i + 1 < text.size()) {
            const char c = text[++i];
            result += c == 't' ? '\t' : c == 'n' ? '\n' : c;
        } else {
            result += text[i];
        }
    }
    return result;
}

std::optional<std::int64_t> number(std::string_view text) {
    std::int64_t value = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    return error == std::errc{} && end == text.data() + text.size() ? std::optional(value) : std::nullopt;
}

std::string to_line(const std::string& name, const ManifestEntry& entry) {
    return fmt::format("{}\t{}\t{}\t{}\t{}\t{}\t{}\n", escaped(name), escaped(entry.input), entry.input_stamp.modified,
                       entry.input_stamp.size, entry.output_stamp.modified, entry.output_stamp.size, entry.parameters);
}

/// Nothing for a line that was cut short or damaged: its thumbnail is then made again.
std::optional<std::pair<std::string, ManifestEntry>> from_line(std::string_view line) {
    std::vector<std::string_view> fields;
    for (std::size_t begin = 0; begin <= line.size();) {
        const std::size_t end = std::min(line.find('\t', begin), line.size());
        fields.push_back(line.substr(begin, end - begin));
        begin = end + 1;
    }
    if (fields.size() != kFields || fields[0].empty()) {
        return std::nullopt;
    }
    const auto input_modified = number(fields[2]), input_size = number(fields[3]);
    const auto output_modified = number(fields[4]), output_size = number(fields[5]);
    if (!input_modified || !input_size || !output_modified || !output_size) {
        return std::nullopt;
    }
    return std::pair(unescaped(fields[0]), ManifestEntry{.input = unescaped(fields[1]),
                                                         .input_stamp = {*input_modified, *input_size},
                                                         .output_stamp = {*output_modified, *output_size},
                                                         .parameters = std::string(fields[6])});
}

}    // namespace

std::optional<Stamp> stamp_of(const fs::path& path) {
    struct stat status {};
    if (::stat(path.c_str(), &status) != 0) {
        return std::nullopt;
    }
    return Stamp{.modified = std::int64_t{status.st_mtim.tv_sec} * 1'000'000'000 + status.st_mtim.tv_nsec,
                 .size = std::int64_t{status.st_size}};
}

Manifest::Manifest(const fs::path& folder) : path_(folder / kFileName) {
    std::ifstream file(path_);
    std::size_t lines = 0;
    for (std::string line; std::getline(file, line); ++lines) {
        if (auto entry = from_line(line)) {
            remember(entry->first, std::move(entry->second));
        }
    }
    if (lines > 3 * entries_.size() + 100) {
        shorten();
    }
}

const ManifestEntry* Manifest::find(const std::string& name) const {
    const auto found = entries_.find(name);
    return found == entries_.end() ? nullptr : &found->second;
}

std::optional<std::string> Manifest::name_for(const std::string& input, const std::string& ending) const {
    const auto found = names_.find({input, ending});
    return found == names_.end() ? std::nullopt : std::optional(found->second);
}

std::string Manifest::record(const std::string& name, const ManifestEntry& entry) {
    const int file = ::open(path_.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666);
    if (file < 0) {
        return std::generic_category().message(errno);
    }
    const std::string line = to_line(name, entry);
    const ssize_t written = ::write(file, line.data(), line.size());
    const int error = written < 0 ? errno : ENOSPC;
    ::close(file);
    if (written != static_cast<ssize_t>(line.size())) {
        return std::generic_category().message(error);
    }
    remember(name, entry);
    return {};
}

void Manifest::remember(const std::string& name, ManifestEntry entry) {
    const std::string ending = fs::path(name).extension().native();
    if (const auto old = entries_.find(name); old != entries_.end()) {
        // The name may have gone to another input; the one before it has none then.
        const auto previous = names_.find({old->second.input, ending});
        if (previous != names_.end() && previous->second == name) {
            names_.erase(previous);
        }
    }
    names_[{entry.input, ending}] = name;
    entries_[name] = std::move(entry);
}

void Manifest::shorten() const {
    std::string content;
    for (const auto& [name, entry] : entries_) {
        content += to_line(name, entry);
    }
    // Where this fails, the long one stays and serves as well.
    write_whole(temporary_name(path_.parent_path(), 0), path_, std::as_bytes(std::span(content)));
}

}    // namespace app
