// A server that answers each line by a line, for any number of clients at once in one thread.
#pragma once

#include <multihull/asio/net.hpp>

#if defined(MULTIHULL_ASIO_BOOST)
#include <boost/asio.hpp>
#else
#include <asio.hpp>
#endif

#include <exception>
#include <string>
#include <utility>

namespace example {

namespace net = multihull::asio::net;
using tcp = net::ip::tcp;

/// Talks to one client until it leaves. `answer(line)` is a coroutine that answers the line to send back.
template <class Answer>
net::awaitable<void> serve_client(tcp::socket client, Answer answer) {
    try {
        client.set_option(tcp::no_delay(true));
        std::string input;
        for (;;) {
            const std::size_t size =
                co_await net::async_read_until(client, net::dynamic_buffer(input, 4096), '\n', net::use_awaitable);
            std::string output = co_await answer(input.substr(0, size - 1));
            input.erase(0, size);
            output += '\n';
            co_await net::async_write(client, net::buffer(output), net::use_awaitable);
        }
    } catch (const std::exception&) {
        // The client has left.
    }
}

/// Takes one client after the other, and talks to all of them.
template <class Answer>
net::awaitable<void> serve(tcp::acceptor& acceptor, Answer answer) {
    for (;;) {
        tcp::socket client = co_await acceptor.async_accept(net::use_awaitable);
        net::co_spawn(acceptor.get_executor(), serve_client(std::move(client), answer), net::detached);
    }
}

}    // namespace example
