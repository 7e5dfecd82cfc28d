// `multihull top`: what it prints for scripts, and how it behaves in a real terminal (tmux).
#include "program.hpp"
#include "support/board.hpp"
#include "top_screen.hpp"

#include <multihull/pool.hpp>

#include <gmock/gmock.h>
#include <nlohmann/json.hpp>

namespace app_test {
namespace {

using namespace std::chrono_literals;
using multihull::WorkerState;
using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::SizeIs;

[[gnu::noinline]] void crash() {
    ::raise(SIGSEGV);
    asm volatile("");    // optimized, a call at the end is a jump, and leaves no frame on the stack
}

/// This test's own pool, which is at a task and has lost a worker.
class Top : public ::testing::Test {
protected:
    Top() {
        EXPECT_THROW(pool_.apply(crash), multihull::WorkerCrashed);
        held_ = pool_.apply_async(test::hold, board_.path(), 1);
        EXPECT_TRUE(board_.wait_until_at_least(test::kHeld, 1));
    }
    ~Top() override { board_[test::kLetGo] = 1; }

    test::Board board_;
    multihull::Pool pool_{{.processes = 2, .pass_stderr = false, .name = "seen by top", .publish = true}};
    multihull::Future<int> held_;
};

Outcome top(const std::vector<std::string>& arguments) {
    return Program(
               arguments, [] { return true; }, "top")
        .wait();
}

TEST_F(Top, OnceIsATable) {
    const Outcome outcome = top({"--once", "--interval", "0.1"});
    EXPECT_EQ(outcome.status, 0) << outcome.err;
    EXPECT_THAT(outcome.out, AllOf(HasSubstr("multihull top: "),
                                   HasSubstr("app_top (" + std::to_string(getpid()) + ")"), HasSubstr(" seen by top: "),
                                   HasSubstr("1 of 2 busy"), HasSubstr("1 crashed"), HasSubstr("test::hold("),
                                   HasSubstr("crashed with SIGSEGV"), HasSubstr("in "), HasSubstr("crash()")));
}

TEST_F(Top, JsonIsForScripts) {
    const Outcome outcome = top({"--json", "--interval", "0.1"});
    EXPECT_EQ(outcome.status, 0) << outcome.err;
    const auto json = nlohmann::json::parse(outcome.out);
    for (const auto& program : json["programs"]) {
        if (program["pid"] != getpid()) {
            continue;
        }
        const auto& pool = program["pools"][0];
        EXPECT_EQ(pool["name"], "seen by top");
        EXPECT_EQ(pool["crashed"], 1);
        EXPECT_THAT(pool["workers"], SizeIs(2));
        ASSERT_THAT(pool["failures"], SizeIs(1));
        EXPECT_THAT(std::string(pool["failures"][0]["stack"]), HasSubstr("crash()"));
        return;
    }
    FAIL() << outcome.out;
}

TEST_F(Top, WithoutATerminalItSaysWhatToDo) {
    const Outcome outcome = top({});
    EXPECT_EQ(outcome.status, 2);
    EXPECT_THAT(outcome.err, HasSubstr("use --once or --json"));
    EXPECT_THAT(top({"--once", "--json"}).err, HasSubstr("excludes"));
    EXPECT_THAT(top({"--interval", "0"}).err, HasSubstr("'0' is not a number"));
}

/// A terminal of a given size, in which a shell runs the program.
class Tmux {
public:
    Tmux(int width, int height) {
        const std::string path = std::getenv("MULTIHULL_APP");
        run("-f /dev/null new-session -d -x " + std::to_string(width) + " -y " + std::to_string(height) +
            " 'PS1=ready: sh'");
        run("send-keys -l '" + path + " top --interval 0.1'");
        run("send-keys Enter");
    }
    Tmux(const Tmux&) = delete;
    Tmux& operator=(const Tmux&) = delete;
    ~Tmux() { run("kill-server"); }

