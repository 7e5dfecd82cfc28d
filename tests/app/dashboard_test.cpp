// `multihull dashboard`: who is refused, what is told, and the page in a real browser.
#include "program.hpp"
#include "support/board.hpp"
#include "support/python_peer.hpp"

#include <multihull/pool.hpp>

#include <gmock/gmock.h>
#include <netinet/in.h>
#include <nlohmann/json.hpp>
#include <sys/socket.h>

#include <array>
#include <atomic>
#include <regex>

namespace app_test {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::SizeIs;
using ::testing::StartsWith;

[[gnu::noinline]] void crash() {
    ::raise(SIGSEGV);
    asm volatile("");    // optimized, a call at the end is a jump, and leaves no frame on the stack
}
int tick(int x) {
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
    return x;
}

/// A dashboard, and this test's own pool for it to show.
class Dashboard : public ::testing::Test {
protected:
    Dashboard()
        : program_(
              {}, [] { return true; }, "dashboard") {
        std::smatch found;
        const std::regex form(R"(http://127\.0\.0\.1:(\d+)/\?token=([0-9a-f]{32})\n)");
        const bool printed = eventually([&] {
            out_ = program_.out();
            return std::regex_match(out_, found, form);
        });
        if (!printed) {
            throw std::runtime_error("no address in: " + out_ + program_.err());
        }
        port_ = static_cast<std::uint16_t>(std::stoi(found[1]));
        token_ = found[2];
    }

