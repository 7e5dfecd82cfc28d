// The program as a user meets it: what it makes, what it says, and what is left when something goes wrong.
#include "contact_sheet.hpp"
#include "program.hpp"
#include "support/sanitizer.hpp"

#include <gmock/gmock.h>
#include <sched.h>
#include <sys/mount.h>
#include <vips/vips8>

#include <array>
#include <cstring>

namespace app_test {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;

/// The size of a picture that can be read to its last pixel, such as 50x33; empty for one that can't.
std::string whole_size(const fs::path& path) {
    static const bool started = VIPS_INIT("test") == 0;
    EXPECT_TRUE(started);
    try {
        const auto options = vips::VImage::option()->set("fail_on", VIPS_FAIL_ON_ERROR);
        const vips::VImage image = vips::VImage::new_from_file(path.c_str(), options).copy_memory();
        return std::to_string(image.width()) + "x" + std::to_string(image.height());
    } catch (const vips::VError&) {
        return {};
    }
}

class Thumbnails : public ::testing::Test {
protected:
    void make_pictures(int count) {
        for (int i = 0; i < count; ++i) {
            write_ppm(in_ / ("picture" + std::to_string(i) + ".ppm"), 300, 200);
        }
    }

    Outcome run(std::vector<std::string> more = {}) const {
        more.insert(more.begin(), {in_, "-o", out_});
        return run_program(more);
    }

