// A test of this program run alone, in a process of its own, for what it prints: output that has gone through every buffer, and
// that no process started before the test has seen redirected.
#pragma once

#include <gtest/gtest.h>

#include <cstdio>
#include <filesystem>
#include <stdexcept>
#include <string>

namespace test {

/// What the test `name` (DISABLED_..., of the running test's suite and with its parameter) prints to stdout and stderr.
inline std::string output_of(const std::string& name) {
    const ::testing::TestInfo& current = *::testing::UnitTest::GetInstance()->current_test_info();
    std::string parameter = current.name();
    parameter = parameter.substr(parameter.rfind('/'));
    const std::string command = "'" + std::filesystem::read_symlink("/proc/self/exe").string() +
                                "' --gtest_brief=1 --gtest_also_run_disabled_tests --gtest_filter='" +
                                current.test_suite_name() + "." + name + parameter + "' 2>&1";
    std::FILE* const pipe = ::popen(command.c_str(), "r");
    if (pipe == nullptr) throw std::runtime_error("the test program can't be started again");
    std::string output;
    char buffer[4096];
    for (std::size_t got = 0; (got = std::fread(buffer, 1, sizeof buffer, pipe)) > 0;) output.append(buffer, got);
    EXPECT_EQ(::pclose(pipe), 0) << output;
    return output;
}

/// How often `part` stands in `text`.
inline int times(const std::string& text, const std::string& part) {
    int count = 0;
    for (auto at = text.find(part); at != std::string::npos; at = text.find(part, at + part.size())) ++count;
    return count;
}

}    // namespace test
