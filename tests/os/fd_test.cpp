// Descriptors: they close themselves, once, and what is made of them does what it says.
#include "os/fd.hpp"
#include "os/clock.hpp"
#include "os/message.hpp"
#include "os/poll.hpp"
#include "os/process.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <fcntl.h>
#include <string>
#include <sys/wait.h>
#include <system_error>
#include <thread>
#include <unistd.h>
#include <vector>

namespace {

namespace os = multihull::os;
using os::Fd;

bool is_open(int fd) { return ::fcntl(fd, F_GETFD) >= 0; }
bool closes_on_exec(int fd) { return (::fcntl(fd, F_GETFD) & FD_CLOEXEC) != 0; }

TEST(FdTest, closes_itself_once) {
    int number = -1;
    {
        const Fd fd(::open("/dev/null", O_RDONLY));
        number = fd.get();
        EXPECT_TRUE(fd);
        EXPECT_TRUE(is_open(number));
    }
    EXPECT_FALSE(is_open(number));
    const Fd none;
    EXPECT_FALSE(none);
    EXPECT_EQ(none.get(), -1);
}

TEST(FdTest, moves) {
    Fd first(::open("/dev/null", O_RDONLY));
    const int number = first.get();
    Fd second = std::move(first);
    EXPECT_FALSE(first);    // NOLINT: what a moved-from descriptor is, is what is tested
    EXPECT_EQ(second.get(), number);
    Fd third(::open("/dev/null", O_RDONLY));
    const int replaced = third.get();
    third = std::move(second);
    EXPECT_FALSE(is_open(replaced));
    EXPECT_EQ(third.get(), number);
    Fd& same = third;
    third = std::move(same);
    EXPECT_TRUE(is_open(number));
    const int released = third.release();
    EXPECT_TRUE(is_open(released));
    ::close(released);
}

TEST(FdTest, keeps_off_the_numbers_of_standard_streams) {
    const int before = ::fcntl(STDIN_FILENO, F_DUPFD_CLOEXEC, 3);
    ::close(STDIN_FILENO);
    {
        const Fd fd(::open("/dev/null", O_RDONLY | O_CLOEXEC));
        EXPECT_GT(fd.get(), STDERR_FILENO);
        EXPECT_TRUE(closes_on_exec(fd.get()));
        EXPECT_FALSE(is_open(STDIN_FILENO));
        const os::FdPair pipe = os::make_pipe();
        EXPECT_GT(pipe.first.get(), STDERR_FILENO);
        EXPECT_NE(::fcntl(pipe.first.get(), F_GETFL) & O_NONBLOCK, 0);
    }
    ::dup2(before, STDIN_FILENO);
    ::close(before);
}

TEST(FdTest, an_eventfd_is_readable_from_signal_to_drain) {
    const Fd event = os::make_eventfd();
    EXPECT_TRUE(closes_on_exec(event.get()));
    EXPECT_FALSE(os::wait_readable(event.get(), os::now_ns()));
    os::signal_eventfd(event);
    os::signal_eventfd(event);
    EXPECT_TRUE(os::wait_readable(event.get(), os::kNever));
    os::drain_eventfd(event);
    EXPECT_FALSE(os::wait_readable(event.get(), os::now_ns()));
    os::drain_eventfd(event);
}

TEST(FdTest, a_pipe_gives_what_is_there_and_tells_its_end) {
    os::FdPair pipe = os::make_pipe();
    EXPECT_TRUE(closes_on_exec(pipe.first.get()));
    EXPECT_TRUE(closes_on_exec(pipe.second.get()));
    char buffer[16];
    std::size_t got = 99;
    EXPECT_TRUE(os::read_available(pipe.first, buffer, got));
    EXPECT_EQ(got, 0u);
    EXPECT_TRUE(os::write_all(pipe.second.get(), std::string("abc")));
    EXPECT_TRUE(os::read_available(pipe.first, buffer, got));
    EXPECT_EQ(std::string(buffer, got), "abc");
    pipe.second.reset();
    EXPECT_FALSE(os::read_available(pipe.first, buffer, got));
    EXPECT_EQ(got, 0u);
}

TEST(FdTest, write_all_writes_more_than_fits_at_once) {
    os::FdPair pipe = os::make_pipe();
    const std::string text(1'000'000, 'w');
    std::string back;
    std::thread reader([&] {
        char buffer[4096];
        std::size_t got = 0;
        while (os::read_available(pipe.first, buffer, got)) {
            back.append(buffer, got);
            if (got == 0) os::wait_readable(pipe.first.get(), os::kNever);
        }
        back.append(buffer, got);
    });
    EXPECT_TRUE(os::write_all(pipe.second.get(), text));
    pipe.second.reset();
    reader.join();
    EXPECT_EQ(back, text);
    EXPECT_FALSE(os::write_all(-1, text));
}

TEST(FdTest, a_full_pipe_is_not_writable) {
    const os::FdPair pipe = os::make_pipe();
    EXPECT_TRUE(os::writable(pipe.second.get()));
    ::fcntl(pipe.second.get(), F_SETFL, O_NONBLOCK);
    const std::string block(4096, 'x');
    while (::write(pipe.second.get(), block.data(), block.size()) > 0) {}
    EXPECT_FALSE(os::writable(pipe.second.get()));
}

TEST(FdTest, throw_errno_says_what_was_tried) {
    errno = EMFILE;
    try {
        os::throw_errno("trying");
        FAIL();
    } catch (const std::system_error& error) {
        EXPECT_EQ(error.code(), std::errc::too_many_files_open);
        EXPECT_NE(std::string(error.what()).find("trying"), std::string::npos);
    }
}

std::vector<std::byte> bytes_of(const std::string& text) {
    std::vector<std::byte> bytes(text.size());
    std::transform(text.begin(), text.end(), bytes.begin(), [](char c) { return static_cast<std::byte>(c); });
    return bytes;
}

TEST(MessageTest, arrives_whole_and_with_its_descriptors) {
    os::FdPair sockets = os::make_socket_pair();
    const os::FdPair pipe = os::make_pipe();
    const auto message = bytes_of("a message");
    const int fds[] = {pipe.first.get(), pipe.second.get()};
    ASSERT_EQ(os::send_message(sockets.first, message, fds, true), os::Sent::yes);
    ASSERT_EQ(os::send_message(sockets.first, message, {}, true), os::Sent::yes);
    std::vector<std::byte> got(message.size());
    std::vector<Fd> received;
    ASSERT_EQ(os::receive_message(sockets.second, got, received, true), os::Received::yes);
    EXPECT_EQ(got, message);
    ASSERT_EQ(received.size(), 2u);
    EXPECT_TRUE(closes_on_exec(received[0].get()));
    EXPECT_TRUE(os::write_all(received[1].get(), std::string("x")));
    EXPECT_TRUE(os::wait_readable(pipe.first.get(), os::kNever));
    ASSERT_EQ(os::receive_message(sockets.second, got, received, true), os::Received::yes);
    EXPECT_TRUE(received.empty());
    EXPECT_EQ(os::receive_message(sockets.second, got, received, false), os::Received::would_block);
    sockets.first.reset();
    EXPECT_EQ(os::receive_message(sockets.second, got, received, false), os::Received::gone);
    EXPECT_EQ(os::send_message(sockets.second, message, {}, false), os::Sent::gone);
}

TEST(MessageTest, does_not_block_when_nobody_reads) {
    const os::FdPair sockets = os::make_socket_pair();
    const auto message = bytes_of(std::string(512, 'm'));
    int sent = 0;
    while (os::send_message(sockets.first, message, {}, false) == os::Sent::yes) ASSERT_LT(++sent, 1'000'000);
    EXPECT_GT(sent, 0);
    std::vector<std::byte> got(message.size());
    std::vector<Fd> fds;
    for (int i = 0; i < sent; ++i) {
        ASSERT_EQ(os::receive_message(sockets.second, got, fds, false), os::Received::yes);
    }
    EXPECT_EQ(os::receive_message(sockets.second, got, fds, false), os::Received::would_block);
}

TEST(MessageTest, a_message_of_another_size_is_no_message) {
    const os::FdPair sockets = os::make_socket_pair();
    ASSERT_EQ(os::send_message(sockets.first, bytes_of("short"), {}, true), os::Sent::yes);
    std::vector<std::byte> got(64);
    std::vector<Fd> fds;
    EXPECT_NE(os::receive_message(sockets.second, got, fds, false), os::Received::yes);
}

}    // namespace
