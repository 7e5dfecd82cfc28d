// One file becomes one thumbnail: upright, without metadata, whole.
#include "image_job.hpp"
#include "program.hpp"

#include <vips/vips8>

#include <algorithm>
#include <array>
#include <initializer_list>
#include <string_view>
#include <utility>

namespace app_test {
namespace {

using vips::VImage;
using vips::VOption;

class ImageJobTest : public ::testing::TestWithParam<double> {
protected:
    static void SetUpTestSuite() { app::start_libvips(); }

    app::JobResult make(const fs::path& input, const fs::path& output) const {
        return app::make_thumbnail({.input = input,
                                    .output = output,
                                    .temporary = folder_ / "aside",
                                    .width = 60,
                                    .height = 60,
                                    .blur = GetParam()});
    }

    Folder folder_;
};

TEST_P(ImageJobTest, TurnsTheImageUprightAndStripsIt) {
    VImage image = VImage::black(300, 200).copy();
    image.set("orientation", 6);    // a quarter to the right
    image.set("exif-ifd0-Artist", "somebody");
    image.jpegsave((folder_ / "camera.jpg").c_str());
    const app::JobResult result = make(folder_ / "camera.jpg", folder_ / "thumbnail.jpg");
    EXPECT_EQ(result.unreadable + result.output_refused, "");
    const VImage thumbnail = VImage::new_from_file((folder_ / "thumbnail.jpg").c_str());
    EXPECT_EQ(thumbnail.width(), 40);
    EXPECT_EQ(thumbnail.height(), 60);
    EXPECT_EQ(thumbnail.get_typeof("orientation"), 0U);
    EXPECT_EQ(thumbnail.get_typeof("exif-data"), 0U);
    EXPECT_FALSE(fs::exists(folder_ / "aside"));
}

TEST_P(ImageJobTest, TransparentBecomesWhiteInJpegAndStaysInPng) {
    const VImage clear = VImage::black(100, 100, VImage::option()->set("bands", 4)).copy_memory();
    clear.copy(VImage::option()->set("interpretation", VIPS_INTERPRETATION_sRGB))
        .pngsave((folder_ / "clear.png").c_str());
    EXPECT_EQ(make(folder_ / "clear.png", folder_ / "thumbnail.jpg").unreadable, "");
    EXPECT_GT(VImage::new_from_file((folder_ / "thumbnail.jpg").c_str()).avg(), 250);
    EXPECT_EQ(make(folder_ / "clear.png", folder_ / "thumbnail.png").unreadable, "");
    EXPECT_EQ(VImage::new_from_file((folder_ / "thumbnail.png").c_str()).bands(), 4);
}

TEST_P(ImageJobTest, ConvertsToSrgbWhatIsInAnotherProfile) {
    const VImage half = VImage::black(200, 200, VImage::option()->set("bands", 3)) + 128.0;
    const VImage srgb =
        half.cast(VIPS_FORMAT_UCHAR).copy(VImage::option()->set("interpretation", VIPS_INTERPRETATION_sRGB));
    const auto mean = [&](const VImage& image) {
        image.pngsave((folder_ / "image.png").c_str());
        EXPECT_EQ(make(folder_ / "image.png", folder_ / "thumbnail.png").unreadable, "");
        const VImage thumbnail = VImage::new_from_file((folder_ / "thumbnail.png").c_str());
        EXPECT_EQ(thumbnail.format(), VIPS_FORMAT_UCHAR);
        return thumbnail.avg();
    };
    EXPECT_NEAR(mean(srgb), 128, 2);
    // The same colour, said in a profile with other primaries and another curve.
    const VImage other = srgb.icc_transform("p3", VImage::option()->set("input_profile", "srgb"));
    ASSERT_NE(other.get_typeof(VIPS_META_ICC_NAME), 0U);
    EXPECT_NEAR(mean(other), 128, 2);
    const VImage cmyk = srgb.icc_transform("cmyk", VImage::option()->set("input_profile", "srgb"));
    cmyk.jpegsave((folder_ / "cmyk.jpg").c_str(), VImage::option()->set("strip", true)->set("Q", 95));
    EXPECT_EQ(make(folder_ / "cmyk.jpg", folder_ / "thumbnail.png").unreadable, "");
    const VImage thumbnail = VImage::new_from_file((folder_ / "thumbnail.png").c_str());
    EXPECT_EQ(thumbnail.bands(), 3);
    EXPECT_NEAR(thumbnail.avg(), 128, 12);
    // Sixteen bits, and grey alone, become eight.
    EXPECT_NEAR(mean(srgb.colourspace(VIPS_INTERPRETATION_RGB16)), 128, 2);
    EXPECT_NEAR(mean(srgb.colourspace(VIPS_INTERPRETATION_GREY16)), 128, 2);
}

TEST_P(ImageJobTest, SaysWhyThereIsNone) {
    EXPECT_EQ(make(folder_ / "missing.jpg", folder_ / "thumbnail.jpg").unreadable, "No such file or directory");
    write_file(folder_ / "text.jpg", "no picture");
    EXPECT_NE(make(folder_ / "text.jpg", folder_ / "thumbnail.jpg").unreadable, "");
    EXPECT_EQ(make(folder_ / "text.jpg", folder_ / "thumbnail.jpg").unreadable.find('\n'), std::string::npos);
    write_ppm(folder_ / "good.ppm", 10, 10);
    EXPECT_EQ(make(folder_ / "good.ppm", folder_ / "nowhere/thumbnail.jpg").output_refused,
              "No such file or directory");
    fs::create_directories(folder_ / "taken.jpg/x");
    EXPECT_EQ(make(folder_ / "good.ppm", folder_ / "taken.jpg").output_refused, "Is a directory");
    EXPECT_FALSE(fs::exists(folder_ / "aside"));
}

/// For the call that takes it, which frees it.
VOption* box() { return VImage::option()->set("height", 60)->set("size", VIPS_SIZE_DOWN); }

/// The same made slowly: an exact Gaussian of every pixel, then a thumbnail of that.
VImage blurred_exactly(const VImage& image, double sigma) {
    return image.gaussblur(sigma, VImage::option()->set("min_ampl", 0.001)->set("precision", VIPS_PRECISION_FLOAT))
        .rint()
        .cast(VIPS_FORMAT_UCHAR)
        .thumbnail_image(60, box());
}

VImage in_colours(const VImage& bands) {
    return bands.rint().cast(VIPS_FORMAT_UCHAR).copy(VImage::option()->set("interpretation", VIPS_INTERPRETATION_sRGB));
}

TEST(ImageBlurTest, IsAGaussianOfEveryPixel) {
    app::start_libvips();
    const Folder folder;
    const VImage noise =
        VImage::gaussnoise(600, 450, VImage::option()->set("mean", 128)->set("sigma", 60)->set("seed", 1));
    const VImage place = VImage::xyz(600, 450);
    // Stripes as wide as what a thumbnail's blur may leave out at first, a hard edge, and single points.
    const VImage stripes = ((place[0] % 7.0) < 3.5).ifthenelse(255, 0);
    const VImage edge = ((place[0] + place[1]) < 500.0).ifthenelse(255, 0);
    for (const VImage& image : {noise.bandjoin(noise.rot180()).bandjoin(noise.fliphor()), stripes.bandjoin({0, 255}),
                                edge.bandjoin(stripes).bandjoin(noise)}) {
        const VImage photo = in_colours(image);
        photo.pngsave((folder / "photo.png").c_str());
        // Paler, as a decoder that makes all pixels cuts off what is beyond black and white in each.
        const VImage pale = in_colours(image * 0.5 + 64.0);
        const auto save_jpeg = [&](const char* name, int height) {
            pale.crop(0, 0, 600, height).jpegsave((folder / name).c_str(), VImage::option()->set("Q", 90));
        };
        save_jpeg("by-eight.jpg", 448);
        save_jpeg("odd.jpg", 449);
        for (const auto& [name, sigma] :
             {std::pair("photo.png", 6.0), {"photo.png", 15.0}, {"by-eight.jpg", 15.0}, {"odd.jpg", 15.0}}) {
            const app::JobResult result = app::make_thumbnail({.input = folder / name,
                                                               .output = folder / "thumbnail.png",
                                                               .temporary = folder / "aside",
                                                               .width = 60,
                                                               .height = 60,
                                                               .blur = sigma});
            ASSERT_EQ(result.unreadable + result.output_refused, "");
            const VImage thumbnail = VImage::new_from_file((folder / "thumbnail.png").c_str());
            const VImage exact = blurred_exactly(VImage::new_from_file((folder / name).c_str()), sigma);
            ASSERT_EQ(thumbnail.width(), exact.width());
            ASSERT_EQ(thumbnail.height(), exact.height());
            // What differs is mostly how the last step to the thumbnail rounds, which starts from fewer pixels than the exact one's.
            VImage difference = (thumbnail - exact).abs();
            if (std::string_view(name).ends_with(".jpg")) {
                // Beyond an edge a photo goes on as it ends: with a pixel, or with the mean of eight that the decoder made, which in stripes
                // is something else.
                difference = difference.crop(5, 5, difference.width() - 10, difference.height() - 10);
            }
            EXPECT_LE(difference.max(), 6) << name << ", sigma " << sigma;
            EXPECT_LE(difference.avg(), 1) << name << ", sigma " << sigma;
        }
    }
}

TEST(ImageShrinkTest, AJpegDecodedSmallerLooksAsOneDecodedWhole) {
    app::start_libvips();
    const Folder folder;
    // By an eighth, twice; a quarter, a half, and not at all. The last one lies on its side.
    for (const auto& [width, height, orientation] : std::initializer_list<std::array<int, 3>>{
             {960, 704, 1}, {720, 544, 1}, {400, 304, 1}, {208, 152, 1}, {96, 80, 1}, {1000, 200, 6}}) {
        const auto noise = [&](int cell) {
            return VImage::perlin(width, height, VImage::option()->set("cell_size", cell)->set("seed", cell));
        };
        const VImage fields = (noise(256) > 0.0).ifthenelse(90, 0) + noise(128) * 60.0 + noise(64) * 30.0 + 80.0;
        VImage photo = in_colours(fields.bandjoin(fields.fliphor()).bandjoin(fields.rot180())).copy();
        photo.set("orientation", orientation);
        photo.jpegsave((folder / "photo.jpg").c_str(), VImage::option()->set("Q", 95));
        const app::JobResult result = app::make_thumbnail({.input = folder / "photo.jpg",
                                                           .output = folder / "thumbnail.png",
                                                           .temporary = folder / "aside",
                                                           .width = 60,
                                                           .height = 60});
        ASSERT_EQ(result.unreadable + result.output_refused, "");
        const VImage thumbnail = VImage::new_from_file((folder / "thumbnail.png").c_str());
        const VImage whole = VImage::new_from_file((folder / "photo.jpg").c_str()).thumbnail_image(60, box());
        ASSERT_EQ(orientation == 6 ? thumbnail.height() : thumbnail.width(), 60);
        ASSERT_EQ(thumbnail.width(), whole.width());
        ASSERT_EQ(thumbnail.height(), whole.height());
        const VImage difference = (thumbnail - whole).abs();

        EXPECT_LE(difference.avg(), 1) << width << "x" << height;
        EXPECT_LE(difference.max(), 12) << width << "x" << height;
    }
}

INSTANTIATE_TEST_SUITE_P(WithAndWithoutBlur, ImageJobTest, ::testing::Values(0.0, 2.0));

}    // namespace
}    // namespace app_test
