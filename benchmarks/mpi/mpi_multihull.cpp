// Multihull's side of script/bench --mpi. With the word `traffic`: what tiny tasks cost rank 0, in messages and time.
#include "works.hpp"

#include <multihull/mpi.hpp>

#include <cstdlib>
#include <numeric>
#include <ranges>
#include <sys/resource.h>

namespace {

using multihull::mpi::PoolExecutor;

void measure_times() {
    PoolExecutor executor(2);    // of ranks 1 and 2: rank 0 hands out, as in the other programs
    for (int i = 0; i < 200; ++i) executor.submit(works::cube, i).get();
    std::vector<double> singles;
    for (int i = 0; i < works::kSingles; ++i) {
        const works::Stopwatch watch;
        executor.submit(works::cube, i).get();
        singles.push_back(watch.seconds());
    }
    works::write_down("single", works::median(singles));

    const auto map = [&](int count) {
        const works::Stopwatch watch;
        std::int64_t total = 0;
        for (const std::int64_t x : executor.map(works::cube, std::views::iota(std::int64_t{0}, std::int64_t{count})))
            total += x;
        const double seconds = watch.seconds();
        if (total == 0) std::abort();
        return seconds;
    };
    std::vector<double> cubes;
    for (int i = 0; i < 5; ++i) cubes.push_back(map(works::kCubes));
    works::write_down("cubes", works::median(cubes));
    works::write_down("tiny", map(works::kTiny) / works::kTiny);

    std::vector<std::uint64_t> big(works::kBigBytes / sizeof(std::uint64_t));
    std::iota(big.begin(), big.end(), 0);
    const std::uint64_t expected = works::sum(big);
    for (int round = 0; round < 2; ++round) {    // the first one touches the memory
        const works::Stopwatch watch;
        std::vector<multihull::Future<std::uint64_t>> sums;
        for (int i = 0; i < works::kBig; ++i) sums.push_back(executor.submit(works::sum, big));
        for (const auto& future : sums) {
            if (future.get() != expected) std::abort();
        }
        if (round == 1) works::write_down("big", watch.seconds() / works::kBig);
    }

    const works::Stopwatch watch;
    for (const int x : executor.map(works::busy, std::vector<int>(works::kLong, works::kLongMs))) {
        if (x != works::kLongMs) std::abort();
    }
    works::write_down("long", watch.seconds());
}

/// Processor time, seconds: of the thread that asks, or of its whole process.
double processor_seconds(int whose) {
    rusage usage{};
    ::getrusage(whose, &usage);
    const auto seconds = [](const timeval& time) {
        return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_usec) * 1e-6;
    };
    return seconds(usage.ru_utime) + seconds(usage.ru_stime);
}

/// One worker on each rank but rank 0, which hands out.
void measure_traffic(const multihull::mpi::Session& session) {
    PoolExecutor executor(session.size() - 1);
    const std::int64_t count = works::kTiny;
    for (int i = 0; i < 20; ++i) executor.submit(works::cube, i).get();
    const auto before = session.traffic();
    const double caller = processor_seconds(RUSAGE_THREAD);
    const double process = processor_seconds(RUSAGE_SELF);
    const works::Stopwatch watch;
    std::vector<multihull::Future<std::int64_t>> futures;
    for (std::int64_t i = 0; i < count; ++i) futures.push_back(executor.submit(works::cube, i));
    for (const auto& future : futures) static_cast<void>(future.get());
    const double seconds = watch.seconds();
    const double of_caller = processor_seconds(RUSAGE_THREAD) - caller;
    const double of_others = processor_seconds(RUSAGE_SELF) - process - of_caller;
    const auto after = session.traffic();
    const auto per_task = [&](auto from, auto to) {
        return static_cast<double>(to - from) / static_cast<double>(count);
    };
    std::printf("| %zu | %.2f us | %.2f us | %.2f us | %.4f | %.4f | %.1f | %.1f |\n", session.size(),
                per_task(0.0, seconds) * 1e6, per_task(0.0, of_caller) * 1e6, per_task(0.0, of_others) * 1e6,
                per_task(before.messages_sent, after.messages_sent),
                per_task(before.messages_received, after.messages_received),
                per_task(before.bytes_sent, after.bytes_sent), per_task(before.bytes_received, after.bytes_received));
}

}    // namespace

int main(int argc, char** argv) {
    multihull::mpi::Session session(argc, argv);
    if (argc > 1) {
        measure_traffic(session);
    } else {
        measure_times();
    }
}
