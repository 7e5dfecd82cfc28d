// The server and the crawler of examples/asio under load, for a while: a number of clients, each with one request at a time; and as many
// pages at once. Once with workers, while one request or page in a hundred crashes its own, once without crashes, and once on a plain asio
// thread pool, which a crash would end.
//
// usage: load [--seconds S] [--clients N] [--number N] [--workers N]
#include "../../examples/asio/fibonacci.hpp"
#include "../../examples/asio/line_server.hpp"
#include "../../examples/asio/pages.hpp"

#include <multihull/asio.hpp>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

namespace {

using namespace std::chrono_literals;
using Clock = std::chrono::steady_clock;
using example::tcp;
namespace net = example::net;
using net::use_awaitable;

struct Settings {
    double seconds = 3;
    int clients = 16;
    int number = 20;    // fibonacci of it takes a few tens of microseconds
    std::size_t workers = 2;
};

struct Outcome {
    std::vector<double> microseconds;    // of the requests that were answered
    std::size_t errors = 0;
    double seconds = 0;
};

// One client: asks, waits for the answer, asks again.
net::awaitable<void> ask(tcp::endpoint server, const Settings& settings, int crash_every, Clock::time_point end,
                         Outcome& outcome, unsigned first) {
    tcp::socket socket(co_await net::this_coro::executor);
    co_await socket.async_connect(server, use_awaitable);
    socket.set_option(tcp::no_delay(true));
    const std::string good = std::to_string(settings.number) + "\n";
    const std::string bad = "-1\n";
    std::string answer;
    for (unsigned i = first; Clock::now() < end; ++i) {
        const bool crash = crash_every > 0 && i % static_cast<unsigned>(crash_every) == 0;
        const auto begin = Clock::now();
        co_await net::async_write(socket, net::buffer(crash ? bad : good), use_awaitable);
        const std::size_t size =
            co_await net::async_read_until(socket, net::dynamic_buffer(answer), '\n', use_awaitable);
        const std::chrono::duration<double, std::micro> took = Clock::now() - begin;
        if (answer.starts_with("error")) {
            ++outcome.errors;
        } else {
            outcome.microseconds.push_back(took.count());
        }
        answer.erase(0, size);
    }
}

void rethrow(std::exception_ptr failure) {
    if (failure) std::rethrow_exception(failure);
}

// What `run(end, outcome)` did until the end.
template <class Run>
Outcome measured(const Settings& settings, Run run) {
    Outcome outcome;
    const auto begin = Clock::now();
    run(begin + std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(settings.seconds)), outcome);
    outcome.seconds = std::chrono::duration<double>(Clock::now() - begin).count();
    std::ranges::sort(outcome.microseconds);
    return outcome;
}

// The clients have a loop and a thread of their own.
Outcome load(tcp::endpoint server, const Settings& settings, int crash_every) {
    net::io_context io(1);
    return measured(settings, [&](Clock::time_point end, Outcome& outcome) {
        for (int i = 0; i < settings.clients; ++i) {
            net::co_spawn(io, ask(server, settings, crash_every, end, outcome, static_cast<unsigned>(i * 7 + 1)),
                          rethrow);
        }
        io.run();
    });
}

// Serves with `answer` while it is loaded.
template <class Answer>
Outcome serve_and_load(net::io_context& io, Answer answer, const Settings& settings, int crash_every) {
    tcp::acceptor acceptor(io, {net::ip::address_v4::loopback(), 0});
    net::co_spawn(io, example::serve(acceptor, answer), net::detached);
    std::jthread server([&] { io.run(); });
    const Outcome outcome = load(acceptor.local_endpoint(), settings, crash_every);
    io.stop();
    return outcome;
}

Outcome with_workers(const Settings& settings, int crash_every) {
    net::io_context io(1);
    multihull::asio::Pool pool(io, {.processes = settings.workers, .pass_stderr = false});
    const auto answer = [&](std::string line) -> net::awaitable<std::string> {
        try {
            co_return co_await pool.async_submit(example::answer_request, line, use_awaitable);
        } catch (const std::exception& error) {
            co_return "error: " + std::string(error.what());
        }
    };
    return serve_and_load(io, answer, settings, crash_every);
}

Outcome with_threads(const Settings& settings) {
    net::io_context io(1);
    net::thread_pool pool(settings.workers);
    const auto compute = [](std::string line) -> net::awaitable<std::string> {
        co_return example::answer_request(line);
    };
    const auto answer = [&](std::string line) -> net::awaitable<std::string> {
        co_return co_await net::co_spawn(pool, compute(line), use_awaitable);
    };
    return serve_and_load(io, answer, settings, 0);
}