    Folder folder_;
    const fs::path in_ = folder_ / "in";
    const fs::path out_ = folder_ / "out";
};

TEST_F(Thumbnails, FitInsideTheSizeAndAreNotEnlarged) {
    write_ppm(in_ / "wide.ppm", 300, 200);
    write_ppm(in_ / "high.ppm", 200, 300);
    write_ppm(in_ / "small.ppm", 20, 10);
    const Outcome outcome = run();
    EXPECT_EQ(outcome.status, 0) << outcome.err;
    EXPECT_THAT(outcome.out, HasSubstr("3 thumbnails made"));
    EXPECT_THAT(outcome.out, HasSubstr("images/s"));
    EXPECT_EQ(whole_size(out_ / "wide.jpg"), "50x33");
    EXPECT_EQ(whole_size(out_ / "high.jpg"), "33x50");
    EXPECT_EQ(whole_size(out_ / "small.jpg"), "20x10");
}

TEST_F(Thumbnails, BlurAndFormatAndSize) {
    make_pictures(2);
    const Outcome outcome = run({"--blur", "3", "--format", "png", "--size", "90x90"});
    EXPECT_EQ(outcome.status, 0) << outcome.err;
    EXPECT_THAT(names_in(out_), ElementsAre("picture0.png", "picture1.png"));
    EXPECT_EQ(whole_size(out_ / "picture0.png"), "90x60");
    EXPECT_EQ(run({"--format", "webp"}).status, 0);
    EXPECT_EQ(whole_size(out_ / "picture1.webp"), "50x33");
}

TEST_F(Thumbnails, ASecondRunDoesOnlyWhatIsNewOrChanged) {
    make_pictures(3);
    EXPECT_EQ(run().status, 0);
    EXPECT_THAT(run().out, HasSubstr("0 thumbnails made"));
    write_ppm(in_ / "picture1.ppm", 100, 200);
    EXPECT_THAT(run().out, AllOf(HasSubstr("1 thumbnail made"), HasSubstr("2 already up to date")));
    EXPECT_EQ(whole_size(out_ / "picture1.jpg"), "25x50");
    fs::remove(out_ / "picture2.jpg");
    EXPECT_THAT(run().out, HasSubstr("1 thumbnail made"));
    EXPECT_THAT(run({"--size", "40"}).out, HasSubstr("3 thumbnails made"));
    EXPECT_THAT(run({"--size", "40", "--force"}).out, HasSubstr("3 thumbnails made"));
}

TEST_F(Thumbnails, AFileThatCrashesHangsOrEatsMemoryCostsItself) {
    make_pictures(6);
    EXPECT_EQ(run({"--size", "300x200"}).status, 0);
    const std::string jpeg = read_file(out_ / "picture0.jpg");
    write_file(in_ / "cut.jpg", std::string_view(jpeg).substr(0, jpeg.size() / 2));
    write_file(in_ / "text.png", "This is no picture.\n");
    fs::create_symlink("nowhere", in_ / "dangling.jpg");
    write_crasher(in_ / "crasher.svg");
    write_endless(in_ / "endless.svg");
    write_memory_hog(in_ / "hog.gif");
    const Outcome outcome = run({"--timeout", "4", "--memory-limit", "1GB", "--jobs", "2"});
    EXPECT_EQ(outcome.status, 1) << outcome.err;
    EXPECT_THAT(outcome.out, AllOf(HasSubstr("6 thumbnails made"), HasSubstr("6 failed")));
    // The address sanitizer needs longer than the time-out to write its report of so deep a stack.
    EXPECT_THAT(outcome.err, HasSubstr(test::kAsan ? "crasher.svg: " : "crasher.svg: crashed with SIGSEGV"));
    EXPECT_THAT(outcome.err, HasSubstr("endless.svg: timed out after 4 s"));
    // Where the address sanitizer finds no memory it ends the process.
    EXPECT_THAT(outcome.err,
                HasSubstr(test::kAsan ? "hog.gif: its decoder ended the worker" : "hog.gif: out of memory"));
    EXPECT_THAT(outcome.err, HasSubstr("cut.jpg: unreadable: "));
    EXPECT_THAT(outcome.err, HasSubstr("text.png: unreadable: "));
    EXPECT_THAT(outcome.err, HasSubstr("dangling.jpg: unreadable: No such file or directory"));
    EXPECT_THAT(names_in(out_), ElementsAre("picture0.jpg", "picture1.jpg", "picture2.jpg", "picture3.jpg",
                                            "picture4.jpg", "picture5.jpg"));
}

TEST_F(Thumbnails, APipeThatNobodyWritesToTimesOut) {
    make_pictures(2);
    const fs::path pipe = folder_ / "camera.jpg";
    ASSERT_EQ(::mkfifo(pipe.c_str(), 0600), 0);
    const Outcome outcome = run({pipe, "--timeout", "3"});
    EXPECT_EQ(outcome.status, 1) << outcome.err;
    EXPECT_THAT(outcome.err, HasSubstr("camera.jpg: timed out after 3 s"));
    EXPECT_THAT(names_in(out_), ElementsAre("picture0.jpg", "picture1.jpg"));
}

TEST_F(Thumbnails, ContactSheetShowsAllAndCompareTellsTheSpeedUp) {
    make_pictures(5);
    const fs::path sheet = folder_ / "sheet.png";
    const Outcome outcome = run({"--contact-sheet", sheet, "--compare", "--jobs", "2"});
    EXPECT_EQ(outcome.status, 0) << outcome.err;
    EXPECT_THAT(outcome.out, HasSubstr("times as fast"));
    EXPECT_THAT(outcome.out, HasSubstr("Contact sheet: " + sheet.native()));
    EXPECT_EQ(whole_size(sheet), "158x104");    // three by two cells of 50x50, four pixels between them
    EXPECT_EQ(names_in(out_).size(), 5U);
}

TEST_F(Thumbnails, AReportShowsWhatTheWorkersDid) {
    make_pictures(5);
    write_file(in_ / "broken.jpg", "no picture");
    const fs::path report = folder_ / "report.html";
    const Outcome outcome = run({"--report", report});
    EXPECT_EQ(outcome.status, 1);
    EXPECT_THAT(outcome.out, HasSubstr("Report: " + report.native()));
    EXPECT_THAT(read_file(report), AllOf(HasSubstr("make_thumbnail("), HasSubstr("\"pool\":\"thumbnails\"")));
    const Outcome nowhere = run({"--force", "--report", "/nowhere/report.html"});
    EXPECT_EQ(nowhere.status, 1);
    EXPECT_THAT(nowhere.err, HasSubstr("/nowhere/report.html"));
    EXPECT_THAT(nowhere.out, HasSubstr("5 thumbnails made"));
}

TEST_F(Thumbnails, ContactSheetLeavesOutWhatIsSpoilt) {
    make_pictures(3);
    EXPECT_EQ(run().status, 0);
    write_file(out_ / "picture1.jpg", "spoilt");
    const fs::path sheet = folder_ / "sheet.png";
    std::vector<std::string> thumbnails;
    for (const std::string& name : names_in(out_)) {
        thumbnails.push_back(out_ / name);
    }
    ASSERT_NE(whole_size(out_ / "picture0.jpg"), "");    // and libvips is started
    const app::JobResult result = app::make_contact_sheet(
        {.thumbnails = thumbnails, .output = sheet, .temporary = folder_ / "aside", .width = 50, .height = 50});
    EXPECT_EQ(result.unreadable + result.output_refused, "");
    EXPECT_EQ(whole_size(sheet), "104x50");
}

TEST_F(Thumbnails, EqualNamesGetDistinguishingOnesAndKeepThem) {
    write_ppm(in_ / "a/photo.ppm", 30, 20);
    EXPECT_EQ(run({"--recursive"}).status, 0);
    write_ppm(in_ / "0/photo.ppm", 20, 30);
    EXPECT_THAT(run({"--recursive"}).out, HasSubstr("1 thumbnail made"));
    EXPECT_THAT(names_in(out_), ElementsAre("photo-ppm.jpg", "photo.jpg"));
    EXPECT_EQ(whole_size(out_ / "photo.jpg"), "30x20");
    EXPECT_EQ(whole_size(out_ / "photo-ppm.jpg"), "20x30");
}

TEST_F(Thumbnails, WhatCannotBeDoneIsOneSentence) {
    make_pictures(1);
    fs::create_directories(in_ / "empty");
    write_file(folder_ / "file", "");
    struct Case {
        std::vector<std::string> arguments;
        std::string sentence;
    };
    const std::vector<Case> cases{
        {{}, "required"},
        {{in_}, "--output is required"},
        {{in_, "-o", out_, "--nonsense"}, "--nonsense"},
        {{in_, "-o", out_, "--size", "50by50"}, "'50by50' is not a size"},
        {{in_, "-o", out_, "--size", "0x50"}, "'0x50' is not a size"},
        {{in_, "-o", out_, "--blur", "-1"}, "'-1' is not a number"},
        {{in_, "-o", out_, "--blur", "nan"}, "'nan' is not a number"},
        {{in_, "-o", out_, "--jobs", "0"}, "'0' is not a number"},
        {{in_, "-o", out_, "--jobs", "100000"}, "'100000' is not a number"},
        {{in_, "-o", out_, "--timeout", "soon"}, "'soon' is not a number"},
        {{in_, "-o", out_, "--format", "bmp"}, "bmp"},
        {{in_, "-o", out_, "--contact-sheet", "sheet.txt"}, "must end in"},
        {{folder_ / "missing", "-o", out_}, "There is no file or folder"},
        {{in_ / "empty", "-o", out_}, "There is no image in the folder"},
        {{in_, "-o", in_}, "The output folder"},
        {{in_, "-o", folder_ / "file"}, "Cannot make the output folder"},
        {{in_, "-o", folder_ / "file/out"}, "Cannot make the output folder"},
    };
    for (const Case& one : cases) {
        const Outcome outcome = run_program(one.arguments);
        EXPECT_EQ(outcome.status, 2) << one.sentence;
        EXPECT_THAT(outcome.err, AllOf(HasSubstr("multihull: "), HasSubstr(one.sentence)));
        EXPECT_EQ(std::ranges::count(outcome.err, '\n'), 1) << outcome.err;
        EXPECT_EQ(outcome.out, "");
        EXPECT_FALSE(fs::exists(out_)) << one.sentence;
    }
    EXPECT_EQ(run({"--help"}).status, 0);
}

TEST_F(Thumbnails, AFullDiskIsOneSentenceAndEndsTheRun) {
    make_pictures(200);
    fs::create_directories(out_);
    const auto mount_small_disk = [this] {
        // In a namespace of its own, so that nothing stays mounted.
        return (::unshare(CLONE_NEWNS) == 0 || ::unshare(CLONE_NEWUSER | CLONE_NEWNS) == 0) &&
               ::mount("none", "/", nullptr, MS_REC | MS_PRIVATE, nullptr) == 0 &&
               ::mount("tmpfs", out_.c_str(), "tmpfs", 0, "size=64k") == 0;
    };
    const Outcome outcome = Program({in_, "-o", out_}, mount_small_disk).wait();
    if (outcome.status == 127) {
        GTEST_SKIP() << "this machine lets nobody mount a small disk";
    }
    EXPECT_EQ(outcome.status, 2) << outcome.err;
    EXPECT_THAT(outcome.err,
                HasSubstr("multihull: Cannot write to the folder '" + out_.native() + "': No space left on device."));
    EXPECT_THAT(outcome.err, Not(HasSubstr("picture")));
    EXPECT_THAT(outcome.out, HasSubstr("not reached"));
}

TEST_F(Thumbnails, CtrlCLeavesWholeThumbnailsAndNothingElse) {
    make_pictures(40);
    for (int i = 0; i < 4; ++i) {
        write_endless(in_ / ("zz-endless" + std::to_string(i) + ".svg"));
    }
    Program program({in_, "-o", out_, "--timeout", "0", "--jobs", "2"});
    ASSERT_TRUE(eventually([this] { return fs::exists(out_ / "picture9.jpg"); }));
    program.signal(SIGINT);
    const Outcome outcome = program.wait();
    EXPECT_EQ(outcome.status, 130) << outcome.err;
    EXPECT_THAT(outcome.err, HasSubstr("multihull: Interrupted by SIGINT."));
    EXPECT_THAT(outcome.out, AllOf(HasSubstr("thumbnails made"), HasSubstr("not reached")));
    for (const std::string& name : names_in(out_)) {
        EXPECT_NE(whole_size(out_ / name), "") << name;
    }
    EXPECT_TRUE(eventually([&] { return !program.has_processes(); }));
}

TEST_F(Thumbnails, SeveralSigtermsAreOne) {
    make_pictures(4);
    write_endless(in_ / "zz-endless.svg");
    Program program({in_, "-o", out_, "--timeout", "0", "--jobs", "1"});
    ASSERT_TRUE(eventually([this] { return fs::exists(out_ / "picture3.jpg"); }));
    for (int i = 0; i < 5; ++i) {
        program.signal(SIGTERM);
        std::this_thread::yield();
    }
    const Outcome outcome = program.wait();
    EXPECT_EQ(outcome.status, 128 + SIGTERM);
    EXPECT_THAT(outcome.err, HasSubstr("multihull: Interrupted by SIGTERM."));
}

TEST_F(Thumbnails, ARunThatIsKilledIsCompletedByTheNext) {
    make_pictures(30);
    write_endless(in_ / "zz-endless.svg");
    write_file(out_ / ".multihull-999999999-7.tmp", "left by a run that is long gone");
    {
        Program program({in_, "-o", out_, "--timeout", "0", "--jobs", "1"});
        ASSERT_TRUE(eventually([this] { return fs::exists(out_ / "picture5.jpg"); }));
        program.signal(SIGKILL);
        EXPECT_EQ(program.wait().status, 128 + SIGKILL);
        EXPECT_TRUE(eventually([&] { return !program.has_processes(); }));
    }
    fs::remove(in_ / "zz-endless.svg");
    const Outcome outcome = run();
    EXPECT_EQ(outcome.status, 0) << outcome.err;
    EXPECT_THAT(outcome.out, Not(HasSubstr(" 0 already up to date")));
    EXPECT_EQ(names_in(out_).size(), 30U);
}

TEST_F(Thumbnails, OnATerminalABarIsDrawnAndCleared) {
    make_pictures(20);
    const std::string program = std::getenv("MULTIHULL_APP");
    int terminal = -1;
    const pid_t pid = ::forkpty(&terminal, nullptr, nullptr, nullptr);
    ASSERT_GE(pid, 0);
    if (pid == 0) {
        ::setenv("TERM", "xterm", 1);
        ::execl(program.c_str(), program.c_str(), "thumbnails", in_.c_str(), "-o", out_.c_str(), nullptr);
        ::_exit(127);
    }
    std::string shown;
    std::array<char, 4096> buffer{};
    for (ssize_t got = 0; (got = ::read(terminal, buffer.data(), buffer.size())) > 0;) {
        shown.append(buffer.data(), static_cast<std::size_t>(got));
    }
    ::close(terminal);
    int status = 0;
    ::waitpid(pid, &status, 0);
    EXPECT_EQ(status, 0);
    EXPECT_THAT(shown, AllOf(HasSubstr("of 20 done, 0 failed"), HasSubstr("\r\x1b[K20 thumbnails made")));
}

TEST_F(Thumbnails, AFilesNameCannotSteerTheTerminal) {
    write_file(in_ / "evil\x1b[2J\n.jpg", "no picture");
    make_pictures(1);
    const Outcome outcome = run();
    EXPECT_EQ(outcome.status, 1);
    EXPECT_THAT(outcome.err, HasSubstr("evil?[2J?.jpg: unreadable"));
    EXPECT_THAT(run().out, HasSubstr("1 already up to date"));
}

TEST_F(Thumbnails, WhatLibvipsWouldTakeForAnOptionIsAName) {
    write_ppm(in_ / "holiday[3].ppm", 30, 20);
    write_ppm(in_ / "holiday.ppm[page=2]", 30, 20);
    const Outcome outcome = run_program({in_ / "holiday[3].ppm", in_ / "holiday.ppm[page=2]", "-o", out_});
    EXPECT_EQ(outcome.status, 0) << outcome.err;
    EXPECT_EQ(names_in(out_).size(), 2U);
}

/// All ranks of an MPI run, which the program's own options say.
class RanksThumbnails : public Thumbnails {
protected:
    void SetUp() override {
        if (mpiexec_ == nullptr) GTEST_SKIP() << "built without MPI";
    }

