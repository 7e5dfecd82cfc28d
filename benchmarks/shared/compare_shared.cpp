// Queues and locks between processes, side by side with what else a user has: each round takes one sample of every competitor.
#include "channels.hpp"

#include <multihull/sync.hpp>

#include <CLI/CLI.hpp>
#include <boost/interprocess/sync/interprocess_mutex.hpp>
#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <mutex>
#include <new>
#include <pthread.h>
#include <string>
#include <sys/mman.h>
#include <sys/wait.h>
#include <thread>
#include <unistd.h>
#include <vector>

namespace {

namespace ipc = boost::interprocess;
using namespace bench;
using Clock = std::chrono::steady_clock;

double ns_since(Clock::time_point begin) {
    return std::chrono::duration<double, std::nano>(Clock::now() - begin).count();
}

// Runs a function in so many forked children while `here` runs in this process; answers nanoseconds until all are done.
double with_children(
    int count, const std::function<void(int)>& there, const std::function<void()>& here = [] {}) {
    const auto begin = Clock::now();
    std::vector<pid_t> children;
    for (int i = 0; i < count; ++i) {
        const pid_t pid = ::fork();
        if (pid == 0) {
            there(i);
            ::_exit(0);
        }
        children.push_back(pid);
    }
    here();
    for (const pid_t child : children) {
        int status = 0;
        ::waitpid(child, &status, 0);
        require(status == 0, "a child failed");
    }
    return ns_since(begin);
}

double stream(const Channel& channel, std::size_t size, int putters, int takers, int count) {
    return with_children(putters + takers,
                         [&](int child) {
                             std::vector<std::byte> message(size);
                             if (child < takers) {
                                 for (int i = 0; i < count / takers; ++i) channel.take(message.data(), size);
                             } else {
                                 for (int i = 0; i < count / putters; ++i) channel.put(message.data(), size);
                             }
                             channel.finish();
                         }) /
           count;
}

// Nanoseconds there and back; with a `rest` before each trip, in which both sides fall asleep.
double round_trip(const Channel& there, const Channel& back, int count, std::chrono::microseconds rest = {}) {
    Clock::duration elapsed{};
    with_children(
        1,
        [&](int) {
            Small message{};
            for (int i = 0; i < count; ++i) {
                there.take(message.data(), sizeof message);
                back.put(message.data(), sizeof message);
            }
            there.take(message.data(), sizeof message);
            there.finish();
            back.finish();
        },
        [&] {
            Small message{};
            auto begin = Clock::now();
            for (int i = 0; i < count; ++i) {
                if (rest.count() != 0) {
                    std::this_thread::sleep_for(rest);
                    begin = Clock::now();
                }
                there.put(message.data(), sizeof message);
                back.take(message.data(), sizeof message);
                if (rest.count() != 0) elapsed += Clock::now() - begin;
            }
            if (rest.count() == 0) elapsed = Clock::now() - begin;
            // The child's end is no part of the last trip, which may be on the same processor.
            there.put(message.data(), sizeof message);
            there.finish();
            back.finish();
        });
    return std::chrono::duration<double, std::nano>(elapsed).count() / count;
}

template <class T>
T* in_shared_memory() {
    void* const memory = ::mmap(nullptr, sizeof(T), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    require(memory != MAP_FAILED, "mmap");
    return new (memory) T();
}

class RobustMutex {
public:
    RobustMutex() {
        pthread_mutexattr_t attributes;
        ::pthread_mutexattr_init(&attributes);
        ::pthread_mutexattr_setpshared(&attributes, PTHREAD_PROCESS_SHARED);
        ::pthread_mutexattr_setrobust(&attributes, PTHREAD_MUTEX_ROBUST);
        ::pthread_mutex_init(&mutex_, &attributes);
    }
    void lock() { require(::pthread_mutex_lock(&mutex_) == 0, "a robust mutex"); }
    void unlock() { ::pthread_mutex_unlock(&mutex_); }

private:
    pthread_mutex_t mutex_;
};

template <class Mutex>
double alone(Mutex& mutex, int count) {
    const auto begin = Clock::now();
    for (int i = 0; i < count; ++i) {
        mutex.lock();
        mutex.unlock();
    }
    return ns_since(begin) / count;
}
template <class Mutex>
double contended(Mutex& mutex, int count) {
    static auto* const number = in_shared_memory<long>();
    return with_children(4,
                         [&](int) {
                             for (int i = 0; i < count / 4; ++i) {
                                 const std::lock_guard guard(mutex);
                                 *number = *number + 1;
                             }
                         }) /
           count;
}

double python(const std::string& work, int count) {
    const std::string command = fmt::format("python3 {} {} {}", MULTIHULL_PYTHON_PEER, work, count);
    std::FILE* const pipe = ::popen(command.c_str(), "r");
    require(pipe != nullptr, "python3");
    double value = 0;
    const bool read = std::fscanf(pipe, "%lf", &value) == 1;
    require(::pclose(pipe) == 0 && read, "python3");
    return value;
}

struct Competitor {
    std::string name;
    std::function<double()> sample;
};
struct Work {
    std::string name;
    std::string title;
    std::string baseline;
    std::vector<Competitor> competitors;
};

std::vector<Work> works(bool with_python) {
    static auto* const robust = in_shared_memory<RobustMutex>();
    static auto* const boost = in_shared_memory<ipc::interprocess_mutex>();
    static auto* const own = new multihull::Lock;
    constexpr int kMany = 200'000;
    static constexpr std::chrono::milliseconds kRest{1};
    std::vector<Work> all{
        {"small",
         "64 bytes, one to one",
         "Boost",
         {{"Multihull", [] { return stream(multihull_small(1000), 64, 1, 1, kMany); }},
          {"no limit", [] { return stream(multihull_small(0), 64, 1, 1, kMany); }},
          {"Boost", [] { return stream(boost_queue(64, 1000), 64, 1, 1, kMany); }},
          {"mutex ring", [] { return stream(mutex_ring(64, 1000), 64, 1, 1, kMany); }},
          {"POSIX mq", [] { return stream(posix_queue(), 64, 1, 1, kMany); }},
          {"bare ring", [] { return stream(bare_ring(64, 1000), 64, 1, 1, kMany); }}}},
        {"big",
         "1 MiB, one to one",
         "Boost",
         {{"Multihull", [] { return stream(multihull_big(), kBig, 1, 1, 1000); }},
          {"in place", [] { return stream(multihull_in_place(), kBig, 1, 1, 20'000); }},
          {"Boost", [] { return stream(boost_queue(kBig, 8), kBig, 1, 1, 1000); }},
          {"socket", [] { return stream(raw_socket(), kBig, 1, 1, 1000); }},
          {"bare ring", [] { return stream(bare_ring(kBig, 8), kBig, 1, 1, 1000); }}}},
        {"round-trip",
         "64 bytes there and back",
         "POSIX mq",
         {{"Multihull", [] { return round_trip(multihull_small(0), multihull_small(0), 20'000); }},
          {"Boost", [] { return round_trip(boost_queue(64, 10), boost_queue(64, 10), 20'000); }},
          {"mutex ring", [] { return round_trip(mutex_ring(64, 10), mutex_ring(64, 10), 20'000); }},
          {"POSIX mq", [] { return round_trip(posix_queue(), posix_queue(), 20'000); }},
          {"bare ring", [] { return round_trip(bare_ring(64, 10), bare_ring(64, 10), 20'000); }}}},
        {"asleep",
         "the same after 1 ms of idleness",
         "POSIX mq",
         {{"Multihull", [] { return round_trip(multihull_small(0), multihull_small(0), 100, kRest); }},
          {"Boost", [] { return round_trip(boost_queue(64, 10), boost_queue(64, 10), 100, kRest); }},
          {"mutex ring", [] { return round_trip(mutex_ring(64, 10), mutex_ring(64, 10), 100, kRest); }},
          {"POSIX mq", [] { return round_trip(posix_queue(), posix_queue(), 100, kRest); }}}},
        {"many",
         "64 bytes, 20 putters, 20 takers",
         "mutex ring",
         {{"Multihull", [] { return stream(multihull_small(1000), 64, 20, 20, 100'000); }},
          {"no limit", [] { return stream(multihull_small(0), 64, 20, 20, 100'000); }},
          {"Boost", [] { return stream(boost_queue(64, 1000), 64, 20, 20, 100'000); }},
          {"mutex ring", [] { return stream(mutex_ring(64, 1000), 64, 20, 20, 100'000); }},
          {"POSIX mq", [] { return stream(posix_queue(), 64, 20, 20, 100'000); }}}},
        {"pipe",
         "64 bytes through a Pipe, there and back",
         "socket",
         {{"Multihull", [] { return round_trip(multihull_connection(), multihull_connection(), 5'000); }},
          {"socket", [] { return round_trip(raw_socket(), raw_socket(), 5'000); }},
          {"pipe", [] { return round_trip(raw_pipe(), raw_pipe(), 5'000); }}}},
        {"pipe-big",
         "1 MiB through a Pipe",
         "socket",
         {{"Multihull", [] { return stream(multihull_connection(), kBig, 1, 1, 500); }},
          {"socket", [] { return stream(raw_socket(), kBig, 1, 1, 500); }},
          {"pipe", [] { return stream(raw_pipe(), kBig, 1, 1, 500); }}}},
        {"lock",
         "lock and unlock, nobody else",
         "robust",
         {{"Multihull", [] { return alone(*own, 1'000'000); }},
          {"robust", [] { return alone(*robust, 1'000'000); }},
          {"Boost", [] { return alone(*boost, 1'000'000); }}}},
        {"contended",
         "an increment under a lock, 4 processes",
         "robust",
         {{"Multihull", [] { return contended(*own, 400'000); }},
          {"robust", [] { return contended(*robust, 400'000); }},
          {"Boost", [] { return contended(*boost, 400'000); }}}},
    };
    if (kHasZeromq) {
        for (auto& work : all) {
            if (work.name == "small")
                work.competitors.push_back({"ZeroMQ", [] { return stream(zeromq(), 64, 1, 1, kMany); }});
            if (work.name == "big")
                work.competitors.push_back({"ZeroMQ", [] { return stream(zeromq(), kBig, 1, 1, 1000); }});
            if (work.name == "round-trip")
                work.competitors.push_back({"ZeroMQ", [] { return round_trip(zeromq(), zeromq(), 2'000); }});
        }
    }
    if (with_python) {
        for (auto& work : all) {
            if (work.name == "small") work.competitors.push_back({"Python", [] { return python("small", 20'000); }});
            if (work.name == "round-trip")
                work.competitors.push_back({"Python", [] { return python("round-trip", 5'000); }});
            if (work.name == "pipe") work.competitors.push_back({"Python", [] { return python("pipe", 5'000); }});
            if (work.name == "many") work.competitors.push_back({"Python", [] { return python("many", 10'000); }});
            if (work.name == "contended")
                work.competitors.push_back({"Python", [] { return python("contended", 40'000); }});
        }
    }
    return all;
}

double median(std::vector<double> values) {
    std::sort(values.begin(), values.end());
    return values[values.size() / 2];
}

}    // namespace

int main(int argc, char** argv) {
    CLI::App app(
        "Measures queues and locks between processes, side by side: nanoseconds, medians, and the ratio to the first "
        "of "
        "what else a user has.");
    int rounds = 7;
    bool no_python = false;
    std::vector<std::string> only;
    app.add_option("--rounds", rounds, "Samples of each competitor")->check(CLI::PositiveNumber)->capture_default_str();
    app.add_option("--only", only,
                   "Measure these works only: small, big, round-trip, asleep, many, pipe, "
                   "pipe-big, lock, contended");
    app.add_flag("--no-python", no_python, "Leave Python out");
    CLI11_PARSE(app, argc, argv);
    try {
        for (auto& work : works(!no_python)) {
            if (!only.empty() && std::find(only.begin(), only.end(), work.name) == only.end()) continue;
            std::vector<std::vector<double>> samples(work.competitors.size());
            for (int round = 0; round < rounds; ++round) {
                for (std::size_t i = 0; i < samples.size(); ++i) {
                    const std::size_t turn = (i + static_cast<std::size_t>(round)) % samples.size();
                    samples[turn].push_back(work.competitors[turn].sample());
                }
            }
            fmt::print("{:<40}", work.title);
            double first = 0;
            double baseline = 0;
            for (std::size_t i = 0; i < samples.size(); ++i) {
                const double value = median(samples[i]);
                fmt::print("  {} {:.0f} ns", work.competitors[i].name, value);
                if (i == 0) first = value;
                if (work.competitors[i].name == work.baseline) baseline = value;
            }
            fmt::print("  ratio {:.2f} x {}\n", first / baseline, work.baseline);
            std::fflush(stdout);
        }
    } catch (const std::exception& error) {
        fmt::print(stderr, "compare_shared: {}\n", error.what());
        return 1;
    }
}
