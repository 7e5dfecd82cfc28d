// Children print where the program prints now, however long ago the process was made that forks them.
#include "support/sanitizer.hpp"
#include "support/start_methods.hpp"

#include <multihull/pool.hpp>
#include <multihull/process.hpp>

#include <gtest/gtest.h>

#include <array>
#include <csignal>
#include <cstdio>
#include <fcntl.h>
#include <optional>
#include <string>
#include <string_view>
#include <sys/mman.h>
#include <unistd.h>

namespace {

using multihull::Pool;
using multihull::Process;

void write_to(int fd, std::string_view text) {
    if (::write(fd, text.data(), text.size()) < 0) std::perror("write");
}

void print_both(const std::string& text) {
    std::printf("out %s\n", text.c_str());
    write_to(STDERR_FILENO, "err " + text + "\n");
}

int print_in_pool(const std::string& text) {
    print_both(text);
    std::fflush(stdout);
    return 1;
}

// One of the program's streams goes into memory for a while.
class Redirected {
public:
    explicit Redirected(int stream)
        : stream_(stream),
          file_(::memfd_create("a new place", MFD_CLOEXEC)),
          before_(::fcntl(stream, F_DUPFD_CLOEXEC, 3)) {
        std::fflush(nullptr);
        ::dup2(file_, stream_);
    }
    Redirected(const Redirected&) = delete;
    Redirected& operator=(const Redirected&) = delete;
    ~Redirected() {
        restore();
        ::close(before_);
        ::close(file_);
    }

    void restore() {
        std::fflush(nullptr);
        ::dup2(before_, stream_);
    }
    std::string text() const {
        std::array<char, 4096> bytes{};
        const ssize_t size = ::pread(file_, bytes.data(), bytes.size(), 0);
        return std::string(bytes.data(), size > 0 ? static_cast<std::size_t>(size) : 0);
    }

private:
    int stream_;
    int file_;
    int before_;
};

class StreamsTest : public test::StartMethodTest {};
INSTANTIATE_TEST_SUITE_P(EachStartMethod, StreamsTest, test::each_start_method(), test::start_method_name);

TEST_P(StreamsTest, a_process_prints_where_the_program_prints_now) {
    Redirected out(STDOUT_FILENO);
    Redirected err(STDERR_FILENO);
    Process process(print_both, std::string("first"));
    process.start();
    process.join();
    out.restore();
    err.restore();
    EXPECT_EQ(process.exitcode(), 0);
    EXPECT_EQ(out.text(), "out first\n");
    // The thread sanitizer has a thread of its own, of which fork warns.
    if (!test::kTsan) {
        EXPECT_EQ(err.text(), "err first\n");
    }
}

TEST_P(StreamsTest, a_pool_made_later_prints_there_and_each_new_worker_where_the_program_prints_by_then) {
    Redirected out(STDOUT_FILENO);
    Redirected err(STDERR_FILENO);
    Pool pool(1);
    EXPECT_EQ(pool.apply(print_in_pool, std::string("first")), 1);
    Redirected later(STDOUT_FILENO);
    EXPECT_THROW(pool.apply([] { ::raise(SIGKILL); }), multihull::WorkerCrashed);
    EXPECT_EQ(pool.apply(print_in_pool, std::string("second")), 1);
    pool.close();
    pool.join();
    later.restore();
    out.restore();
    err.restore();
    EXPECT_EQ(out.text(), "out first\n");
    EXPECT_EQ(later.text(), "out second\n");
    EXPECT_NE(err.text().find("err first\n"), std::string::npos) << err.text();
    EXPECT_NE(err.text().find("err second\n"), std::string::npos) << err.text();
}

TEST_P(StreamsTest, a_program_whose_streams_are_closed_has_children_all_the_same) {
    Redirected out(STDOUT_FILENO);
    Redirected err(STDERR_FILENO);
    std::fflush(nullptr);
    ::close(STDOUT_FILENO);
    ::close(STDERR_FILENO);
    int result = 0;
    std::optional<int> code;
    {
        Pool pool({.processes = 1, .capture_stderr = false});
        result = pool.apply(print_in_pool, std::string("nowhere"));
        Process process(print_both, std::string("nowhere"));
        process.start();
        process.join();
        code = process.exitcode();
    }
    out.restore();
    err.restore();
    EXPECT_EQ(result, 1);
    EXPECT_EQ(code, 0);
    EXPECT_EQ(out.text() + err.text(), "");
}

}    // namespace
