// A crawler: one event loop fetches many pages at once, a pool takes them apart. A page on which the parser crashes, or never ends,
// costs that page.
//
//     crawler              crawls pages of its own, served on the loopback interface
//     crawler HOST PORT    crawls http://HOST:PORT/
#include <multihull/asio.hpp>

#if defined(MULTIHULL_ASIO_BOOST)
#include <boost/asio.hpp>
#else
#include <asio.hpp>
#endif

#include <chrono>
#include <deque>
#include <iostream>
#include <map>
#include <set>
#include <string>
#include <vector>

using namespace std::chrono_literals;
namespace net = multihull::asio::net;
using net::use_awaitable;
using net::ip::tcp;

// What the parser finds on a page.
struct Page {
    std::string title;
    std::vector<std::string> links;
};

// Runs in a worker. It has a bug, as parsers do: on <blink> it follows a pointer to nowhere; and <table> keeps it busy for ever.
Page parse(const std::string& html) {
    if (html.find("<blink>") != std::string::npos) *static_cast<volatile int*>(nullptr) = 1;
    while (html.find("<table>") != std::string::npos) {}
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

// HTTP/1.0: the page ends where the connection does.
net::awaitable<std::string> fetch(tcp::endpoint server, std::string path) {
    tcp::socket socket(co_await net::this_coro::executor);
    co_await socket.async_connect(server, use_awaitable);
    const std::string request = "GET " + path + " HTTP/1.0\r\n\r\n";
    co_await net::async_write(socket, net::buffer(request), use_awaitable);
    std::string response;
    multihull::asio::ErrorCode end;
    co_await net::async_read(socket, net::dynamic_buffer(response, 1 << 20), net::redirect_error(use_awaitable, end));
    const auto body = response.find("\r\n\r\n");
    co_return body == std::string::npos ? std::string() : response.substr(body + 4);
}

// All of a site, a bounded number of pages at once.
class Crawler {
public:
    Crawler(net::io_context& io, tcp::endpoint server, multihull::asio::Pool& pool)
        : io_(io), server_(std::move(server)), pool_(pool) {
        add("/");
    }

    // The loop stops when there is nothing left to visit.
    void start() {
        while (busy_ < kMost && !waiting_.empty()) {
            ++busy_;
            net::co_spawn(io_, visit(waiting_.front()), [this](std::exception_ptr) {
                --busy_;
                start();
            });
            waiting_.pop_front();
        }
        if (busy_ == 0) io_.stop();
    }
    void report() const {
        std::cout << "crawled " << crawled_ << " pages, lost " << lost_.size() << "\n";
        for (const auto& [path, why] : lost_) std::cout << "  " << path << ": " << why << "\n";
    }

private:
    static constexpr int kMost = 8;

    void add(const std::string& path) {
        if (seen_.insert(path).second) waiting_.push_back(path);
    }
    net::awaitable<void> visit(std::string path) {
        try {
            const std::string html = co_await fetch(server_, path);
            const Page page = co_await pool_.async_submit(parse, html, use_awaitable);
            ++crawled_;
            for (const auto& link : page.links) add(link);
        } catch (const multihull::WorkerCrashed&) {
            lost_[path] = "the parser crashed";
        } catch (const multihull::TaskTimeout&) {
            lost_[path] = "the parser did not end";
        } catch (const std::exception& error) {
            lost_[path] = error.what();
        }
    }

    net::io_context& io_;
    tcp::endpoint server_;
    multihull::asio::Pool& pool_;
    std::set<std::string> seen_;
    std::deque<std::string> waiting_;
    std::map<std::string, std::string> lost_;    // and why
    int busy_ = 0;
    int crawled_ = 0;
};

// The pages to be crawled where none are named: a tree of a hundred, two of them hostile.
std::string local_page(const std::string& path) {
    const int number = path == "/" ? 0 : std::atoi(path.c_str() + 1);
    std::string html = "<title>Page " + std::to_string(number) + "</title>";
    if (number == 33) html += "<blink>";
    if (number == 66) html += "<table>";
    for (int child = number * 3 + 1; child <= number * 3 + 3 && child < 100; ++child) {
        html += "<a href=\"/" + std::to_string(child) + "\">next</a>";
    }
    return html;
}

net::awaitable<void> serve_page(tcp::socket client) {
    try {
        std::string request;
        co_await net::async_read_until(client, net::dynamic_buffer(request, 4096), "\r\n\r\n", use_awaitable);
        const auto begin = request.find(' ') + 1;
        const std::string page =
            "HTTP/1.0 200 OK\r\n\r\n" + local_page(request.substr(begin, request.find(' ', begin) - begin));
        co_await net::async_write(client, net::buffer(page), use_awaitable);
    } catch (const std::exception&) {
        // Whoever asked has left.
    }
}

net::awaitable<void> serve_pages(tcp::acceptor& acceptor) {
    for (;;) {
        tcp::socket client = co_await acceptor.async_accept(use_awaitable);
        net::co_spawn(acceptor.get_executor(), serve_page(std::move(client)), net::detached);
    }
}

int main(int argc, char** argv) {
    multihull::init(argc, argv);

    net::io_context io(1);
    multihull::asio::Pool pool(io, {.limits = {.cpu_time = 1s}, .pass_stderr = false});
    tcp::acceptor acceptor(io);
    tcp::endpoint server;
    if (argc == 3) {
        server = *tcp::resolver(io).resolve(argv[1], argv[2]).begin();
    } else {
        const tcp::endpoint local(net::ip::address_v4::loopback(), 0);
        acceptor = tcp::acceptor(io, local);
        server = acceptor.local_endpoint();
        net::co_spawn(io, serve_pages(acceptor), net::detached);
    }
    Crawler crawler(io, server, pool);
    crawler.start();
    io.run();
    crawler.report();
}
