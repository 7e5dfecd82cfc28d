// The server of Fibonacci numbers that the books use to show how one long computation stops an event loop, and how a crash in a
// thread takes every client with it. Here neither does: requests are computed by worker processes, and the loop goes on.
//
//     fibonacci_server [PORT]        0, or nothing: a free one, which it says
//     $ nc localhost PORT
//     30
//     832040
//     -1
//     error: worker 4711 crashed with SIGSEGV ...
#include "fibonacci.hpp"
#include "line_server.hpp"

#include <multihull/asio.hpp>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <iostream>

using namespace std::chrono_literals;
using example::tcp;
using example::net::use_awaitable;
namespace net = example::net;

int main(int argc, char** argv) {
    multihull::init(argc, argv);

    net::io_context io(1);
    // What the workers' crashes write is the server's to tell.
    multihull::asio::Pool pool(io, {.processes = std::max<std::size_t>(multihull::cpu_count(), 2),
                                    .task_timeout = 10s,
                                    .pass_stderr = false});
    const auto answer = [&](std::string line) -> net::awaitable<std::string> {
        try {
            co_return co_await pool.async_submit(example::answer_request, line, use_awaitable);
        } catch (const std::exception& error) {
            co_return "error: " + std::string(error.what());
        }
    };

    const auto port = static_cast<net::ip::port_type>(argc > 1 ? std::atoi(argv[1]) : 0);
    tcp::acceptor acceptor(io, {net::ip::address_v4::loopback(), port});
    std::cout << "listening on port " << acceptor.local_endpoint().port() << std::endl;
    net::co_spawn(io, example::serve(acceptor, answer), net::detached);

    net::signal_set signals(io, SIGINT, SIGTERM);
    signals.async_wait([&](auto, int) { io.stop(); });
    io.run();
    pool.terminate();    // nobody is left to hear what they compute
}
