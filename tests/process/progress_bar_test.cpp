// Progress bars: lines where there is no terminal, and what a real terminal (tmux) shows of them, wide and narrow.
#include "support/board.hpp"
#include "support/folder.hpp"

#include <multihull/pool.hpp>
#include <multihull/progress_bar.hpp>

#include <gtest/gtest.h>

#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <ranges>
#include <sstream>
#include <string>
#include <sys/wait.h>
#include <thread>
#include <unistd.h>
#include <vector>

namespace {

using multihull::ProgressBar;

int square(int x) { return x * x; }

// What is written to a pipe, which is no terminal.
template <class Write>
std::string written(Write write) {
    int ends[2];
    EXPECT_EQ(::pipe(ends), 0);
    write(ends[1]);
    ::close(ends[1]);
    std::string text;
    char buffer[1024];
    for (ssize_t got = 0; (got = ::read(ends[0], buffer, sizeof buffer)) > 0;)
        text.append(buffer, static_cast<std::size_t>(got));
    ::close(ends[0]);
    return text;
}

TEST(ProgressBar, IsOneLineWhereThereIsNoTerminal) {
    const std::string text = written([](int descriptor) {
        const ProgressBar bar({.label = "evil\x1b[2J", .unit = "frames", .descriptor = descriptor});
        for (std::size_t i = 0; i <= 1000; ++i) bar.show(i, i / 100, 1000);
        bar.finish();
        bar.show(1, 1, 1);
        bar.finish();
    });
    EXPECT_EQ(text.find("evil [2J: 1000 of 1000 done, 10 failed, "), 0U) << text;
    EXPECT_NE(text.find(" frames/s\n"), std::string::npos) << text;
    EXPECT_EQ(text.find('\x1b'), std::string::npos);
    EXPECT_EQ(text.find('\n'), text.size() - 1);
}

TEST(ProgressBar, ShowsAMap) {
    const std::string text = written([](int descriptor) {
        multihull::Pool pool(2);
        const auto squares = pool.map(square, std::views::iota(0, 5000),
                                      {.progress = ProgressBar({.label = "squares", .descriptor = descriptor})});
        EXPECT_EQ(squares.size(), 5000U);
    });
    EXPECT_EQ(text.find("squares: 5000 of 5000 done, "), 0U) << text;
}

TEST(ProgressBar, IsTheParentsAfterAFork) {
    const std::string text = written([](int descriptor) {
        const ProgressBar bar({.total = 10, .descriptor = descriptor});
        const pid_t child = ::fork();
        if (child == 0) {
            bar.show(5);
            bar.finish();
            ::_exit(0);
        }
        int status = -1;
        ::waitpid(child, &status, 0);
        EXPECT_EQ(status, 0);
    });
    EXPECT_EQ(text.find("0 of 10 done"), 0U) << text;
    EXPECT_EQ(std::ranges::count(text, '\n'), 1);
}

std::string output_of(const std::string& command) {
    std::FILE* const pipe = ::popen(command.c_str(), "r");
    std::string output;
    char buffer[4096];
    for (std::size_t got = 0; (got = std::fread(buffer, 1, sizeof buffer, pipe)) > 0;) output.append(buffer, got);
    ::pclose(pipe);
    return output;
}

void wait_for_file(const std::filesystem::path& path) {
    test::eventually([&] { return std::filesystem::exists(path); });
}

// Runs in tmux: three bars, one with failures and one that vanishes; then, when told so, their ends.
TEST(ProgressBar, DISABLED_Bars) {
    const std::filesystem::path folder = std::getenv("MULTIHULL_TEST_FOLDER");
    const ProgressBar first({.label = "first", .total = 100});
    const ProgressBar second({.label = "zweite Höhe", .total = 10, .unit = "images", .show_failed = true});
    const ProgressBar third({.label = "third", .total = 4, .keep = false});
    // Each is drawn at once when it is complete; the others with it.
    first.show(50);
    second.show(3, 1);
    third.show(4);
    std::ofstream(folder / "shown").put('1');
    wait_for_file(folder / "go");
    third.finish();
    first.show(100);
    first.finish();
    second.show(10, 2);
    second.finish();
    std::puts("after them");
}

class Terminal {
public:
    Terminal(int columns, const std::string& name) {
        const std::string self = std::filesystem::read_symlink("/proc/self/exe").string();
        const std::string inner = "env MULTIHULL_TEST_FOLDER=" + folder_.path() + " TERM=screen '" + self +
                                  "' --gtest_brief=1 --gtest_also_run_disabled_tests --gtest_filter=ProgressBar." +
                                  name + "; echo ended; exec timeout 300 cat";
        std::ofstream(folder_ / "run.sh") << "trap : INT\n" << inner << '\n';
        tmux("-f /dev/null new-session -d -x " + std::to_string(columns) + " -y 20 'exec sh " + folder_.path() +
             "/run.sh'");
    }
    ~Terminal() { tmux("kill-server"); }
    Terminal(const Terminal&) = delete;
    Terminal& operator=(const Terminal&) = delete;

