#include "vips_support.hpp"

#include "output_file.hpp"

#include <cstddef>
#include <filesystem>
#include <memory>
#include <new>
#include <span>
#include <string_view>

namespace app {

using vips::VError;
using vips::VImage;
using vips::VOption;

std::string one_line(const VError& error) {
    std::string_view text = error.what();
    // What happened first is the cause; the lines after it are about those who were waiting for it.
    while (!text.empty() && (text.front() == '\n' || text.front() == ' ')) {
        text.remove_prefix(1);
    }
    if (text.find("ut of memory") != std::string_view::npos) {    // with a capital, too
        throw std::bad_alloc();
    }
    text = text.substr(0, text.find('\n'));
    return text.empty() ? "libvips can't read it" : std::string(text);
}

std::string save_image(const VImage& image, const std::string& temporary, const std::string& path) {
    const std::string ending = std::filesystem::path(path).extension().string();
    // White shows where a picture with transparent parts becomes a JPEG, which has none.
    VOption* options = VImage::option()->set("strip", true)->set("background", 255.0);
    void* bytes = nullptr;
    std::size_t size = 0;
    image.write_to_buffer(ending.c_str(), &bytes, &size, options);
    const std::unique_ptr<void, decltype(&g_free)> owner(bytes, g_free);
    return write_whole(temporary, path, std::span(static_cast<const std::byte*>(bytes), size));
}

}    // namespace app