    static bool available() { return std::system("tmux -V >/dev/null 2>&1") == 0; }

    std::string run(const std::string& command) const {
        const std::string whole = "tmux -S '" + (folder_ / "socket").string() + "' " + command + " 2>&1";
        std::FILE* const pipe = ::popen(whole.c_str(), "r");
        std::string output;
        char buffer[4096];
        for (std::size_t got = 0; (got = std::fread(buffer, 1, sizeof buffer, pipe)) > 0;) {
            output.append(buffer, got);
        }
        ::pclose(pipe);
        return output;
    }
    std::string screen() const { return run("capture-pane -p"); }
    bool shows(const std::string& text) const {
        return eventually([&] { return screen().find(text) != std::string::npos; });
    }

private:
    Folder folder_;
};

class TopInATerminal : public Top, public ::testing::WithParamInterface<std::pair<int, std::string>> {};

TEST_P(TopInATerminal, FitsAndLeavesItClean) {
    if (!Tmux::available()) {
        GTEST_SKIP() << "tmux is not installed";
    }
    const auto& [width, key] = GetParam();
    const Tmux terminal(width, 40);
    ASSERT_TRUE(terminal.shows("seen by top: ")) << terminal.screen();
    EXPECT_TRUE(terminal.shows("q quits"));
    const std::string screen = terminal.screen();
    EXPECT_THAT(screen, HasSubstr("busy"));
    EXPECT_EQ(screen.find("RESTARTS") != std::string::npos, width >= 100) << screen;
    terminal.run("send-keys " + key);
    // The shell is back, on the screen that was there before, and what is typed is seen.
    ASSERT_TRUE(terminal.shows("ready:")) << terminal.screen();
    terminal.run("send-keys -l 'echo one$((1 + 1))three'");
    terminal.run("send-keys Enter");
    EXPECT_TRUE(terminal.shows("one2three")) << terminal.screen();
    EXPECT_THAT(terminal.screen(), AllOf(HasSubstr("echo one"), Not(HasSubstr("q quits"))));
}

INSTANTIATE_TEST_SUITE_P(Sizes, TopInATerminal,
                         ::testing::Values(std::pair(50, "q"), std::pair(80, "C-c"), std::pair(160, "q")));

app::ProgramView a_program(std::size_t workers) {
    app::PoolView pool;
    pool.pool.stats.name = "pool";
    pool.pool.stats.workers.resize(workers,
                                   {.pid = 4'000'000, .state = WorkerState::busy, .task = std::string(300, 'f')});
    pool.pool.memory.resize(workers, 123'456'789);
    pool.pool.failures.resize(9, {.what = "line\nbreak \x1b[31m and \xc3\xa9"});
    return {.pid = 4'000'000, .command = "p\trogram", .pools = {pool}};
}

TEST(TopLines, AreNoWiderThanTheScreenAndSteerNothing) {
    for (const std::size_t width : {1U, 20U, 79U, 99U, 100U, 300U}) {
        const auto lines = app::top_lines({a_program(3)}, width);
        for (const app::ScreenLine& line : lines) {
            EXPECT_LE(line.text.size(), width);
            EXPECT_TRUE(std::ranges::all_of(line.text, [](unsigned char c) { return c >= 0x20 && c < 0x7F; }));
        }
        EXPECT_GE(lines.size(), 3U + 5U);
    }
    EXPECT_THAT(app::top_lines({}, 80).back().text, HasSubstr("MULTIHULL_MONITOR=1"));
}

TEST(TopLines, SizesHaveThreeDigits) {
    EXPECT_EQ(app::size_text(0), "-");
    EXPECT_EQ(app::size_text(999), "999 B");
    EXPECT_EQ(app::size_text(12'345), "12.3 kB");
    EXPECT_EQ(app::size_text(123'456'789), "123 MB");
}

}    // namespace
}    // namespace app_test
