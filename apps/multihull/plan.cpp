#include "plan.hpp"

#include "failure.hpp"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cctype>
#include <cerrno>
#include <set>
#include <string_view>
#include <system_error>
#include <unordered_set>
#include <utility>

namespace app {

namespace fs = std::filesystem;

namespace {

constexpr std::size_t kLongestStem = 200;    // bytes, so that what is added stays below the 255 that file systems allow

/// What a folder is searched for. A file that is named by the user is tried whatever its name.
bool looks_like_image(const fs::path& path) {
    constexpr std::array<std::string_view, 18> kEndings{".avif", ".bmp", ".gif", ".heic", ".heif", ".jfif",
                                                        ".jp2",  ".jpe", ".jpg", ".jpeg", ".jxl",  ".pgm",
                                                        ".png",  ".ppm", ".svg", ".tif",  ".tiff", ".webp"};
    std::string ending = path.extension().string();
    std::ranges::transform(ending, ending.begin(), [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
    return std::ranges::find(kEndings, ending) != kEndings.end();
}

std::string absolute_key(const fs::path& path) {
    fs::path whole = fs::absolute(path).lexically_normal();
    return whole.has_filename() ? whole.native() : whole.parent_path().native();
}

bool same_place(const fs::path& one, const fs::path& other) {
    std::error_code ignored;
    return fs::equivalent(one, other, ignored);
}

/// Collects the inputs.
class Search {
public:
    Search(bool recursive, const fs::path& output) : recursive_(recursive), output_(output) {}

    void add_named(const fs::path& path) {
        std::error_code error;
        const fs::file_status status = fs::status(path, error);
        if (status.type() == fs::file_type::not_found) {
            throw EnvironmentError(fmt::format("There is no file or folder '{}'.", path.native()));
        }
        if (status.type() == fs::file_type::none) {
            throw EnvironmentError(fmt::format("Cannot look at '{}': {}.", path.native(), error.message()));
        }
        if (fs::is_directory(status)) {
            const std::size_t before = found.size() + failures.size();
            if (std::string reason = add_folder(path); !reason.empty()) {
                throw EnvironmentError(fmt::format("Cannot read the folder '{}': {}.", path.native(), reason));
            }
            if (found.size() + failures.size() == before && !saw_duplicate_) {
                throw EnvironmentError(fmt::format("There is no image in the folder '{}'{}.", path.native(),
                                                   recursive_ ? ""
                                                              : " (its subfolders are searched with --recursive)"));
            }
        } else {
            add_file(path);
        }
    }

    std::vector<fs::path> found;
    std::vector<Failure> failures;

private:
    void add_file(const fs::path& path) {
        if (seen_.insert(absolute_key(path)).second) {
            found.push_back(path);
        } else {
            saw_duplicate_ = true;
        }
    }

    /// Returns why the folder can't be read; empty where it can.
    std::string add_folder(const fs::path& folder) {
        if (same_place(folder, output_)) {
            if (found.empty() && !inside_) {
                throw EnvironmentError(fmt::format(
                    "The output folder '{}' is an input, too; thumbnails need one of their own.", folder.native()));
            }
            return {};    // met on the way: thumbnails are not made of thumbnails
        }
        std::error_code error;
        std::vector<fs::directory_entry> entries;
        for (auto entry = fs::directory_iterator(folder, error); !error && entry != fs::directory_iterator();
             entry.increment(error)) {
            if (!entry->path().filename().native().starts_with('.')) {
                entries.push_back(*entry);
            }
        }
        if (error) {
            return error.message();
        }
        std::ranges::sort(entries, {}, [](const fs::directory_entry& entry) { return entry.path(); });
        for (const fs::directory_entry& entry : entries) {
            add_entry(entry);
        }
        return {};
    }

    void add_entry(const fs::directory_entry& entry) {
        std::error_code ignored;
        if (entry.is_directory(ignored)) {
            // A link to a folder is not followed: it may lead back here.
            if (recursive_ && !entry.is_symlink(ignored)) {
                const bool outer = std::exchange(inside_, true);
                if (std::string reason = add_folder(entry.path()); !reason.empty()) {
                    failures.push_back({.input = entry.path(), .reason = "unreadable folder: " + reason});
                }
                inside_ = outer;
            }
        } else if (looks_like_image(entry.path()) && !entry.is_other(ignored)) {
            add_file(entry.path());    // a link to nothing among them, so that the user hears of it
        }
    }

    const bool recursive_;
    const fs::path output_;
    std::unordered_set<std::string> seen_;
    bool inside_ = false;
    bool saw_duplicate_ = false;
};

/// Cuts at the beginning of a UTF-8 character.
std::string shortened(std::string text) {
    if (text.size() > kLongestStem) {
        std::size_t end = kLongestStem;
        while (end > 0 && (static_cast<unsigned char>(text[end]) & 0xC0U) == 0x80U) {
            --end;
        }
        text.resize(end);
    }
    return text;
}

/// Gives each input a file name in the output folder that no other has.
class Names {
public:
    Names(const fs::path& folder, std::string ending, const Manifest& manifest)
        : folder_(folder), ending_(std::move(ending)), manifest_(manifest) {}

    /// The name that the input had before, and keeps.
    std::optional<std::string> keep(const std::string& key) {
        std::optional<std::string> name = manifest_.name_for(key, ending_);
        if (name && !taken_.insert(*name).second) {
            name.reset();
        }
        return name;
    }

    /// A free one: the input's own, or that with its ending, its folder or a number added.
    std::string choose(const fs::path& input) {
        const std::string stem = shortened(input.stem().native());
        const fs::path parent = fs::absolute(input).lexically_normal().parent_path().filename();
        std::string with_kind = stem;
        if (input.has_extension()) {
            with_kind += "-" + shortened(input.extension().native().substr(1));
        }
        const std::array candidates{stem, with_kind, shortened(parent.native() + "-" + stem),
                                    shortened(parent.native() + "-" + with_kind)};
        for (const std::string& candidate : candidates) {
            if (take(candidate + ending_)) {
                return candidate + ending_;
            }
        }
        for (int number = 2;; ++number) {
            std::string name = fmt::format("{}-{}{}", stem, number, ending_);
            if (take(name)) {
                return name;
            }
        }
    }

private:
    bool take(const std::string& name) {
        if (taken_.contains(name)) {
            return false;
        }
        std::error_code ignored;
        if (const ManifestEntry* entry = manifest_.find(name)) {
            if (fs::exists(entry->input, ignored)) {
                return false;    // another input's, even if it is not part of this run
            }
        } else if (fs::exists(fs::symlink_status(folder_ / name, ignored))) {
            return false;    // not made by this program
        }
        taken_.insert(name);
        return true;
    }

    const fs::path& folder_;
    const std::string ending_;
    const Manifest& manifest_;
    std::set<std::string> taken_;
};

}    // namespace

std::string Parameters::to_string() const { return fmt::format("{}x{} blur={:g} {}", width, height, blur, format); }

bool is_up_to_date(const Item& item, const Parameters& parameters, const Manifest& manifest) {
    const ManifestEntry* entry = manifest.find(item.output.filename().native());
    return entry != nullptr && entry->parameters == parameters.to_string() && entry->input == item.key &&
           entry->input_stamp == item.stamp && stamp_of(item.output) == std::optional(entry->output_stamp);
}

Plan make_plan(const std::vector<fs::path>& inputs, bool recursive, const fs::path& folder,
               const Parameters& parameters, const Manifest& manifest) {
    Search search(recursive, folder);
    for (const fs::path& input : inputs) {
        search.add_named(input);
    }
    Names names(folder, "." + parameters.format, manifest);
    Plan plan{.items = {}, .failures = std::move(search.failures)};
    for (fs::path& input : search.found) {
        std::string key = absolute_key(input);
        const std::string kept = names.keep(key).value_or("");
        plan.items.push_back({.input = std::move(input),
                              .output = kept.empty() ? fs::path() : folder / kept,
                              .key = std::move(key),
                              .stamp = {},
                              .up_to_date = false});
    }
    for (Item& item : plan.items) {
        if (item.output.empty()) {
            item.output = folder / names.choose(item.input);
        }
        item.stamp = stamp_of(item.input).value_or(Stamp{});
        item.up_to_date = is_up_to_date(item, parameters, manifest);
    }
    return plan;
}

}    // namespace app
