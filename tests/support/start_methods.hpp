// Tests that run once for each way in which processes can be started.
#pragma once

#include <multihull/process.hpp>

#include <gtest/gtest.h>

#include <string>

namespace test {

/// Makes each start method in turn the default, for everything that a test starts without naming one.
class StartMethodTest : public ::testing::TestWithParam<multihull::StartMethod> {
protected:
    void SetUp() override { multihull::set_start_method(GetParam()); }
    void TearDown() override { multihull::set_start_method(before_); }

private:
    multihull::StartMethod before_ = multihull::default_start_method();
};

inline auto each_start_method() {
    return ::testing::Values(multihull::StartMethod::fork, multihull::StartMethod::forkserver,
                             multihull::StartMethod::spawn);
}

inline std::string start_method_name(const ::testing::TestParamInfo<multihull::StartMethod>& info) {
    switch (info.param) {
        case multihull::StartMethod::fork:
            return "fork";
        case multihull::StartMethod::forkserver:
            return "forkserver";
        case multihull::StartMethod::spawn:
            return "spawn";
    }
    return "unknown";
}

}    // namespace test
