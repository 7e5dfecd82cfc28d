// `multihull compare`: its works, its options, its pictures, and what it says when something is wrong.
#include "comparison_plot.hpp"
#include "comparison_text.hpp"
#include "failure.hpp"
#include "gnuplot.hpp"
#include "program.hpp"
#include "workloads.hpp"

#include <gmock/gmock.h>
#include <nlohmann/json.hpp>

#include <map>

namespace app_test {
namespace {

using namespace std::chrono_literals;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::SizeIs;
using ::testing::StartsWith;

Outcome compare(
    const std::vector<std::string>& arguments, const std::function<bool()>& before = [] { return true; }) {
    return Program(arguments, before, "compare").wait();
}

std::vector<std::uint64_t> results_of(std::string_view name, const app::WorkRequest& request) {
    const app::WorkItems work = app::prepare(*app::find_workload(name), request);
    std::vector<std::uint64_t> results;
    for (const app::WorkItem& item : work.items) {
        results.push_back(app::run_item(item));
    }
    return results;
}

TEST(Workloads, ComputeWhatTheySay) {
    EXPECT_THAT(results_of("count", {.items = 2, .size = 1000}), ElementsAre(499'500, 499'501));
    EXPECT_THAT(results_of("factorial", {.items = 3, .size = 10}), ElementsAre(3'628'800, 39'916'800, 479'001'600));
    EXPECT_THAT(results_of("sleep", {.items = 2, .size = 1}), ElementsAre(0, 1));
    for (const std::uint64_t inside : results_of("pi", {.items = 3, .size = 200'000})) {
        EXPECT_NEAR(4 * static_cast<double>(inside) / 200'000, 3.1416, 0.02);
    }
}

TEST(Workloads, BlocksOfAMatrixProductAreThoseOfTheWholeProduct) {
    constexpr std::size_t kColumns = 70, kRows = 16;    // more than a tile
    const app::WorkItems work = app::prepare(*app::find_workload("matrix"), {.items = 2, .size = kColumns});
    for (app::WorkItem item : work.items) {
        const std::uint64_t found = app::run_item(item);
        // Computed here, and given to an item that multiplies it by the unit matrix: its answer is the number for these rows.
        std::vector<double> product(kRows * kColumns, 0.0);
        for (std::size_t row = 0; row < kRows; ++row) {
            for (std::size_t k = 0; k < kColumns; ++k) {
                for (std::size_t column = 0; column < kColumns; ++column) {
                    product[row * kColumns + column] += item.arrays[0][(item.index * kRows + row) * kColumns + k] *
                                                        item.arrays[1][k * kColumns + column];
                }
            }
        }
        std::vector<double> unit(kColumns * kColumns, 0.0);
        for (std::size_t i = 0; i < kColumns; ++i) {
            unit[i * kColumns + i] = 1;
        }
        item.index = 0;
        item.arrays = {multihull::ConstArray<double>(product), multihull::ConstArray<double>(unit)};
        EXPECT_EQ(app::run_item(item), found);
    }
}

TEST(Workloads, BlurLeavesWhatIsEvenAndSpreadsWhatIsNot) {
    constexpr std::size_t kWidth = 40;
    app::WorkItem item = app::prepare(*app::find_workload("blur"), {.items = 1, .size = kWidth}).items.front();
    const auto blurred = [&item](const std::vector<double>& image) {
        item.arrays = {multihull::ConstArray<double>(image)};
        return app::run_item(item);
    };
    std::vector<double> zeros(16 * kWidth, 0.0);
    const std::uint64_t dark = blurred(zeros);
    zeros[5 * kWidth + 7] = 1;
    const std::uint64_t point = blurred(zeros);
    EXPECT_NE(point, dark);
    EXPECT_EQ(blurred(zeros), point);
}

TEST(Workloads, WordsAreCountedWhateverTheirCaseAndOrder) {
    const Folder folder;
    write_file(folder / "a", "One two, two -- three");
    write_file(folder / "b", "three TWO\ttwo one.");
    write_file(folder / "c", "three two one");
    const auto counts = results_of("words", {.files = {folder.path()}});
    ASSERT_THAT(counts, SizeIs(3));
    EXPECT_EQ(counts[0], counts[1]);
    EXPECT_NE(counts[0], counts[2]);
    EXPECT_THROW(app::prepare(*app::find_workload("words"), {.files = {folder / "none"}}), app::EnvironmentError);
    EXPECT_THAT(results_of("words", {.items = 2, .files = {folder.path()}}), SizeIs(2));
}

TEST(Compare, EveryWorkHasTheSameResultsInEveryWay) {
    const std::map<std::string_view, std::string> sizes{{"count", "1000"}, {"factorial", "20"}, {"sleep", "10"},
                                                        {"pi", "1000"},    {"matrix", "33"},    {"blur", "50"},
                                                        {"options", "20"}, {"words", "1000"}};
    for (const app::Workload& work : app::workloads()) {
        const Outcome outcome = compare({std::string(work.name), "--items", "5", "--size", sizes.at(work.name),
                                         "--jobs", "1,3", "--repeat", "2", "--no-break-even"});
        EXPECT_EQ(outcome.status, 0) << outcome.err;
        EXPECT_THAT(outcome.out, AllOf(StartsWith(std::string(work.title) + ": 5 calls"),
                                       HasSubstr("\nserial        1"), HasSubstr("\nthreads       1"),
                                       HasSubstr("\nthreads       3"), HasSubstr("\nprocesses     1"),
                                       HasSubstr("\nprocesses     3"), HasSubstr("Every way had the same results")));
        EXPECT_THAT(outcome.err,
                    AllOf(HasSubstr(std::string(work.name) + ": 10 of 10 done, "), Not(HasSubstr("failed"))));
    }
}

TEST(Compare, WritesJson) {
    const Folder folder;
    const Outcome outcome = compare({"pi", "--items", "4", "--size", "1000", "--jobs", "2", "--repeat", "3", "--json",
                                     folder / "out.json"});
    EXPECT_EQ(outcome.status, 0) << outcome.err;
    EXPECT_THAT(outcome.out, HasSubstr("A task pays in 2 processes from"));
    EXPECT_THAT(outcome.err, HasSubstr("\nbreak-even, 2 processes: 9 of 9 done, "));
    const auto json = nlohmann::json::parse(read_file(folder / "out.json"));
    EXPECT_EQ(json["work"], "pi");
    EXPECT_EQ(json["items"], 4);
    EXPECT_EQ(json["complete"], true);
    ASSERT_THAT(json["ways"], SizeIs(3));
    EXPECT_THAT(json["ways"][2]["seconds"], SizeIs(3));
    EXPECT_EQ(json["ways"][2]["way"], "processes");
    EXPECT_GT(json["ways"][2]["median_seconds"], 0);
    EXPECT_EQ(json["ways"][0]["speed_up"], 1);
    ASSERT_THAT(json["break_even"], SizeIs(2));
    EXPECT_THAT(json["break_even"][0]["points"], SizeIs(9));
    EXPECT_THAT(names_in(folder.path()), ElementsAre("out.json"));

    // An option's list ends before the work.
    const Outcome piped = compare({"--items", "1", "--size", "10", "--repeat", "1", "--json", "-", "--no-break-even",
                                   "--jobs", "1", "count"});
    EXPECT_EQ(nlohmann::json::parse(piped.out)["size"], 10);
    EXPECT_THAT(piped.err, HasSubstr("Counting loop"));
}

TEST(Compare, DrawsPicturesInBothFormatsAndThemes) {
    if (!app::has_gnuplot()) {
        GTEST_SKIP() << "gnuplot is not installed";
    }
    const Folder folder;
    const std::vector<std::string> small{"sleep", "--items", "2", "--size", "1", "--jobs", "2", "--repeat", "2"};
    auto light = small;
    light.insert(light.end(), {"--plot", folder / "light.svg", "--plot", folder / "light.png", "--no-break-even"});
    const Outcome outcome = compare(light);
    EXPECT_EQ(outcome.status, 0) << outcome.err;
    auto dark = small;
    dark.insert(dark.end(), {"--plot", folder / "dark.svg", "--theme", "dark"});
    EXPECT_EQ(compare(dark).status, 0);
    EXPECT_THAT(names_in(folder.path()), ElementsAre("dark.svg", "light.png", "light.svg"));
    const std::string light_svg = read_file(folder / "light.svg");
    EXPECT_THAT(light_svg, AllOf(HasSubstr("Sleeping, as if"), HasSubstr("processes"), HasSubstr("</svg>"),
                                 Not(HasSubstr("plain loop")), Not(HasSubstr("<script"))));
    const std::string dark_svg = read_file(folder / "dark.svg");
    EXPECT_THAT(dark_svg,
                AllOf(HasSubstr("slower than a plain loop"), HasSubstr("2 processes:"), HasSubstr("one map")));
    EXPECT_THAT(light_svg, HasSubstr("fill=\"#ffffff\""));
    EXPECT_THAT(dark_svg, HasSubstr("fill=\"#0d1117\""));
    const std::string png = read_file(folder / "light.png");
    EXPECT_THAT(png, StartsWith("\x89PNG"));
}

TEST(Compare, SaysWhatItComesTo) {
    using multihull::Prefer;
    multihull::Comparison found{.items = 10, .repeat = 1};
    found.ways = {{.times = {100ms}, .starts = {0s}},
                  {.way = Prefer::threads, .jobs = 1, .times = {98ms}, .starts = {0s}},
                  {.way = Prefer::processes, .jobs = 4, .times = {40ms}, .starts = {1ms}}};
    EXPECT_EQ(
        app::conclusion(found, {{.jobs = 1, .points = {{1us, 0.5, 2}}}}),
        "Every way had the same results. One call takes 10.0 ms.\n"
        "Fastest: 4 processes, 2.50 times as fast as a plain loop.\n"
        "A task pays in 1 process from less than 1.00 us on in a map, from more than 1.00 us on with a future for "
        "each.\n");
    // One thread does what the loop does: where it takes another time, something else was at work.
    for (const auto time : {50ms, 150ms}) {
        found.ways[1].times = {time};
        EXPECT_THAT(app::conclusion(found, {}), HasSubstr("Do not trust these figures: one thread was "));
    }
    found.ways[1].times = {100ms};
    found.ways[2].times = {97ms};
    found.same_results = false;
    EXPECT_THAT(app::conclusion(found, {}), AllOf(StartsWith("THE RESULTS DIFFER"),
                                                  HasSubstr("Nothing was clearly faster"), Not(HasSubstr("trust"))));
}

TEST(Compare, GnuplotSaysWhatIsWrong) {
    if (!app::has_gnuplot()) {
        GTEST_SKIP() << "gnuplot is not installed";
    }
    try {
        app::run_gnuplot("nonsense 1\n");
        FAIL() << "it drew something";
    } catch (const app::EnvironmentError& error) {
        EXPECT_THAT(error.what(), AllOf(HasSubstr("gnuplot could not draw"), HasSubstr("nonsense")));
    }
}

TEST(Compare, TextOfTheUsersIsNoGnuplot) {
    app::ComparisonPicture picture{.title = "it's `date`\nquit", .subtitle = "", .comparison = {}, .break_evens = {}};
    picture.comparison.ways = {{.times = {1s}, .starts = {0s}}};
    const std::string script = app::plot_script(picture, app::PictureFormat::svg, app::Theme::light);
    EXPECT_THAT(script, HasSubstr("'it''s `date` quit'"));
}

TEST(Compare, WhatCannotBeDoneIsOneSentence) {
    const Folder folder;
    struct Case {
        std::vector<std::string> arguments;
        std::string sentence;
    };
    const std::vector<Case> cases{
        {{}, "required"},
        {{"dance"}, "there is no work 'dance'; there are count, factorial"},
        {{"pi", "--items", "0"}, "'0' is not a number"},
        {{"pi", "--size", "-1"}, "'-1' is not a number"},
        {{"pi", "--jobs", "2,0"}, "'0' is not a number"},
        {{"pi", "--jobs", "two"}, "'two' is not a number"},
        {{"pi", "--repeat", "nan"}, "'nan' is not a number"},
        {{"pi", "--plot", "picture.gif"}, "must end in .svg or .png"},
        {{"pi", "--theme", "pink"}, "pink"},
        {{"pi", "--plot", folder / "missing/picture.png"}, "Cannot write"},
        {{"pi", "--json", folder.path()}, "it is a folder"},
        {{"pi", "--files", folder.path()}, "--files is for the work 'words'"},
        {{"words", "--files", folder / "missing"}, "Cannot read"},
        {{"words", "--files", folder.path()}, "There is no file to count words in"},
    };
    for (const Case& one : cases) {
        const Outcome outcome = compare(one.arguments);
        EXPECT_EQ(outcome.status, 2) << one.sentence;
        EXPECT_THAT(outcome.err, AllOf(HasSubstr("multihull: "), HasSubstr(one.sentence)));
        EXPECT_EQ(std::ranges::count(outcome.err, '\n'), 1) << outcome.err;
        EXPECT_EQ(outcome.out, "");
    }
    const Outcome without =
        compare({"pi", "--plot", folder / "picture.png"}, [] { return ::setenv("PATH", "/nowhere", 1) == 0; });
    EXPECT_EQ(without.status, 2);
    EXPECT_THAT(without.err, HasSubstr("apt-get install gnuplot-nox"));
    EXPECT_THAT(names_in(folder.path()), SizeIs(0));
}

TEST(Compare, CtrlCLeavesWhatWasMeasured) {
    const Folder folder;
    Program program(
        {"sleep", "--items", "2", "--size", "1000", "--jobs", "1", "--repeat", "1000", "--json", folder / "out.json"},
        [] { return true; }, "compare");
    ASSERT_TRUE(eventually([&] { return program.err().find("measurements/s") != std::string::npos; }));
    program.signal(SIGINT);
    const Outcome outcome = program.wait();
    EXPECT_EQ(outcome.status, 130) << outcome.err;
    EXPECT_THAT(outcome.out, AllOf(HasSubstr("\nprocesses     1"), HasSubstr("Interrupted")));
    const auto json = nlohmann::json::parse(read_file(folder / "out.json"));
    EXPECT_EQ(json["complete"], false);
    EXPECT_TRUE(eventually([&] { return !program.has_processes(); }));
}

}    // namespace
}    // namespace app_test