// A site without an end, of a hundred kinds of pages, one of which crashes the parser where pages may.
class Site {
public:
    explicit Site(bool crashes) {
        for (int kind = 0; kind < 100; ++kind) {
            std::string page = "<title>Page</title>";
            if (crashes && kind == 33) page += "<blink>";
            while (page.size() < 16'000) page += "<p>So much is said here, and so little of it leads anywhere.</p>";
            for (int link = 0; link < 10; ++link)
                page += "<a href=\"/" + std::to_string(kind * 10 + link) + "\">next</a>";
            pages_.push_back(std::move(page));
        }
    }
    const std::string& operator()(const std::string& path) const {
        return pages_[static_cast<std::size_t>(std::atoi(path.c_str() + 1)) % pages_.size()];
    }

private:
    std::vector<std::string> pages_;
};

// Fetches one page after the other, has it taken apart, and goes on to another.
template <class Parse>
net::awaitable<void> crawl(tcp::endpoint server, Parse parse, Clock::time_point end, Outcome& outcome, unsigned first) {
    for (unsigned i = first; Clock::now() < end; ++i) {
        const auto begin = Clock::now();
        const std::string html = co_await example::fetch(server, "/" + std::to_string(i));
        try {
            const example::Page page = co_await parse(html);
            if (page.links.size() != 10) throw std::runtime_error("a page was not read whole");
            const std::chrono::duration<double, std::micro> took = Clock::now() - begin;
            outcome.microseconds.push_back(took.count());
        } catch (const multihull::WorkerCrashed&) {
            ++outcome.errors;
        }
    }
}

// The pages come from a loop and a thread of their own.
template <class Parse>
Outcome crawl_all(net::io_context& io, Parse parse, const Settings& settings, bool crashes) {
    const Site site(crashes);
    net::io_context pages(1);
    tcp::acceptor acceptor(pages, {net::ip::address_v4::loopback(), 0});
    net::co_spawn(pages, example::serve_pages(acceptor, std::cref(site)), net::detached);
    std::jthread server([&] { pages.run(); });
    Outcome outcome = measured(settings, [&](Clock::time_point end, Outcome& into) {
        for (int i = 0; i < settings.clients; ++i) {
            net::co_spawn(io, crawl(acceptor.local_endpoint(), parse, end, into, static_cast<unsigned>(i * 7 + 1)),
                          rethrow);
        }
        io.run();
    });
    pages.stop();
    return outcome;
}

Outcome crawl_with_workers(const Settings& settings, bool crashes) {
    net::io_context io(1);
    multihull::asio::Pool pool(io, {.processes = settings.workers, .pass_stderr = false});
    const auto parse = [&](const std::string& html) { return pool.async_submit(example::parse, html, use_awaitable); };
    return crawl_all(io, parse, settings, crashes);
}

Outcome crawl_with_threads(const Settings& settings) {
    net::io_context io(1);
    net::thread_pool pool(settings.workers);
    const auto compute = [](std::string html) -> net::awaitable<example::Page> { co_return example::parse(html); };
    const auto parse = [&](const std::string& html) { return net::co_spawn(pool, compute(html), use_awaitable); };
    return crawl_all(io, parse, settings, false);
}

void head(const std::string& what, const char* rate) {
    std::printf("\n%-44s %9s %10s %14s %10s\n", what.c_str(), rate, "median us", "slowest 1% us", "crashed");
}

void report(const char* name, const Outcome& outcome) {
    const auto& times = outcome.microseconds;
    if (times.empty()) {
        std::printf("%-44s no request was answered\n", name);
        return;
    }
    const auto at = [&](double share) {
        return times[static_cast<std::size_t>(share * static_cast<double>(times.size() - 1))];
    };
    std::printf("%-44s %9.0f %10.0f %14.0f %10zu\n", name, static_cast<double>(times.size()) / outcome.seconds, at(0.5),
                at(0.99), outcome.errors);
}

}    // namespace

int main(int argc, char** argv) {
    multihull::init(argc, argv);
    Settings settings;
    for (int i = 1; i + 1 < argc; i += 2) {
        const std::string_view option = argv[i];
        if (option == "--seconds")
            settings.seconds = std::atof(argv[i + 1]);
        else if (option == "--clients")
            settings.clients = std::atoi(argv[i + 1]);
        else if (option == "--number")
            settings.number = std::atoi(argv[i + 1]);
        else if (option == "--workers")
            settings.workers = static_cast<std::size_t>(std::atoi(argv[i + 1]));
        else {
            std::fprintf(stderr, "usage: load [--seconds S] [--clients N] [--number N] [--workers N]\n");
            return 2;
        }
    }
    std::printf("%d clients or pages at once, %zu workers, %.0f s each\n", settings.clients, settings.workers,
                settings.seconds);
    head("server, fibonacci(" + std::to_string(settings.number) + ")", "answers/s");
    report("asio::thread_pool", with_threads(settings));
    report("Multihull", with_workers(settings, 0));
    report("Multihull, one request in 100 crashes", with_workers(settings, 100));
    head("crawler, pages of 16 KB", "pages/s");
    report("asio::thread_pool", crawl_with_threads(settings));
    report("Multihull", crawl_with_workers(settings, false));
    report("Multihull, one page in 100 crashes", crawl_with_workers(settings, true));
}
