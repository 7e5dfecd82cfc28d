// The sentences that users read.
#include <multihull/error.hpp>

#include <gtest/gtest.h>

#include <csignal>
#include <exception>
#include <string>

namespace {

using multihull::CrashReport;
using multihull::WorkerCrashed;

std::string sentence(CrashReport report) { return WorkerCrashed(std::move(report)).what(); }

TEST(ErrorTest, crash_with_address) {
    EXPECT_EQ(sentence({.pid = 1234, .signal = SIGSEGV, .code = SEGV_MAPERR, .address = 0x10}),
              "worker 1234 crashed with SIGSEGV (address not mapped) at address 0x10");
    EXPECT_EQ(sentence({.pid = 1234, .signal = SIGSEGV, .code = SEGV_MAPERR}),
              "worker 1234 crashed with SIGSEGV (address not mapped) at address 0x0");
}

TEST(ErrorTest, crash_with_everything) {
    const std::uintptr_t addresses[] = {0x10};
    EXPECT_EQ(sentence({.pid = 1234,
                        .signal = SIGFPE,
                        .code = FPE_INTDIV,
                        .address = 0x5000,
                        .stack = multihull::Stack(addresses),
                        .last_stderr = "dividing\nby zero\n",
                        .map_index = 7}),
              "worker 1234 crashed with SIGFPE (integer division by zero or overflow) at address 0x5000, "
              "at element 7 of the input; stack() says where; last stderr: dividing / by zero");
}

TEST(ErrorTest, crash_without_address) {
    EXPECT_EQ(sentence({.pid = 5, .signal = SIGABRT, .code = SI_TKILL, .sender_pid = 5}),
              "worker 5 crashed with SIGABRT (raised by itself)");
    EXPECT_EQ(sentence({.pid = 5, .signal = SIGSEGV, .code = SI_USER, .sender_pid = 6}),
              "worker 5 crashed with SIGSEGV (sent by process 6)");
    EXPECT_EQ(sentence({.pid = 5, .signal = SIGSEGV, .code = SI_KERNEL}),
              "worker 5 crashed with SIGSEGV (an address that can't exist)");
    EXPECT_EQ(sentence({.pid = 5, .signal = SIGTERM}), "worker 5 crashed with SIGTERM (Terminated)");
}

TEST(ErrorTest, kill_has_a_hint) {
    EXPECT_EQ(sentence({.pid = 5, .signal = SIGKILL}),
              "worker 5 crashed with SIGKILL (killed from outside, perhaps by the kernel because memory ran out)");
}

TEST(ErrorTest, signals_have_names) {
    EXPECT_EQ(WorkerCrashed({.signal = SIGBUS}).signal_name(), "SIGBUS");
    EXPECT_EQ(WorkerCrashed({.signal = SIGRTMIN}).signal_name(), "SIGRTMIN");
    EXPECT_EQ(WorkerCrashed({.signal = SIGRTMIN + 3}).signal_name(), "SIGRTMIN+3");
    EXPECT_EQ(WorkerCrashed({.signal = 999}).signal_name(), "signal 999");
    EXPECT_EQ(WorkerCrashed({.exit_status = 0}).signal_name(), "exit");
}

TEST(ErrorTest, exit) {
    const WorkerCrashed error({.pid = 5, .exit_status = 3});
    EXPECT_STREQ(error.what(), "worker 5 ended: the task ended its worker with exit(3)");
    EXPECT_EQ(error.signal(), 0);
    EXPECT_EQ(error.exit_status(), 3);
}

TEST(ErrorTest, long_stderr_is_cut_in_the_sentence_only) {
    const std::string lines(5000, 'x');
    const WorkerCrashed error({.pid = 5, .signal = SIGKILL, .last_stderr = lines});
    EXPECT_LT(std::string(error.what()).size(), 500u);
    EXPECT_TRUE(std::string(error.what()).ends_with("x ..."));
    EXPECT_EQ(error.last_stderr(), lines);
}

TEST(ErrorTest, stderr_can_not_control_the_terminal) {
    const std::string text = sentence({.pid = 5, .signal = SIGKILL, .last_stderr = "\n\n\x1b[31mred\x7f\r\n\tend\n"});
    EXPECT_TRUE(text.ends_with("; last stderr: ?[31mred? / ?end")) << text;
}

TEST(ErrorTest, copies_share_the_report) {
    const WorkerCrashed error({.pid = 5, .signal = SIGKILL});
    const std::exception_ptr kept = std::make_exception_ptr(error);
    try {
        std::rethrow_exception(kept);
    } catch (const WorkerCrashed& copy) {
        EXPECT_EQ(&error.report(), &copy.report());
        EXPECT_STREQ(error.what(), copy.what());
    }
}

TEST(ErrorTest, remote_error) {
    const multihull::RemoteError error("my::Failure", "no such colour", {});
    EXPECT_STREQ(error.what(), "my::Failure: no such colour");
    EXPECT_EQ(error.type_name(), "my::Failure");
    EXPECT_EQ(error.text(), "no such colour");
    EXPECT_STREQ(multihull::RemoteError("int", "", {}).what(), "int");
}

TEST(ErrorTest, time_out) {
    using std::chrono_literals::operator""ms;
    const multihull::CpuTimeExceeded error("too much", 500ms, {});
    EXPECT_STREQ(error.what(), "too much");
    EXPECT_EQ(error.limit(), 500ms);
    EXPECT_TRUE(error.stack().empty());
    EXPECT_THROW(throw multihull::CpuTimeExceeded(error), multihull::TaskTimeout);
}

}    // namespace
