#include "contact_sheet.hpp"

#include "vips_support.hpp"

#include <algorithm>
#include <cmath>

namespace app {

using vips::VError;
using vips::VImage;

namespace {

constexpr int kLongestSide = 8000;    // of a sheet, so that its memory stays below 200 MB
constexpr int kLargestCell = 320;
constexpr int kGap = 4;

/// Rows and columns of about the shape of a screen.
int columns_for(std::size_t count, int width, int height) {
    const double shape = 4.0 / 3.0 * height / width;
    const int columns = static_cast<int>(std::lround(std::ceil(std::sqrt(static_cast<double>(count) * shape))));
    return std::clamp(columns, 1, static_cast<int>(count));
}

/// A thumbnail in memory, with three bands of eight bits whatever it was; its file is closed again.
VImage cell(const std::string& path, int width, int height) {
    VImage image =
        VImage::thumbnail(path.c_str(), width, VImage::option()->set("height", height)->set("size", VIPS_SIZE_DOWN));
    if (image.has_alpha()) {
        image = image.flatten(VImage::option()->set("background", 255.0));
    }
    return image.colourspace(VIPS_INTERPRETATION_sRGB).cast(VIPS_FORMAT_UCHAR).copy_memory();
}

}    // namespace

JobResult make_contact_sheet(const SheetJob& job) {
    const int columns = columns_for(std::max<std::size_t>(job.thumbnails.size(), 1), job.width, job.height);
    const int rows = (static_cast<int>(job.thumbnails.size()) + columns - 1) / columns;
    const int side = std::max(1, std::min(kLargestCell, kLongestSide / std::max({columns, rows, 1}) - kGap));
    const int width = std::min(job.width, side);
    const int height = std::min(job.height, side);
    std::vector<VImage> cells;
    for (const std::string& path : job.thumbnails) {
        try {
            cells.push_back(cell(path, width, height));
        } catch (const VError&) {
            vips_error_clear();    // spoilt since it was made: it is left out
        }
    }
    if (cells.empty()) {
        return {.unreadable = "there is no thumbnail to show", .output_refused = {}};
    }
    try {
        const VImage sheet =
            VImage::arrayjoin(cells, VImage::option()
                                         ->set("across", std::min(columns, static_cast<int>(cells.size())))
                                         ->set("shim", kGap)
                                         ->set("hspacing", width)
                                         ->set("vspacing", height)
                                         ->set("halign", VIPS_ALIGN_CENTRE)
                                         ->set("valign", VIPS_ALIGN_CENTRE)
                                         ->set("background", 48.0));
        return {.unreadable = {}, .output_refused = save_image(sheet, job.temporary, job.output)};
    } catch (const VError& error) {
        std::string reason = one_line(error);
        vips_error_clear();
        return {.unreadable = std::move(reason), .output_refused = {}};
    }
}

}    // namespace app
