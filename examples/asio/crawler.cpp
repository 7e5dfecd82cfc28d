// A crawler: one event loop fetches many pages at once, a pool takes them apart. A page on which the parser crashes, or never ends,
// costs that page.
//
//     crawler              crawls pages of its own, served on the loopback interface
//     crawler HOST PORT    crawls http://HOST:PORT/
#include "pages.hpp"

#include <multihull/asio.hpp>

#include <chrono>
#include <deque>
#include <iostream>
#include <map>
#include <set>
#include <string>
#include <vector>

using namespace std::chrono_literals;
using example::Page;
using example::tcp;
namespace net = example::net;
using net::use_awaitable;

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
            const std::string html = co_await example::fetch(server_, path);
            const Page page = co_await pool_.async_submit(example::parse, html, use_awaitable);
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
        net::co_spawn(io, example::serve_pages(acceptor, local_page), net::detached);
    }
    Crawler crawler(io, server, pool);
    crawler.start();
    io.run();
    crawler.report();
}
