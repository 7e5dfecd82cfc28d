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

/// A Gaussian blur of an image.
struct Blur {
    double sigma;
    bool of_means = false;    ///< The image's pixels are means of larger ones' squares already.

    /// What is left of it behind the mean of `step` by `step` pixels, in those: the variances of the two add up to that of the whole.
    Blur behind_means(int step) const {
        return step < 2 ? *this : Blur{std::sqrt(sigma * sigma - (step * step - 1) / 12.0) / step, true};
    }
};

/// How many pixels in each direction may become one, so that half as many pixels again are left as the thumbnail has, whichever way up.
double shrink_before_thumbnail(const VImage& photo, const ThumbnailJob& job) {
    const auto times = [](int pixels, int of_thumbnail) { return double(pixels) / std::max(of_thumbnail, 1); };
    const double upright = std::max(times(photo.width(), job.width), times(photo.height(), job.height));
    const double turned = std::max(times(photo.height(), job.width), times(photo.width(), job.height));
    return std::min(upright, turned) / 1.5;
}

/// The same before a blur: it is still two of them wide, or something would be left of stripes just as wide as one, which it removes.
int largest_step(const VImage& image, const ThumbnailJob& job, const Blur& blur) {
    const int shorter = std::min(image.width(), image.height());
    return std::min({static_cast<int>(blur.sigma / 1.8), static_cast<int>(shrink_before_thumbnail(image, job)),
                     shorter / 16});
}

/// Best a number that divides the image.
int blur_step(const VImage& image, const ThumbnailJob& job, const Blur& blur) {
    const int most = largest_step(image, job, blur);
    for (int step = most; step > most / 2 && step > 1; --step) {
        if (image.width() % step == 0 && image.height() % step == 0) {
            return step;
        }
    }
    return std::max(most, 1);
}

/// libvips's own mask is of whole numbers, and cut where it is a fifth of its height. That is fast, and does for a blur of a few pixels;
/// behind means it would be off by several grey levels.
VImage gaussian(const VImage& image, const Blur& blur) {
    if (!blur.of_means) {
        return image.gaussblur(blur.sigma);
    }
    return image.gaussblur(blur.sigma, VImage::option()->set("min_ampl", 0.01)->set("precision", VIPS_PRECISION_FLOAT));
}

/// The blur of every pixel: its first part is the mean of `step` by `step` pixels, and the Gaussian does what is left.
VImage blurred_by_steps(const VImage& image, const Blur& blur, int step) {
    if (step < 2) {
        return gaussian(image, blur);
    }
    // Beyond the edges it goes on as it ends, as for the whole blur: the means at the edges are means of that, too.
    const int frame = static_cast<int>(std::ceil(3 * blur.sigma / step));
    const auto means = [&](int size) { return (size + step - 1) / step; };
    const VImage framed =
        image.embed(frame * step, frame * step, (means(image.width()) + 2 * frame) * step,
                    (means(image.height()) + 2 * frame) * step, VImage::option()->set("extend", VIPS_EXTEND_COPY));
    return gaussian(framed.shrink(step, step), blur.behind_means(step))
        .extract_area(frame, frame, static_cast<int>(std::lround(image.width() / double(step))),
                      static_cast<int>(std::lround(image.height() / double(step))));
}

/// Colours of transparent pixels are weighed by their opacity, so that they don't bleed.
VImage blurred(const VImage& image, const ThumbnailJob& job, const Blur& blur) {
    const int step = blur_step(image, job, blur);
    if (image.has_alpha()) {
        return blurred_by_steps(image.premultiply(), blur, step).unpremultiply().rint().cast(image.format());
    }
    return blurred_by_steps(image, blur, step).rint().cast(image.format());
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

/// For the call that takes it, which frees it.
VOption* load_whole_files() {
    return VImage::option()->set("access", VIPS_ACCESS_SEQUENTIAL)->set("fail_on", VIPS_FAIL_ON_TRUNCATED);
}

/// A JPEG decodes faster at a half, a quarter or an eighth of its size, each pixel the mean of its square: the most of these up to `most`;
/// 1 for other formats.
int decodable_shrink(const VImage& photo, double most) {
    if (photo.get_typeof(VIPS_META_LOADER) == 0 || std::string(photo.get_string(VIPS_META_LOADER)) != "jpegload") {
        return 1;
    }
    return most >= 8 ? 8 : most >= 4 ? 4 : most >= 2 ? 2 : 1;
}

/// The thumbnail, not computed yet: the input is read when it is saved.
VImage shrunk(const ThumbnailJob& job, const InputName& name, bool by_profile) {
    // Each turns the image upright, and does not enlarge one that is smaller already.
    const VImage whole = VImage::new_from_file(name.c_str(), load_whole_files());
    const auto decoded = [&](int shrink) {
        return shrink == 1 ? whole : VImage::new_from_file(name.c_str(), load_whole_files()->set("shrink", shrink));
    };
    if (job.blur > 0) {
        const Blur blur{job.blur};
        int shrink = decodable_shrink(whole, largest_step(whole, job, blur));
        while (whole.width() % shrink != 0 || whole.height() % shrink != 0) {
            shrink /= 2;    // where a square is cut by the edge, its mean is not of the image alone
        }
        return blurred(decoded(shrink), job, blur.behind_means(shrink))
            .thumbnail_image(job.width, fit(job, by_profile));
    }
    // libvips by itself would leave twice as many pixels: on photographs that differs by a tenth of a grey level in the mean.
    if (const int shrink = decodable_shrink(whole, shrink_before_thumbnail(whole, job)); shrink > 1) {
        return decoded(shrink).thumbnail_image(job.width, fit(job, by_profile));
    }
    // From the file: other formats, too, can be decoded smaller than they are.
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
