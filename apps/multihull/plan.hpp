// Which files become thumbnails, under which names, and which of them are there already.
#pragma once

#include "manifest.hpp"

#include <filesystem>
#include <string>
#include <vector>

namespace app {

/// What a thumbnail is like; a thumbnail that was made with others is made again.
struct Parameters {
    int width = 50;
    int height = 50;
    double blur = 0;
    std::string format = "jpg";

    /// As the manifest keeps it: `50x50 blur=0 jpg`.
    std::string to_string() const;
};

/// One input file and its thumbnail's place.
struct Item {
    std::filesystem::path input;    ///< As the user named it, for messages.
    std::filesystem::path output;
    std::string key;            ///< The input's absolute path, for the manifest.
    Stamp stamp;                ///< The input as it was before it was read.
    bool up_to_date = false;    ///< The thumbnail is there, made from this input with these parameters.
};

/// A file without a thumbnail, and why.
struct Failure {
    std::filesystem::path input;
    std::string reason;
};

/// The work of a run, in the order of the inputs, those of a folder by name.
struct Plan {
    std::vector<Item> items;
    std::vector<Failure> failures;    ///< Folders inside the given ones that can't be read.
};

/// Looks up every input. Throws EnvironmentError for one that is missing, that can't be read, or that holds no image.
///
/// Equal names get distinguishing ones: `photo.jpg`, `photo-png.jpg`, `holiday-photo.jpg`. An input keeps the name that the
/// manifest has for it, whatever else is there later, and a file that this program has not made is never written over.
Plan make_plan(const std::vector<std::filesystem::path>& inputs, bool recursive, const std::filesystem::path& folder,
               const Parameters& parameters, const Manifest& manifest);

/// Whether the item's thumbnail is there, made with these parameters from the input as the item has it.
bool is_up_to_date(const Item& item, const Parameters& parameters, const Manifest& manifest);

}    // namespace app