    std::string tmux(const std::string& command) {
        return output_of("tmux -S '" + (folder_ / "socket").string() + "' " + command + " 2>&1");
    }
    std::vector<std::string> screen() {
        std::istringstream text(tmux("capture-pane -p"));
        std::vector<std::string> lines;
        for (std::string line; std::getline(text, line);) lines.push_back(line);
        while (!lines.empty() && lines.back().empty()) lines.pop_back();
        return lines;
    }
    std::string shown() {
        std::string all;
        for (const auto& line : screen()) all += line + "\n";
        return all;
    }
    bool shows(const std::string& text) {
        return test::eventually([&] { return shown().find(text) != std::string::npos; });
    }
    void wait_for(const std::string& file) { wait_for_file(folder_ / file); }
    void make(const std::string& file) { std::ofstream(folder_ / file).put('1'); }

private:
    test::Folder folder_;
};

bool no_tmux() { return std::system("command -v tmux >/dev/null") != 0; }

TEST(ProgressBar, SeveralStandBelowEachOtherInATerminal) {
    if (no_tmux()) GTEST_SKIP() << "no tmux here";
    Terminal terminal(110, "DISABLED_Bars");
    terminal.wait_for("shown");
    ASSERT_TRUE(terminal.shows("third [########################] 4 of 4 done")) << terminal.shown();
    auto lines = terminal.screen();
    ASSERT_GE(lines.size(), 3U);
    const auto last = lines.size() - 1;
    EXPECT_EQ(lines[last - 2].find("first [############............] 50 of 100 done, "), 0U) << terminal.shown();
    EXPECT_EQ(lines[last - 1].find("zweite Höhe [#######.................] 3 of 10 done, 1 failed, "), 0U)
        << terminal.shown();
    EXPECT_NE(lines[last - 1].find("images/s, "), std::string::npos);
    EXPECT_EQ(lines[last].find("third [########################] 4 of 4 done, "), 0U);
    terminal.make("go");
    ASSERT_TRUE(terminal.shows("ended")) << terminal.shown();
    const std::string shown = terminal.shown();
    EXPECT_EQ(shown.find("third"), std::string::npos) << shown;
    const auto first = shown.find("first [########################] 100 of 100 done, ");
    const auto second = shown.find("zweite Höhe [########################] 10 of 10 done, 2 failed, ");
    const auto after = shown.find("\nafter them\n");
    EXPECT_NE(first, std::string::npos) << shown;
    EXPECT_NE(second, std::string::npos) << shown;
    EXPECT_LT(first, second);
    EXPECT_LT(second, after);
}

TEST(ProgressBar, NarrowLinesAreCutAndNeverWrap) {
    if (no_tmux()) GTEST_SKIP() << "no tmux here";
    Terminal terminal(30, "DISABLED_Bars");
    terminal.wait_for("shown");
    ASSERT_TRUE(terminal.shows("third [########] 4 of 4 done")) << terminal.shown();
    const auto lines = terminal.screen();
    const auto last = lines.size() - 1;
    EXPECT_EQ(lines[last - 2], "first [####....] 50 of 100 do") << terminal.shown();
    EXPECT_EQ(lines[last - 1], "zweite Höhe [##......] 3 of 1") << terminal.shown();
    terminal.make("go");
    EXPECT_TRUE(terminal.shows("after them")) << terminal.shown();
    EXPECT_EQ(terminal.shown().find("third"), std::string::npos) << terminal.shown();
}

TEST(ProgressBar, AnInterruptLeavesTheTerminalAsItWas) {
    if (no_tmux()) GTEST_SKIP() << "no tmux here";
    Terminal terminal(80, "DISABLED_Bars");
    terminal.wait_for("shown");
    ASSERT_TRUE(terminal.shows("4 of 4 done")) << terminal.shown();
    // The shell that ran it goes on: only the program is interrupted.
    terminal.tmux("send-keys C-c");
    EXPECT_TRUE(terminal.shows("^C") || terminal.shows("ended")) << terminal.shown();
    EXPECT_EQ(terminal.tmux("display-message -p '#{cursor_flag}#{alternate_on}'"), "10\n");
}

}    // namespace
