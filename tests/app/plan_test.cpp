// Which files become thumbnails, and under which names.
#include "plan.hpp"
#include "failure.hpp"
#include "program.hpp"

#include <gmock/gmock.h>

namespace app_test {
namespace {

using ::testing::ElementsAre;

class PlanTest : public ::testing::Test {
protected:
    std::vector<std::string> plan(const std::vector<fs::path>& inputs, bool recursive = false) {
        const app::Manifest manifest(out_);
        const app::Plan plan = app::make_plan(inputs, recursive, out_, {}, manifest);
        std::vector<std::string> names;
        for (const app::Item& item : plan.items) {
            names.push_back(fs::relative(item.input, in_).native() + " " + item.output.filename().native());
        }
        return names;
    }

    void touch(const fs::path& name) { write_file(in_ / name, "x"); }

    Folder folder_;
    const fs::path in_ = folder_ / "in";
    const fs::path out_ = folder_ / "out";
};

TEST_F(PlanTest, FoldersGiveTheirImagesByName) {
    for (const char* name : {"b.jpg", "a.PNG", "notes.txt", ".hidden.jpg", "sub/c.jpg"}) {
        touch(name);
    }
    EXPECT_THAT(plan({in_}), ElementsAre("a.PNG a.jpg", "b.jpg b.jpg"));
    EXPECT_THAT(plan({in_}, true), ElementsAre("a.PNG a.jpg", "b.jpg b.jpg", "sub/c.jpg c.jpg"));
    EXPECT_THAT(plan({in_ / "notes.txt", in_}), ElementsAre("notes.txt notes.jpg", "a.PNG a.jpg", "b.jpg b.jpg"));
    EXPECT_THAT(plan({in_ / "b.jpg", in_ / "sub/../b.jpg"}), ElementsAre("b.jpg b.jpg"));
}

TEST_F(PlanTest, EqualNamesAreTold) {
    for (const char* name : {"a/photo.jpg", "a/photo.png", "b/photo.jpg", "b/photo.png", "c/b/photo.jpg"}) {
        touch(name);
    }
    EXPECT_THAT(plan({in_}, true),
                ElementsAre("a/photo.jpg photo.jpg", "a/photo.png photo-png.jpg", "b/photo.jpg photo-jpg.jpg",
                            "b/photo.png b-photo.jpg", "c/b/photo.jpg b-photo-jpg.jpg"));
}

TEST_F(PlanTest, AFileOfAnotherMakerIsNotWrittenOver) {
    touch("a.jpg");
    write_file(out_ / "a.jpg", "precious");
    EXPECT_THAT(plan({in_}), ElementsAre("a.jpg a-jpg.jpg"));
}

TEST_F(PlanTest, AnInputKeepsItsName) {
    touch("b/photo.jpg");
    const auto entry = [this](const char* name) {
        return app::ManifestEntry{.input = in_ / name, .input_stamp = {}, .output_stamp = {}, .parameters = {}};
    };
    fs::create_directories(out_);
    EXPECT_EQ(app::Manifest(out_).record("photo.jpg", entry("b/photo.jpg")), "");
    touch("a/photo.jpg");
    EXPECT_THAT(plan({in_}, true), ElementsAre("a/photo.jpg photo-jpg.jpg", "b/photo.jpg photo.jpg"));
    // The name of an input that is gone is free again.
    fs::remove(in_ / "b/photo.jpg");
    EXPECT_THAT(plan({in_}, true), ElementsAre("a/photo.jpg photo.jpg"));
}

TEST_F(PlanTest, LongNamesAreShortenedBetweenCharacters) {
    std::string name;
    while (name.size() + 2 <= 240) {
        name += "\xC3\xA4";    // a with two dots
    }
    touch("x" + name + ".webp");
    const app::Plan plan = app::make_plan({in_}, false, out_, {}, app::Manifest(out_));
    ASSERT_EQ(plan.items.size(), 1U);
    EXPECT_EQ(plan.items[0].output.filename().native(), "x" + name.substr(0, 198) + ".jpg");
}

TEST_F(PlanTest, TheOutputFolderIsNoInput) {
    touch("a.jpg");
    const fs::path inside = in_ / "thumbnails";
    write_file(inside / "a.jpg", "x");
    EXPECT_EQ(app::make_plan({in_}, true, inside, {}, app::Manifest(inside)).items.size(), 1U);
    EXPECT_THROW(app::make_plan({in_}, true, in_, {}, app::Manifest(in_)), app::EnvironmentError);
}

TEST(ManifestTest, SurvivesDamageAndStrangeNames) {
    Folder folder;
    const fs::path file = folder / ".multihull-thumbnails";
    const app::ManifestEntry entry{.input = "/a\tb\nc\\d",
                                   .input_stamp = {1, 2},
                                   .output_stamp = {3, 4},
                                   .parameters = "50x50 blur=0 jpg"};
    {
        app::Manifest manifest(folder / "");
        EXPECT_EQ(manifest.record("t\\x.jpg", entry), "");
        EXPECT_EQ(manifest.record("other.jpg", entry), "");
    }
    std::ofstream(file, std::ios::app) << "cut.jpg\t/in/cut.jpg\t12";
    const app::Manifest manifest(folder / "");
    ASSERT_NE(manifest.find("t\\x.jpg"), nullptr);
    EXPECT_EQ(manifest.find("t\\x.jpg")->input, entry.input);
    EXPECT_EQ(manifest.find("t\\x.jpg")->output_stamp, entry.output_stamp);
    EXPECT_EQ(manifest.find("cut.jpg"), nullptr);
}

}    // namespace
}    // namespace app_test
