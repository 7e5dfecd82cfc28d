#include "dashboard_server.hpp"

#include "dashboard_page.hpp"
#include "failure.hpp"

#include <fmt/format.h>
#include <httplib.h>
#include <sys/random.h>
#include <sys/socket.h>

#include <array>
#include <atomic>
#include <cerrno>
#include <initializer_list>
#include <mutex>
#include <string_view>
#include <system_error>
#include <thread>
#include <utility>

namespace app {

namespace {

constexpr int kBadRequest = 403;
constexpr std::size_t kThreads = 4;
constexpr std::size_t kLongestRequest = 4096;
constexpr time_t kPatience = 5;    // seconds for a request to be read, and for an answer to be taken

std::string random_word() {
    std::array<unsigned char, 16> bytes{};
    if (::getrandom(bytes.data(), bytes.size(), 0) != static_cast<ssize_t>(bytes.size())) {
        throw EnvironmentError(fmt::format("There is no random number to be had: {}.",
                                           std::generic_category().message(errno)));
    }
    std::string word;
    for (const unsigned char byte : bytes) {
        word += fmt::format("{:02x}", byte);
    }
    return word;
}

/// In a time that does not tell how much of it was right.
bool same(std::string_view given, std::string_view token) {
    unsigned difference = given.size() == token.size() ? 0 : 1;
    for (std::size_t i = 0; i < token.size(); ++i) {
        difference |=
            static_cast<unsigned char>(token[i]) ^ static_cast<unsigned char>(i < given.size() ? given[i] : 0);
    }
    return difference == 0;
}

/// The page with a nonce of its own: it may run its own script and style, ask its own server, and nothing else.
void answer_page(httplib::Response& response) {
    const std::string nonce = random_word();
    std::string page(kDashboardPage);
    constexpr std::string_view kMark = "NONCE";
    for (std::size_t at = 0; (at = page.find(kMark, at)) != std::string::npos; at += nonce.size()) {
        page.replace(at, kMark.size(), nonce);
    }
    response.set_header(
        "Content-Security-Policy",
        fmt::format("default-src 'none'; style-src 'nonce-{0}'; script-src 'nonce-{0}'; connect-src 'self'; "
                    "img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
                    nonce));
    response.set_content(page, "text/html; charset=utf-8");
}

void refuse(httplib::Response& response, int status, std::string_view why) {
    response.status = status;
    response.set_content(std::string(why) + "\n", "text/plain; charset=utf-8");
}

}    // namespace

struct DashboardServer::State {
    const std::string token = random_word();
    int port = 0;
    httplib::Server server;
    std::thread thread;
    std::atomic<bool> ended{false};
    std::mutex mutex;
    std::string json = "{\"programs\":[],\"now\":0}";

    bool is_us(std::string_view host) const {
        return host == fmt::format("127.0.0.1:{}", port) || host == fmt::format("localhost:{}", port);
    }

    /// The token of a request: in its address, where a person opens the page, or in a header.
    static std::string given_token(const httplib::Request& request) {
        constexpr std::string_view kBearer = "Bearer ";
        const std::string header = request.get_header_value("Authorization");
        return header.starts_with(kBearer) ? header.substr(kBearer.size()) : request.get_param_value("token");
    }

    /// Whether the request is one to answer; else it has been refused.
    bool admits(const httplib::Request& request, httplib::Response& response) const {
        const std::string origin = request.get_header_value("Origin");
        const std::string site = request.get_header_value("Sec-Fetch-Site");
        if (request.method != "GET") {
            refuse(response, 405, "Only GET: this page shows, and changes nothing.");
        } else if (!is_us(request.get_header_value("Host"))) {
            refuse(response, kBadRequest, "This server goes by 127.0.0.1 and localhost only.");
        } else if (!origin.empty() && !(origin.starts_with("http://") && is_us(std::string_view(origin).substr(7)))) {
            refuse(response, kBadRequest, "Not for pages of another origin.");
        } else if (!site.empty() && site != "same-origin" && site != "none") {
            refuse(response, kBadRequest, "Not for pages of another site.");
        } else if (!same(given_token(request), token)) {
            refuse(response, kBadRequest,
                   "The token is missing or wrong: open the address that multihull dashboard printed.");
        } else {
            return true;
        }
        return false;
    }

    void set_up() {
        // With httplib's own choice, SO_REUSEPORT, a second server at the same port would get half of the first one's requests.
        server.set_socket_options([](int socket) {
            const int yes = 1;
            ::setsockopt(socket, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
        });
        server.new_task_queue = [] { return new httplib::ThreadPool(kThreads); };
        server.set_read_timeout(kPatience);
        server.set_write_timeout(kPatience);
        server.set_keep_alive_max_count(1000);
        server.set_payload_max_length(kLongestRequest);
        server.set_default_headers({{"Cache-Control", "no-store"},
                                    {"Cross-Origin-Resource-Policy", "same-origin"},
                                    {"Referrer-Policy", "no-referrer"},
                                    {"X-Content-Type-Options", "nosniff"},
                                    {"X-Frame-Options", "DENY"}});
        server.set_pre_routing_handler([this](const httplib::Request& request, httplib::Response& response) {
            return admits(request, response) ? httplib::Server::HandlerResponse::Unhandled
                                             : httplib::Server::HandlerResponse::Handled;
        });
        server.Get("/", [](const httplib::Request&, httplib::Response& response) { answer_page(response); });
        server.Get("/state", [this](const httplib::Request&, httplib::Response& response) {
            const std::lock_guard lock(mutex);
            response.set_content(json, "application/json");
        });
    }
};

DashboardServer::DashboardServer(std::uint16_t port) : state_(std::make_unique<State>()) {
    State& state = *state_;
    state.set_up();
    if (port == 0) {
        state.port = state.server.bind_to_any_port("127.0.0.1");
    } else if (state.server.bind_to_port("127.0.0.1", port)) {
        state.port = port;
    }
    if (state.port <= 0) {
        throw EnvironmentError(fmt::format("Cannot listen at port {} of 127.0.0.1: {}.", port,
                                           port == 0 ? "none is free"
                                                     : "it is taken, or for root only; try another --port"));
    }
    state.thread = std::thread([&state] {
        state.server.listen_after_bind();
        state.ended = true;
    });
}

DashboardServer::~DashboardServer() {
    // A server that has not come to its loop yet would not hear that it is to stop.
    while (!state_->server.is_running() && !state_->ended) {
        std::this_thread::yield();
    }
    state_->server.stop();
    state_->thread.join();
}

std::string DashboardServer::url() const {
    return fmt::format("http://127.0.0.1:{}/?token={}", state_->port, state_->token);
}

void DashboardServer::publish(std::string json) {
    const std::lock_guard lock(state_->mutex);
    state_->json = std::move(json);
}

}    // namespace app
