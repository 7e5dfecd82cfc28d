// Plain MPI's side of script/bench --mpi: rank 0 hands out, each of the others has two tasks at a time and computes in its own process. What
// crashes, hangs or throws ends the run.
#include "works.hpp"

#include <mpi.h>

#include <cstdlib>
#include <numeric>
#include <vector>

namespace {

enum Tag : int { kCube = 1, kSum, kBusy, kEnd };

void serve() {
    std::vector<std::uint64_t> values(works::kBigBytes / sizeof(std::uint64_t));
    for (;;) {
        MPI_Status status;
        MPI_Recv(values.data(), static_cast<int>(works::kBigBytes), MPI_BYTE, 0, MPI_ANY_TAG, MPI_COMM_WORLD, &status);
        std::uint64_t result = 0;
        switch (status.MPI_TAG) {
            case kCube:
                result = static_cast<std::uint64_t>(works::cube(static_cast<std::int64_t>(values[0])));
                break;
            case kSum:
                result = works::sum(values);
                break;
            case kBusy:
                result = static_cast<std::uint64_t>(works::busy(static_cast<int>(values[0])));
                break;
            default:
                return;
        }
        MPI_Send(&result, 1, MPI_UINT64_T, 0, status.MPI_TAG, MPI_COMM_WORLD);
    }
}

/// Hands out `count` tasks, whose arguments are `size` bytes each of what argument(i) points to; answers the seconds that it took.
template <class Argument>
double hand_out(int ranks, std::size_t count, Tag tag, std::size_t size, Argument argument) {
    const works::Stopwatch watch;
    std::vector<MPI_Request> requests;
    std::size_t given = 0;
    const auto give = [&](int rank) {
        if (given == count) return;
        requests.emplace_back();
        MPI_Isend(argument(given), static_cast<int>(size), MPI_BYTE, rank, tag, MPI_COMM_WORLD, &requests.back());
        ++given;
    };
    for (int ahead = 0; ahead < 2; ++ahead) {
        for (int rank = 1; rank < ranks; ++rank) give(rank);
    }
    for (std::size_t done = 0; done < count; ++done) {
        std::uint64_t result = 0;
        MPI_Status status;
        MPI_Recv(&result, 1, MPI_UINT64_T, MPI_ANY_SOURCE, tag, MPI_COMM_WORLD, &status);
        give(status.MPI_SOURCE);
    }
    MPI_Waitall(static_cast<int>(requests.size()), requests.data(), MPI_STATUSES_IGNORE);
    return watch.seconds();
}

double hand_out_cubes(int ranks, std::size_t count) {
    std::vector<std::uint64_t> numbers(count);
    std::iota(numbers.begin(), numbers.end(), 0);
    return hand_out(ranks, count, kCube, sizeof(std::uint64_t), [&](std::size_t i) { return &numbers[i]; });
}

void measure_big(int ranks, const char* name, std::size_t buffers) {
    std::vector<std::uint64_t> one(works::kBigBytes / sizeof(std::uint64_t));
    std::iota(one.begin(), one.end(), 0);
    const std::vector<std::vector<std::uint64_t>> big(buffers, one);
    const auto send = [&] {
        return hand_out(ranks, works::kBig, kSum, works::kBigBytes,
                        [&](std::size_t i) { return big[i % buffers].data(); });
    };
    std::vector<double> seconds;
    for (int pass = 0; pass < works::kBigPasses; ++pass) {
        const double all = send();
        if (pass >= works::kBigWarmUp) seconds.push_back(all / works::kBig);
    }
    works::write_down(name, works::median(seconds));
}

void measure(int ranks, const works::Selection& selected) {
    hand_out_cubes(ranks, 200);
    if (selected("single")) {
        std::vector<double> singles;
        for (int i = 0; i < works::kSingles; ++i) singles.push_back(hand_out_cubes(ranks, 1));
        works::write_down("single", works::median(singles));
    }
    if (selected("cubes")) {
        std::vector<double> cubes;
        for (int i = 0; i < 5; ++i) cubes.push_back(hand_out_cubes(ranks, works::kCubes));
        works::write_down("cubes", works::median(cubes));
        works::write_down("tiny", hand_out_cubes(ranks, works::kTiny) / works::kTiny);
    }
    if (selected("lent")) measure_big(ranks, "lent", 1);
    if (selected("lent_many")) measure_big(ranks, "lent_many", works::kBig);
    if (selected("given")) measure_big(ranks, "given", works::kBig);
    if (selected("kept")) measure_big(ranks, "kept", 1);
    if (selected("long")) {
        const std::uint64_t milliseconds = works::kLongMs;
        works::write_down("long", hand_out(ranks, works::kLong, kBusy, sizeof milliseconds,
                                           [&](std::size_t) { return &milliseconds; }));
    }
    for (int rank = 1; rank < ranks; ++rank) MPI_Send(nullptr, 0, MPI_BYTE, rank, kEnd, MPI_COMM_WORLD);
}

}    // namespace

int main(int argc, char** argv) {
    MPI_Init(&argc, &argv);
    int rank = 0;
    int ranks = 1;
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    MPI_Comm_size(MPI_COMM_WORLD, &ranks);
    if (rank == 0) {
        measure(ranks, works::Selection(argc, argv));
    } else {
        serve();
    }
    MPI_Finalize();
}
