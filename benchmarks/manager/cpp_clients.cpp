// The manager's server asked by C++ programs, beside Redis asked by its own C client, hiredis: in each round each competitor has one
// turn, in an order that turns too; so many processes make calls of one kind for a while, each over a connection of its own.
#include "../child_program.hpp"
#include "../harness.hpp"
#include "../report.hpp"

#include <multihull/manager.hpp>
#include <multihull/pool.hpp>
#include <multihull/sync.hpp>

#include <CLI/CLI.hpp>
#include <fmt/format.h>
#include <hiredis.h>

#include <chrono>
#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <vector>

namespace {

struct Settings {
    int rounds = 5;
    double seconds = 0.5;
    std::vector<std::size_t> clients{1, 2, 4};
    std::string only;
};

enum class Call { get, set, put_and_get };
constexpr std::pair<Call, const char*> kCalls[] = {{Call::get, "get"},
                                                   {Call::set, "set"},
                                                   {Call::put_and_get, "put and get"}};

// Answers how often `call` was made. Starts when all the others do.
template <class Function>
std::uint64_t repeat(multihull::Barrier& start, double seconds, Function call) {
    call();
    start.wait();
    const auto end = bench::now() + std::chrono::duration<double>(seconds);
    std::uint64_t count = 0;
    while (bench::now() < end) {
        for (int i = 0; i < 20; ++i) call();
        count += 20;
    }
    return count;
}

std::uint64_t ask_multihull(const multihull::DictProxy& dict, const multihull::QueueProxy& queue, Call kind,
                            multihull::Barrier start, double seconds) {
    switch (kind) {
        case Call::get:
            return repeat(start, seconds, [&] { bench::require(dict.get("key") == multihull::Object(1), "a get"); });
        case Call::set:
            return repeat(start, seconds, [&] { dict.set("key", 1); });
        case Call::put_and_get:
            return 2 * repeat(start, seconds, [&] {
                       queue.put(1);
                       bench::require(queue.get() == multihull::Object(1), "a get from the queue");
                   });
    }
    return 0;
}

using Connection = std::unique_ptr<redisContext, void (*)(redisContext*)>;

void ask(const Connection& redis, const char* command, std::string_view answer) {
    redisReply* const reply = static_cast<redisReply*>(redisCommand(redis.get(), command));
    bench::require(reply != nullptr && reply->type != REDIS_REPLY_ERROR, "a call of Redis");
    bench::require(answer.empty() || std::string_view(reply->str, reply->len) == answer, "an answer of Redis");
    freeReplyObject(reply);
}

std::uint64_t ask_redis(const std::string& path, Call kind, multihull::Barrier start, double seconds) {
    const Connection redis(redisConnectUnix(path.c_str()), redisFree);
    bench::require(redis && redis->err == 0, "a connection to Redis");
    switch (kind) {
        case Call::get:
            return repeat(start, seconds, [&] { ask(redis, "GET key", "1"); });
        case Call::set:
            return repeat(start, seconds, [&] { ask(redis, "SET key 1", "OK"); });
        case Call::put_and_get:
            return 2 * repeat(start, seconds, [&] {
                       ask(redis, "LPUSH queue 1", "");
                       ask(redis, "RPOP queue", "1");
                   });
    }
    return 0;
}

// Calls a second of all clients, each a process of a pool.
template <class... Arguments>
double rate(multihull::Pool& pool, std::size_t clients, double seconds, Arguments... arguments) {
    const multihull::Barrier start(static_cast<std::uint32_t>(clients));
    std::vector<multihull::Future<std::uint64_t>> counts;
    for (std::size_t i = 0; i < clients; ++i) counts.push_back(pool.apply_async(arguments..., start, seconds));
    std::uint64_t total = 0;
    for (auto& count : counts) total += count.get();
    return static_cast<double>(total) / seconds;
}

// A folder that is gone with this.
struct Folder {
    std::filesystem::path path = std::filesystem::temp_directory_path() / fmt::format("multihull-bench-{}", ::getpid());
    Folder() { std::filesystem::create_directory(path); }
    ~Folder() { std::filesystem::remove_all(path); }
};

void measure(const Settings& settings) {
    const Folder folder;
    const std::string path = folder.path / "redis";
    // It ends with its input's end: `read` is what waits for that.
    bench::ChildProgram redis(
        {"sh", "-c",
         "redis-server --port 0 --unixsocket \"$0\" --save '' --appendonly no --dir \"$1\" >/dev/null & "
         "read line; kill $!; wait $!",
         path, folder.path});
    while (!std::filesystem::exists(path)) std::this_thread::sleep_for(std::chrono::milliseconds(10));
    {
        const Connection first(redisConnectUnix(path.c_str()), redisFree);
        ask(first, "SET key 1", "OK");
    }
    multihull::Manager manager;
    const auto dict = manager.dict();
    dict.set("key", 1);
    const auto queue = manager.Queue();

    fmt::print("calls a second from C++, median of {} rounds of {} s\n{:<16}{:>8}{:>12}{:>12}{:>14}\n", settings.rounds,
               settings.seconds, "call", "clients", "multihull", "Redis", "of Redis's");
    for (const auto& [call, name] : kCalls) {
        if (std::string_view(name).find(settings.only) == std::string_view::npos) continue;
        for (const std::size_t clients : settings.clients) {
            multihull::Pool pool(clients);
            std::vector<double> ours, theirs, ratios;
            for (int round = 0; round < settings.rounds; ++round) {
                double multihull = 0, other = 0;
                const auto ask_ours = [&, kind = call] {
                    multihull = rate(pool, clients, settings.seconds, ask_multihull, dict, queue, kind);
                };
                if (round % 2 == 0) ask_ours();
                other = rate(pool, clients, settings.seconds, ask_redis, path, call);
                if (round % 2 != 0) ask_ours();
                ours.push_back(multihull);
                theirs.push_back(other);
                ratios.push_back(multihull / other);
            }
            fmt::print("{:<16}{:>8}{:>12.0f}{:>12.0f}{:>13.2f}x\n", name, clients, bench::median(ours),
                       bench::median(theirs), bench::median(ratios));
            std::fflush(stdout);
        }
    }
}

}    // namespace

int main(int argc, char** argv) {
    multihull::init(argc, argv);
    Settings settings;
    CLI::App app("The manager's server and Redis, asked by C++ programs.");
    app.add_option("--rounds", settings.rounds)->check(CLI::PositiveNumber);
    app.add_option("--seconds", settings.seconds, "of one turn")->check(CLI::PositiveNumber);
    app.add_option("--clients", settings.clients, "processes that call at once");
    app.add_option("--only", settings.only, "calls whose names hold this");
    CLI11_PARSE(app, argc, argv);
    fmt::print("{}\n", bench::machine());
    measure(settings);
    return 0;
}
