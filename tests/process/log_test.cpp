// What the library says, to whom, and how a program or its environment turns it down.
#include <multihull/log.hpp>
#include <multihull/pool.hpp>

#include <gtest/gtest.h>

#include <csignal>
#include <cstdio>
#include <filesystem>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

namespace {

using multihull::LogLevel;

constexpr LogLevel kLevels[] = {LogLevel::debug, LogLevel::info, LogLevel::warning, LogLevel::error};

// Collects what is said while it lives.
class Heard {
public:
    Heard() {
        multihull::set_log_sink([this](LogLevel level, std::string_view text) {
            const std::lock_guard guard(mutex_);
            lines_.emplace_back(level, text);
        });
    }
    ~Heard() {
        multihull::set_log_sink({});
        multihull::set_log_level(LogLevel::warning);
    }
    std::vector<std::pair<LogLevel, std::string>> lines() {
        const std::lock_guard guard(mutex_);
        return lines_;
    }

private:
    std::mutex mutex_;
    std::vector<std::pair<LogLevel, std::string>> lines_;
};

std::string say_all() {
    std::string heard;
    for (const LogLevel level : kLevels) {
        if (multihull::log_enabled(level)) heard += to_string(level)[0];
        multihull::log(level, std::string("this is ") + to_string(level));
    }
    return heard;
}

TEST(Log, LevelsAndSingleLevelsAreHeardOrNot) {
    Heard heard;
    EXPECT_EQ(say_all(), "we");
    multihull::set_log_level(LogLevel::debug);
    EXPECT_EQ(say_all(), "diwe");
    multihull::set_log_enabled(LogLevel::warning, false);
    EXPECT_EQ(say_all(), "die");
    multihull::set_log_level(LogLevel::error);
    multihull::set_log_enabled(LogLevel::debug, true);
    EXPECT_EQ(say_all(), "de");
    const auto lines = heard.lines();
    ASSERT_EQ(lines.size(), 2U + 4U + 3U + 2U);
    for (const auto& [level, text] : lines) EXPECT_EQ(text, std::string("this is ") + to_string(level));
}

TEST(Log, ASinkThatThrowsHarmsNobody) {
    multihull::set_log_sink([](LogLevel, std::string_view) { throw std::runtime_error("no"); });
    multihull::log(LogLevel::error, "nothing comes of this");
    multihull::set_log_sink({});
}

TEST(Log, PoolsTellOfDeathsToWhoAsks) {
    Heard heard;
    const auto crash = [](int x) { return x + raise(SIGSEGV); };
    {
        multihull::Pool pool(1);
        EXPECT_THROW(pool.apply(crash, 1), multihull::WorkerCrashed);
    }
    EXPECT_TRUE(heard.lines().empty());
    multihull::set_log_level(LogLevel::debug);
    {
        multihull::Pool pool({.processes = 1, .name = "talker"});
        EXPECT_THROW(pool.apply(crash, 1), multihull::WorkerCrashed);
    }
    bool started = false;
    bool died = false;
    for (const auto& [level, text] : heard.lines()) {
        started = started || (level == LogLevel::debug && text.find("talker starts 1 worker") != std::string::npos);
        died = died || (level == LogLevel::info && text.find("SIGSEGV") != std::string::npos &&
                        text.find("talker") != std::string::npos);
    }
    EXPECT_TRUE(started);
    EXPECT_TRUE(died);
}

TEST(Log, DISABLED_SayAll) { std::printf("heard:%s\n", say_all().c_str()); }

std::string with_environment(const std::string& setting) {
    const std::string command =
        setting + " '" + std::filesystem::read_symlink("/proc/self/exe").string() +
        "' --gtest_brief=1 --gtest_also_run_disabled_tests --gtest_filter=Log.DISABLED_SayAll 2>&1";
    std::FILE* const pipe = ::popen(command.c_str(), "r");
    std::string output;
    char buffer[4096];
    for (std::size_t got = 0; (got = std::fread(buffer, 1, sizeof buffer, pipe)) > 0;) output.append(buffer, got);
    EXPECT_EQ(::pclose(pipe), 0) << output;
    return output;
}

TEST(Log, TheEnvironmentSaysWhatIsHeard) {
    EXPECT_NE(with_environment("env -u MULTIHULL_LOG").find("heard:we\n"), std::string::npos);
    EXPECT_NE(with_environment("MULTIHULL_LOG=info").find("heard:iwe\n"), std::string::npos);
    EXPECT_NE(with_environment("MULTIHULL_LOG=off").find("heard:\n"), std::string::npos);
    const std::string all = with_environment("MULTIHULL_LOG=debug");
    EXPECT_NE(all.find("multihull: debug: this is debug\n"), std::string::npos);
    EXPECT_NE(all.find("multihull: this is warning\n"), std::string::npos);
    EXPECT_NE(all.find("multihull: error: this is error\n"), std::string::npos);
    const std::string wrong = with_environment("MULTIHULL_LOG=loud");
    EXPECT_NE(wrong.find("MULTIHULL_LOG is \"loud\""), std::string::npos);
    EXPECT_NE(wrong.find("heard:we\n"), std::string::npos);
}

}    // namespace
