#include "image_job.hpp"

#include "output_file.hpp"
#include "vips_support.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <cerrno>
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

/// Blurs at full resolution. Colours of transparent pixels are weighed by their opacity, so that they don't bleed.
VImage blurred(const VImage& image, double sigma) {
    if (!image.has_alpha()) {
        return image.gaussblur(sigma);
    }
    return image.premultiply().gaussblur(sigma).unpremultiply().cast(image.format());
}

/// For the call that takes it, which frees it.
VOption* fit(const ThumbnailJob& job) {
    return VImage::option()->set("height", job.height)->set("size", VIPS_SIZE_DOWN)->set("export_profile", "srgb");
}

/// The thumbnail, not computed yet: the input is read when it is saved.
VImage shrunk(const ThumbnailJob& job, const InputName& name) {
    // Both turn the image upright, and neither enlarges one that is smaller already.
    if (job.blur > 0) {
        VOption* load = VImage::option()->set("access", VIPS_ACCESS_SEQUENTIAL)->set("fail_on", VIPS_FAIL_ON_TRUNCATED);
        const VImage whole = blurred(VImage::new_from_file(name.c_str(), load), job.blur);
        return whole.thumbnail_image(job.width, fit(job));
    }
    // From the file: a JPEG is decoded at a half, a quarter or an eighth of its size where that is enough.
    return VImage::thumbnail(name.c_str(), job.width, fit(job)->set("fail_on", VIPS_FAIL_ON_TRUNCATED));
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
