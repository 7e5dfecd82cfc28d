// Small things that every user of libvips here needs. For files that run in workers only.
#pragma once

#include <vips/vips8>

#include <string>

namespace app {

/// libvips's message as one line, without its repetitions; throws std::bad_alloc where it says that memory is short.
std::string one_line(const vips::VError& error);

/// The image as bytes of a JPEG, PNG or WebP file, by the ending of the name, without metadata, then written whole.
/// Returns an empty string, or why the system refused.
std::string save_image(const vips::VImage& image, const std::string& temporary, const std::string& path);

}    // namespace app
