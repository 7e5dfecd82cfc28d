#include "image_job.hpp"

#include "output_file.hpp"
#include "vips_support.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <stdexcept>
#include <system_error>

namespace app {

using vips::VError;
using vips::VImage;
using vips::VOption;

namespace {

void ignore_message(const gchar*, GLogLevelFlags, const gchar*, gpointer) {}

/// An open input under a name that libvips takes as it is: it reads `photo[page=2]` as a name and an option.
class InputName {
public:
    explicit InputName(const std::string& path) : name_(path) {
        if (path.ends_with(']')) {
            file_ = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
            name_ = fmt::format("/proc/self/fd/{}", file_);
        }
    }
    InputName(const InputName&) = delete;
    InputName& operator=(const InputName&) = delete;
    ~InputName() {
        if (file_ >= 0) {
            ::close(file_);
        }
    }

    const char* c_str() const noexcept { return name_.c_str(); }

private:
    int file_ = -1;
    std::string name_;
};

/// A Gaussian blur of every pixel. Where it leaves nothing of the finer detail, its first part is the mean of `step` by `step` pixels,
/// and the Gaussian does what is left: the variances of the two add up to that of the whole blur.
VImage gaussian(const VImage& image, double sigma, int step) {
    if (step < 2) {
        return image.gaussblur(sigma);
    }
    // Beyond the edges it goes on as it ends, as for the whole blur: the means at the edges are means of that, too.
    const int frame = static_cast<int>(std::ceil(3 * sigma / step));
    const auto means = [&](int size) { return (size + step - 1) / step; };
    const VImage framed =
        image.embed(frame * step, frame * step, (means(image.width()) + 2 * frame) * step,
                    (means(image.height()) + 2 * frame) * step, VImage::option()->set("extend", VIPS_EXTEND_COPY));
    const double rest = std::sqrt(sigma * sigma - (step * step - 1) / 12.0) / step;
    // A mask of whole numbers, or one that is cut where it is a fifth of its height, would be off by several grey levels.
    return framed.shrink(step, step)
        .gaussblur(rest, VImage::option()->set("min_ampl", 0.01)->set("precision", VIPS_PRECISION_FLOAT))
        .extract_area(frame, frame, static_cast<int>(std::lround(image.width() / double(step))),
                      static_cast<int>(std::lround(image.height() / double(step))));
}

/// How many pixels in each direction may become one before the Gaussian: it is still three of them wide, and the thumbnail has fewer.
/// Best a number that divides the image.
int blur_step(const VImage& image, const ThumbnailJob& job) {
    const int longer = std::max(image.width() / std::max(job.width, 1), image.height() / std::max(job.height, 1));
    const int shorter = std::min(image.width(), image.height());
    const int most = std::min({static_cast<int>(job.blur / 3), longer / 4, shorter / 16});
    for (int step = most; step > most / 2 && step > 1; --step) {
        if (image.width() % step == 0 && image.height() % step == 0) {
            return step;
        }
    }
    return most;
}

/// Colours of transparent pixels are weighed by their opacity, so that they don't bleed.
VImage blurred(const VImage& image, const ThumbnailJob& job) {
    const int step = blur_step(image, job);
    if (image.has_alpha()) {
        return gaussian(image.premultiply(), job.blur, step).unpremultiply().rint().cast(image.format());
    }
    return gaussian(image, job.blur, step).rint().cast(image.format());
}

/// For the call that takes it, which frees it.
VOption* fit(const ThumbnailJob& job, bool by_profile) {
    VOption* options = VImage::option()->set("height", job.height)->set("size", VIPS_SIZE_DOWN);
    return by_profile ? options->set("export_profile", "srgb") : options;
}

/// Without a profile of its own an image in grey or in colours is in sRGB already. To transform it all the same costs a fifth of a
/// photograph's time.
bool needs_profile(const VImage& thumbnail) {
    const bool plain =
        thumbnail.interpretation() == VIPS_INTERPRETATION_sRGB || thumbnail.interpretation() == VIPS_INTERPRETATION_B_W;
    return !plain || thumbnail.get_typeof(VIPS_META_ICC_NAME) != 0;
}

/// The thumbnail, not computed yet: the input is read when it is saved.
VImage shrunk(const ThumbnailJob& job, const InputName& name, bool by_profile) {
    // Both turn the image upright, and neither enlarges one that is smaller already.
    if (job.blur > 0) {
        VOption* load = VImage::option()->set("access", VIPS_ACCESS_SEQUENTIAL)->set("fail_on", VIPS_FAIL_ON_TRUNCATED);
        const VImage whole = blurred(VImage::new_from_file(name.c_str(), load), job);
        return whole.thumbnail_image(job.width, fit(job, by_profile));
    }
    // From the file: a JPEG is decoded at a half, a quarter or an eighth of its size where that is enough.
    return VImage::thumbnail(name.c_str(), job.width, fit(job, by_profile)->set("fail_on", VIPS_FAIL_ON_TRUNCATED));
}

VImage shrunk(const ThumbnailJob& job, const InputName& name) {
    const VImage thumbnail = shrunk(job, name, false);
    return needs_profile(thumbnail) ? shrunk(job, name, true) : thumbnail;
}

}    // namespace

void start_libvips() {
    if (VIPS_INIT("multihull") != 0) {
        throw std::runtime_error("libvips could not be started in a worker.");
    }
    vips_concurrency_set(1);    // the pool has a worker for each core
    vips_cache_set_max(0);      // no file is read twice
    // What is wrong with a file comes back as its error; what libvips warns of besides would only spoil the progress bar.
    g_log_set_handler("VIPS", G_LOG_LEVEL_WARNING, ignore_message, nullptr);
}

JobResult make_thumbnail(const ThumbnailJob& job) {
    if (::access(job.input.c_str(), R_OK) != 0) {
        return {.unreadable = std::generic_category().message(errno), .output_refused = {}};
    }
    const InputName name(job.input);
    try {
        return {.unreadable = {}, .output_refused = save_image(shrunk(job, name), job.temporary, job.output)};
    } catch (const VError& error) {
        std::string reason = one_line(error);
        vips_error_clear();
        return {.unreadable = std::move(reason), .output_refused = {}};
    }
}

}    // namespace app
