// What a crawler does with a page: fetch it, take it apart; and a server of pages.
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
#include <vector>

namespace example {

namespace net = multihull::asio::net;
using tcp = net::ip::tcp;

/// What the parser finds on a page.
struct Page {
    std::string title;
    std::vector<std::string> links;
};

/// Runs in a worker. It has a bug, as parsers do: on <blink> it follows a pointer to nowhere; and <table> keeps it busy for ever.
inline Page parse(const std::string& html) {
    if (html.find("<blink>") != std::string::npos) *static_cast<volatile int*>(nullptr) = 1;
    // Volatile, as the compiler may leave out an endless loop that has no effects.
    const volatile bool endless = html.find("<table>") != std::string::npos;
    while (endless) {}
    Page page;
    const auto begin = html.find("<title>");
    const auto end = html.find("</title>");
    if (begin != std::string::npos && end != std::string::npos) page.title = html.substr(begin + 7, end - begin - 7);
    const std::string mark = "href=\"";
    for (auto at = html.find(mark); at != std::string::npos; at = html.find(mark, at)) {
        at += mark.size();
        page.links.push_back(html.substr(at, html.find('"', at) - at));
    }
    return page;
}

/// HTTP/1.0: the page ends where the connection does.
inline net::awaitable<std::string> fetch(tcp::endpoint server, std::string path) {
    tcp::socket socket(co_await net::this_coro::executor);
    co_await socket.async_connect(server, net::use_awaitable);
    const std::string request = "GET " + path + " HTTP/1.0\r\n\r\n";
    co_await net::async_write(socket, net::buffer(request), net::use_awaitable);
    std::string response;
    multihull::asio::ErrorCode end;
    co_await net::async_read(socket, net::dynamic_buffer(response, 1 << 20),
                             net::redirect_error(net::use_awaitable, end));
    const auto body = response.find("\r\n\r\n");
    co_return body == std::string::npos ? std::string() : response.substr(body + 4);
}

/// `page_of(path)` is what there is at a path.
template <class PageOf>
net::awaitable<void> serve_page(tcp::socket client, PageOf page_of) {
    try {
        std::string request;
        co_await net::async_read_until(client, net::dynamic_buffer(request, 4096), "\r\n\r\n", net::use_awaitable);
        const auto begin = request.find(' ') + 1;
        const std::string page =
            "HTTP/1.0 200 OK\r\n\r\n" + page_of(request.substr(begin, request.find(' ', begin) - begin));
        co_await net::async_write(client, net::buffer(page), net::use_awaitable);
    } catch (const std::exception&) {
        // Whoever asked has left.
    }
}

/// A server of pages, for who has none.
template <class PageOf>
net::awaitable<void> serve_pages(tcp::acceptor& acceptor, PageOf page_of) {
    for (;;) {
        tcp::socket client = co_await acceptor.async_accept(net::use_awaitable);
        net::co_spawn(acceptor.get_executor(), serve_page(std::move(client), page_of), net::detached);
    }
}

}    // namespace example
