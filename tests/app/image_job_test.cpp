// One file becomes one thumbnail: upright, without metadata, whole.
#include "image_job.hpp"
#include "program.hpp"

#include <vips/vips8>

namespace app_test {
namespace {

using vips::VImage;

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

INSTANTIATE_TEST_SUITE_P(WithAndWithoutBlur, ImageJobTest, ::testing::Values(0.0, 2.0));

}    // namespace
}    // namespace app_test