    /// What the server answers to these lines, to its end.
    std::string ask(const std::string& request) const {
        const int socket = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        sockaddr_in address{};
        address.sin_family = AF_INET;
        address.sin_port = htons(port_);
        address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
        std::string answer;
        if (::connect(socket, reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0 &&
            ::send(socket, request.data(), request.size(), MSG_NOSIGNAL) == static_cast<ssize_t>(request.size())) {
            std::array<char, 4096> buffer{};
            for (ssize_t n = 0; (n = ::recv(socket, buffer.data(), buffer.size(), 0)) > 0;) {
                answer.append(buffer.data(), static_cast<std::size_t>(n));
            }
        }
        ::close(socket);
        return answer;
    }
    std::string host() const { return "127.0.0.1:" + std::to_string(port_); }
    std::string get(const std::string& path, const std::string& headers, const std::string& method = "GET") const {
        return ask(method + " " + path + " HTTP/1.1\r\nConnection: close\r\n" + headers + "\r\n");
    }
    std::string state() const {
        return get("/state", "Host: " + host() + "\r\nAuthorization: Bearer " + token_ + "\r\n");
    }

    Program program_;
    std::string out_;
    std::uint16_t port_ = 0;
    std::string token_;
};

TEST_F(Dashboard, AnswersWhoKnowsTheToken) {
    const std::string us = "Host: " + host() + "\r\n";
    const std::string page = get("/?token=" + token_, us);
    EXPECT_THAT(page,
                AllOf(StartsWith("HTTP/1.1 200"), HasSubstr("<title>Multihull dashboard</title>"),
                      HasSubstr("Content-Security-Policy: default-src 'none'"), HasSubstr("X-Frame-Options: DENY"),
                      HasSubstr("Referrer-Policy: no-referrer"), Not(HasSubstr("NONCE")), Not(HasSubstr(token_))));
    EXPECT_THAT(get("/?token=" + token_, "Host: localhost:" + std::to_string(port_) + "\r\n"),
                StartsWith("HTTP/1.1 200"));
    EXPECT_THAT(state(), AllOf(StartsWith("HTTP/1.1 200"), HasSubstr("\"programs\":")));
    EXPECT_THAT(get("/elsewhere?token=" + token_, us), StartsWith("HTTP/1.1 404"));
}

TEST_F(Dashboard, RefusesEverybodyElse) {
    const std::string us = "Host: " + host() + "\r\n";
    const std::string right = "Authorization: Bearer " + token_ + "\r\n";
    std::string wrong = token_;
    wrong[31] = wrong[31] == '0' ? '1' : '0';
    const std::vector<std::string> refused{
        get("/", us),
        get("/?token=", us),
        get("/?token=" + wrong, us),
        get("/?token=" + token_ + "0", us),
        get("/?token=" + token_.substr(0, 31), us),
        get("/state", us),
        get("/state", us + "Authorization: Bearer " + wrong + "\r\n"),
        get("/state", right + "Host: evil.example:" + std::to_string(port_) + "\r\n"),
        get("/state", right + "Host: 127.0.0.1\r\n"),
        get("/state", right),
        get("/state", us + right + "Origin: http://evil.example\r\n"),
        get("/state", us + right + "Origin: null\r\n"),
        get("/state", us + right + "Origin: https://" + host() + "\r\n"),
        get("/state", us + right + "Sec-Fetch-Site: cross-site\r\n"),
        get("/state", us + right + "Sec-Fetch-Site: same-site\r\n"),
    };
    for (std::size_t i = 0; i < refused.size(); ++i) {
        EXPECT_THAT(refused[i], AllOf(StartsWith("HTTP/1.1 403"), Not(HasSubstr("programs")), Not(HasSubstr(token_))))
            << i;
    }
    for (const char* method : {"POST", "PUT", "DELETE", "OPTIONS", "PATCH"}) {
        EXPECT_THAT(get("/state", us + right + "Content-Length: 0\r\n", method), StartsWith("HTTP/1.1 405")) << method;
    }
    EXPECT_THAT(get("/state", us + right + "Origin: http://" + host() + "\r\nSec-Fetch-Site: same-origin\r\n"),
                StartsWith("HTTP/1.1 200"));
}

TEST_F(Dashboard, TellsOfEachDeathAndHoldsNobodyUp) {
    multihull::Pool pool({.processes = 2, .pass_stderr = false, .name = "on the dashboard", .publish = true});
    for (int i = 0; i < 5; ++i) {
        EXPECT_THROW(pool.apply(crash), multihull::WorkerCrashed);
    }
    nlohmann::json seen;
    ASSERT_TRUE(eventually([&] {
        const std::string answer = state();
        const auto json = nlohmann::json::parse(answer.substr(answer.find("\r\n\r\n") + 4));
        for (const auto& program : json["programs"]) {
            if (program["pid"] == getpid() && !program["pools"].empty() && program["pools"][0]["crashed"] == 5) {
                seen = program["pools"][0];
                return true;
            }
        }
        return false;
    }));
    EXPECT_THAT(seen["failures"], SizeIs(5));
    EXPECT_THAT(std::string(seen["failures"][4]["stack"]), HasSubstr("crash()"));
    EXPECT_GE(seen["points"].size(), 1U);
    EXPECT_THAT(seen["stream"], SizeIs(2));
    EXPECT_EQ(pool.apply(tick, 7), 7);
}

TEST_F(Dashboard, EndsWithCtrlC) {
    program_.signal(SIGINT);
    EXPECT_EQ(program_.wait().status, 0);
    EXPECT_EQ(state(), "");
}

TEST(DashboardPort, ATakenOneIsOneSentence) {
    const int socket = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof address;
    ASSERT_EQ(::bind(socket, reinterpret_cast<const sockaddr*>(&address), sizeof address), 0);
    ASSERT_EQ(::listen(socket, 1), 0);
    ASSERT_EQ(::getsockname(socket, reinterpret_cast<sockaddr*>(&address), &size), 0);
    const Outcome outcome = Program(
                                {"--port", std::to_string(ntohs(address.sin_port))}, [] { return true; }, "dashboard")
                                .wait();
    EXPECT_EQ(outcome.status, 2);
    EXPECT_THAT(outcome.err, AllOf(HasSubstr("Cannot listen at port"), HasSubstr("try another --port")));
    ::close(socket);
}

TEST_F(Dashboard, InABrowser) {
    if (std::system("command -v chromium chromedriver python3 >/dev/null") != 0) {
        GTEST_SKIP() << "no chromium, chromedriver and python3 here";
    }
    const std::string tests = MULTIHULL_TESTS;
    const char* const pictures = std::getenv("MULTIHULL_PICTURES");    // a folder, for who wants to look
    multihull::Pool pool({.processes = 2, .pass_stderr = false, .name = "in the browser", .publish = true});
    EXPECT_THROW(pool.apply(crash), multihull::WorkerCrashed);
    // The script says when another is to die: the page must show it while it is looked at.
    test::PythonPeer script(read_file(tests + "/app/dashboard_browser.py"),
                            {tests + "/support", out_, pictures != nullptr ? pictures : ""});
    std::string line;
    while ((line = script.read_line()) != "done" && !line.empty()) {
        if (line == "crash") {
            EXPECT_THROW(pool.apply(crash), multihull::WorkerCrashed);
        } else {
            EXPECT_EQ(line, "work");
            pool.map(tick, std::vector<int>(100, 1));
        }
        script.write_line("yes");
    }
    EXPECT_EQ(line, "done");
    EXPECT_EQ(script.wait(), 0);
}

}    // namespace
}    // namespace app_test
