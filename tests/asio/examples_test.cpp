// The programs of examples/asio, as their users meet them.
#include <gtest/gtest.h>

#include <arpa/inet.h>
#include <csignal>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <netinet/in.h>
#include <stdexcept>
#include <string>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>
#include <utility>
#include <vector>

namespace {

// A program whose output is read here.
class Program {
public:
    explicit Program(const char* variable) {
        const char* const path = std::getenv(variable);
        if (path == nullptr) throw std::runtime_error(std::string(variable) + " is not set: run this by ctest");
        int ends[2];
        if (::pipe(ends) != 0) throw std::runtime_error("no pipe");
        pid_ = ::fork();
        if (pid_ == 0) {
            ::dup2(ends[1], STDOUT_FILENO);
            ::close(ends[0]);
            ::close(ends[1]);
            // Its workers crash on purpose, by a signal, and not by what a sanitizer makes of that.
            const char* const options = std::getenv("ASAN_OPTIONS");
            ::setenv("ASAN_OPTIONS",
                     ((options != nullptr ? std::string(options) : std::string()) + ":handle_segv=0").c_str(), 1);
            ::execl(path, path, nullptr);
            ::_exit(127);
        }
        ::close(ends[1]);
        output_ = ::fdopen(ends[0], "r");
    }
    Program(const Program&) = delete;
    Program& operator=(const Program&) = delete;
    ~Program() {
        std::fclose(output_);
        if (pid_ > 0) {
            ::kill(pid_, SIGKILL);
            ::waitpid(pid_, nullptr, 0);
        }
    }

    std::string line() {
        std::string text;
        for (int c = 0; (c = std::fgetc(output_)) != EOF && c != '\n';) text += static_cast<char>(c);
        return text;
    }
    void signal(int number) const { ::kill(pid_, number); }
    int wait() {
        int status = -1;
        ::waitpid(std::exchange(pid_, -1), &status, 0);
        return status;
    }

private:
    pid_t pid_ = -1;
    std::FILE* output_ = nullptr;
};

class Client {
public:
    explicit Client(int port) : socket_(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
        sockaddr_in address{};
        address.sin_family = AF_INET;
        address.sin_port = htons(static_cast<std::uint16_t>(port));
        address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
        if (::connect(socket_, reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) {
            throw std::runtime_error("nobody listens");
        }
    }
    Client(const Client&) = delete;
    Client& operator=(const Client&) = delete;
    ~Client() { ::close(socket_); }

    void say(const std::string& line) const {
        ASSERT_EQ(::send(socket_, (line + "\n").data(), line.size() + 1, MSG_NOSIGNAL),
                  static_cast<ssize_t>(line.size()) + 1);
    }
    std::string hear() const {
        std::string text;
        for (char c = 0; ::recv(socket_, &c, 1, 0) == 1 && c != '\n';) text += c;
        return text;
    }
    std::string ask(const std::string& line) const {
        say(line);
        return hear();
    }

private:
    int socket_;
};

TEST(FibonacciServer, goes_on_serving_whatever_is_asked) {
    Program server("MULTIHULL_FIBONACCI_SERVER");
    const std::string first = server.line();
    ASSERT_TRUE(first.starts_with("listening on port ")) << first;
    const int port = std::stoi(first.substr(18));
    const Client endless(port);
    endless.say("90");    // takes longer than anybody waits
    const Client client(port);
    EXPECT_EQ(client.ask("10"), "55");
    const std::string crash = client.ask("-1");
    EXPECT_TRUE(crash.starts_with("error: ")) << crash;
    // Or in a sanitizer's words.
    EXPECT_TRUE(crash.find("SIGSEGV") != std::string::npos || crash.find("null pointer") != std::string::npos) << crash;
    EXPECT_EQ(client.ask("20"), "6765");
    EXPECT_TRUE(client.ask("no number").starts_with("error: "));
    std::vector<std::unique_ptr<Client>> many;
    for (int i = 0; i < 50; ++i) many.push_back(std::make_unique<Client>(port));
    for (int i = 0; i < 50; ++i) many[static_cast<std::size_t>(i)]->say(i % 10 == 3 ? "-1" : "15");
    for (int i = 0; i < 50; ++i) {
        const std::string answer = many[static_cast<std::size_t>(i)]->hear();
        EXPECT_TRUE(i % 10 == 3 ? answer.starts_with("error: ") : answer == "610") << answer;
    }
    server.signal(SIGTERM);
    const int status = server.wait();
    EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0) << status;
}

TEST(Crawler, a_page_costs_itself) {
    Program crawler("MULTIHULL_CRAWLER");
    EXPECT_EQ(crawler.line(), "crawled 98 pages, lost 2");
    EXPECT_EQ(crawler.line(), "  /33: the parser crashed");
    EXPECT_EQ(crawler.line(), "  /66: the parser did not end");
    EXPECT_EQ(crawler.wait(), 0);
}

}    // namespace
