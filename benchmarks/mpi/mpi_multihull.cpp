// Multihull's side of script/bench --mpi. With the word `traffic`: what tiny tasks cost rank 0, in messages and time. With names of works:
// those alone.
#include "works.hpp"

#include <multihull/mpi.hpp>

#include <cstdlib>
#include <functional>
#include <numeric>
#include <ranges>
#include <sys/resource.h>
#include <utility>
#include <vector>

namespace {

using multihull::mpi::PoolExecutor;

void measure_singles(PoolExecutor& executor) {
    for (int i = 0; i < 200; ++i) executor.submit(works::cube, i).get();
    std::vector<double> singles;
    for (int i = 0; i < works::kSingles; ++i) {
        const works::Stopwatch watch;
        executor.submit(works::cube, i).get();
        singles.push_back(watch.seconds());
    }
    works::write_down("single", works::median(singles));
}

void measure_cubes(PoolExecutor& executor) {
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
}

/// How the caller passes a buffer.
enum class Pass {
    kept,     ///< It stays the caller's, who may change it at once.
    lent,     ///< It stays as it is until the task has ended.
    given,    ///< It is the task's from now on.
};

void measure_big(PoolExecutor& executor, const char* name, std::size_t count, Pass way) {
    std::vector<std::uint64_t> one(works::kBigBytes / sizeof(std::uint64_t));
    std::iota(one.begin(), one.end(), 0);
    const std::uint64_t expected = works::sum(one);
    std::vector<std::vector<std::uint64_t>> buffers(count, one);
    std::vector<double> seconds;
    for (int pass = 0; pass < works::kBigPasses; ++pass) {
        if (way == Pass::given) buffers.assign(count, one);
        const works::Stopwatch watch;
        std::vector<multihull::Future<std::uint64_t>> sums;
        for (std::size_t i = 0; i < works::kBig; ++i) {
            std::vector<std::uint64_t>& buffer = buffers[i % count];
            if (way == Pass::kept) {
                sums.push_back(executor.submit(works::sum, buffer));
            } else if (way == Pass::lent) {
                sums.push_back(executor.submit(works::sum, std::cref(buffer)));
            } else {
                sums.push_back(executor.submit(works::sum, std::move(buffer)));
            }
        }
        for (const auto& future : sums) {
            if (future.get() != expected) std::abort();
        }
        if (pass >= works::kBigWarmUp) seconds.push_back(watch.seconds() / works::kBig);
    }
    works::write_down(name, works::median(seconds));
}

void measure_long(PoolExecutor& executor) {
    const works::Stopwatch watch;
    for (const int x : executor.map(works::busy, std::vector<int>(works::kLong, works::kLongMs))) {
        if (x != works::kLongMs) std::abort();
    }
    works::write_down("long", watch.seconds());
}

void measure_times(const works::Selection& selected) {
    PoolExecutor executor(2);    // of ranks 1 and 2: rank 0 hands out, as in the other programs
    if (selected("single")) measure_singles(executor);
    if (selected("cubes")) measure_cubes(executor);
    if (selected("lent")) measure_big(executor, "lent", 1, Pass::lent);
    if (selected("lent_many")) measure_big(executor, "lent_many", works::kBig, Pass::lent);
    if (selected("given")) measure_big(executor, "given", works::kBig, Pass::given);
    if (selected("kept")) measure_big(executor, "kept", 1, Pass::kept);
    if (selected("long")) measure_long(executor);
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
    const works::Selection selected(argc, argv);
    if (argc > 1 && selected("traffic")) {
        measure_traffic(session);
    } else {
        measure_times(selected);
    }
}