    /// What runs it in place of the program itself.
    std::function<bool()> launcher(std::vector<std::string> more = {}) const {
        std::vector<std::string> words{mpiexec_, "-n", "4",    std::getenv("MULTIHULL_APP"), "thumbnails", in_,
                                       "-o",     out_, "--mpi"};
        words.insert(words.end(), more.begin(), more.end());
        return [this, words] {
            std::vector<char*> argv;
            for (const std::string& word : words) argv.push_back(const_cast<char*>(word.c_str()));
            argv.push_back(nullptr);
            // Ranks that are killed leave files of MPI's behind.
            ::setenv("TMPDIR", folder_.path().c_str(), 1);
            ::setenv("OMPI_MCA_btl_vader_backing_directory", folder_.path().c_str(), 1);
            ::execv(mpiexec_, argv.data());
            return false;
        };
    }

private:
    const char* const mpiexec_ = std::getenv("MULTIHULL_MPIEXEC");
};

TEST_F(RanksThumbnails, MakeThemAndLoseNoneButTheCrasher) {
    make_pictures(12);
    write_crasher(in_ / "crasher.svg");
    Program program({}, launcher());
    const Outcome outcome = program.wait();
    EXPECT_EQ(outcome.status, 1) << outcome.err;
    EXPECT_THAT(outcome.out, AllOf(HasSubstr("12 thumbnails made"), HasSubstr("1 failed"))) << outcome.err;
    EXPECT_THAT(outcome.err, HasSubstr("crasher.svg: "));
    EXPECT_EQ(names_in(out_).size(), 12U);
    EXPECT_TRUE(eventually([&] { return !program.has_processes(); }));
}

TEST_F(RanksThumbnails, KeepWhatIsMadeWhenTheyAreAskedToEnd) {
    make_pictures(20);
    for (int i = 0; i < 8; ++i) {
        write_endless(in_ / ("zz-endless" + std::to_string(i) + ".svg"));
    }
    for (const int signal : {SIGINT, SIGTERM}) {
        Program program({}, launcher({"--timeout", "0", "--jobs", "2", "--force"}));
        ASSERT_TRUE(eventually([this] { return fs::exists(out_ / "picture9.jpg"); }));
        program.signal(signal);
        const Outcome outcome = program.wait();
        EXPECT_GT(outcome.status, 0) << outcome.err;
        // The launcher may have killed the run, unfinished files and all, before it could say so: it allows a second.
        for (const std::string& name : names_in(out_)) {
            EXPECT_TRUE(!name.ends_with(".jpg") || !whole_size(out_ / name).empty()) << name;
        }
        EXPECT_TRUE(eventually([&] { return !program.has_processes(); }));
        EXPECT_TRUE(fs::remove(out_ / "picture9.jpg"));
    }
    for (int i = 0; i < 8; ++i) {
        fs::remove(in_ / ("zz-endless" + std::to_string(i) + ".svg"));
    }
    EXPECT_THAT(Thumbnails::run().out, Not(HasSubstr(" 0 already up to date")));
    EXPECT_EQ(names_in(out_).size(), 20U);
}

}    // namespace
}    // namespace app_test
