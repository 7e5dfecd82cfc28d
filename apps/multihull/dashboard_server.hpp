// The dashboard over HTTP: one page, and what it shows, for whoever on this machine knows the token.
//
// Loopback only. Read-only: GET, and nothing in a request changes anything. Each request must carry the token, name this server as its
// host (a name that somebody makes point here is refused: DNS rebinding), and come from no other site's page.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

namespace app {

class DashboardServer {
public:
    /// Listens at `port` of 127.0.0.1; 0 for any that is free. Throws EnvironmentError where it can't.
    explicit DashboardServer(std::uint16_t port);
    DashboardServer(const DashboardServer&) = delete;
    DashboardServer& operator=(const DashboardServer&) = delete;
    ~DashboardServer();

    /// What a browser is to open.
    std::string url() const;
    /// What the page shows from now on. Thread-safe.
    void publish(std::string json);

private:
    struct State;
    std::unique_ptr<State> state_;
};

}    // namespace app
