// What the output folder knows of its thumbnails: which file each was made from, in which state, with which parameters.
//
// The file `.multihull-thumbnails` in that folder: one line for each thing learnt, only ever added to, the last line about a
// thumbnail being the one that counts. So a run that is killed loses at most its last line. docs/thumbnails.md has the format.
//
// Not thread-safe: the main thread alone uses it.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

namespace app {

/// A file's time of change and size: whether it is still the one that was seen.
struct Stamp {
    std::int64_t modified = 0;    ///< Nanoseconds since 1970.
    std::int64_t size = 0;

    bool operator==(const Stamp&) const = default;
};

/// The file's stamp; nothing where there is no such file.
std::optional<Stamp> stamp_of(const std::filesystem::path& path);

/// What is known of one thumbnail.
struct ManifestEntry {
    std::string input;     ///< Absolute path of the file it belongs to.
    Stamp input_stamp;     ///< The input when the thumbnail was made.
    Stamp output_stamp;    ///< The thumbnail itself, so that one that was replaced by hand is noticed.
    std::string
        parameters;    ///< Size, blur and format; empty for a name that is taken but whose thumbnail is not made yet.
};

/// The manifest of one output folder, read when it is opened.
class Manifest {
public:
    explicit Manifest(const std::filesystem::path& folder);

    /// What is known of the thumbnail with this file name; null where nothing is.
    const ManifestEntry* find(const std::string& name) const;
    /// The file name that this input's thumbnail with this ending has had until now.
    std::optional<std::string> name_for(const std::string& input, const std::string& ending) const;
    /// Adds what is known now. Returns an empty string, or why it could not be written.
    std::string record(const std::string& name, const ManifestEntry& entry);

private:
    void remember(const std::string& name, ManifestEntry entry);
    void shorten() const;

    std::filesystem::path path_;
    std::map<std::string, ManifestEntry> entries_;
    std::map<std::pair<std::string, std::string>, std::string> names_;    // (input, ending) to name
};

}    // namespace app
