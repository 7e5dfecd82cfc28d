// Maps: very cheap elements, where what counts is how they travel, and elements of a microsecond, where it should not.
#include "harness.hpp"
#include "thread_pool.hpp"

#include <multihull/pool.hpp>
#include <multihull/shared.hpp>

#include <oneapi/tbb/blocked_range.h>
#include <oneapi/tbb/parallel_for.h>
#include <oneapi/tbb/task_arena.h>

#include <algorithm>
#include <memory>
#include <numeric>
#include <ranges>
#include <span>
#include <vector>

namespace bench {

namespace {

constexpr int kInts = 1'000'000;
constexpr int kShortTasks = 100'000;

int square(int x) { return static_cast<int>(static_cast<unsigned>(x) * static_cast<unsigned>(x)); }

// Works on the processor, not by the clock: a worker that is interrupted has to make up for it.
int spin(int turns) {
    for (int i = 0; i < turns; ++i) keep(i);
    return turns;
}

int turns_of_a_microsecond() {
    constexpr int kTurns = 1'000'000;
    double best = 1e18;
    for (int i = 0; i < 20; ++i) best = std::min(best, timed([] { keep(spin(kTurns)); }));
    return static_cast<int>(kTurns / best * 1000);
}

void check(std::span<const int> squares) {
    require(squares.size() == kInts && squares[3] == 9 && squares.back() == square(kInts - 1), "the squares");
}

// `input(i)` is the i-th input; results go into a vector of their own, as a user would have it.
template <class Input, class Function>
std::vector<int> loop_map(int count, Input input, Function function) {
    std::vector<int> out;
    out.reserve(static_cast<std::size_t>(count));
    for (int i = 0; i < count; ++i) out.push_back(function(input(i)));
    return out;
}

template <class Input, class Function>
std::vector<int> tbb_map(oneapi::tbb::task_arena& arena, int count, Input input, Function function) {
    std::vector<int> out(static_cast<std::size_t>(count));
    arena.execute([&] {
        oneapi::tbb::parallel_for(oneapi::tbb::blocked_range<int>(0, count), [&](const auto& range) {
            for (int i = range.begin(); i != range.end(); ++i) out[static_cast<std::size_t>(i)] = function(input(i));
        });
    });
    return out;
}

template <class Input, class Function>
std::vector<int> thread_pool_map(ThreadPool& pool, int count, Input input, Function function) {
    std::vector<int> out(static_cast<std::size_t>(count));
    pool.for_each_piece(out.size(), [&](std::size_t begin, std::size_t end) {
        for (std::size_t i = begin; i != end; ++i) out[i] = function(input(static_cast<int>(i)));
    });
    return out;
}

template <class Map>
Competitor squares(std::string_view name, Map map) {
    return {std::string(name), [map] {
                std::vector<int> out;
                const double ns = timed([&] { out = map(); });
                check(out);
                return ns;
            }};
}

std::shared_ptr<oneapi::tbb::task_arena> make_arena(const Settings& settings) {
    return std::make_shared<oneapi::tbb::task_arena>(static_cast<int>(settings.workers));
}

// The peers of a map of squares over inputs that `input` answers by index.
template <class Input>
std::vector<Competitor> square_peers(const Settings& settings, Input input) {
    const auto threads = std::make_shared<ThreadPool>(settings.workers);
    const auto arena = make_arena(settings);
    return {
        squares(kThreadPool, [=] { return thread_pool_map(*threads, kInts, input, square); }),
        squares(kTbb, [=] { return tbb_map(*arena, kInts, input, square); }),
        squares(kLoop, [=] { return loop_map(kInts, input, square); }),
    };
}

}    // namespace

std::vector<Competitor> prepare_map_vector(const Settings& settings) {
    const auto pool = std::make_shared<multihull::Pool>(settings.workers);
    const auto inputs = std::make_shared<std::vector<int>>(kInts);
    std::iota(inputs->begin(), inputs->end(), 0);
    auto all = square_peers(settings, [inputs](int i) { return (*inputs)[static_cast<std::size_t>(i)]; });
    all.insert(all.begin(), squares(kMultihull, [=] { return pool->map(square, *inputs); }));
    return all;
}

std::vector<Competitor> prepare_map_iota(const Settings& settings) {
    const auto pool = std::make_shared<multihull::Pool>(settings.workers);
    auto all = square_peers(settings, [](int i) { return i; });
    all.insert(all.begin(), squares(kMultihull, [=] { return pool->map(square, std::views::iota(0, kInts)); }));
    return all;
}

std::vector<Competitor> prepare_map_lambda(const Settings& settings) {
    const auto pool = std::make_shared<multihull::Pool>(settings.workers);
    auto all = square_peers(settings, [](int i) { return i; });
    all.insert(all.begin(), squares(kMultihull, [=] {
                   return pool->map([](int x) { return square(x); }, std::views::iota(0, kInts));
               }));
    return all;
}

// From one array into another, both there before: threads have theirs in their common memory, processes in shared memory.
std::vector<Competitor> prepare_map_shared(const Settings& settings) {
    const auto pool = std::make_shared<multihull::Pool>(settings.workers);
    const auto arena = make_arena(settings);
    const multihull::Array<int> shared_in(std::views::iota(0, kInts));
    const multihull::Array<int> shared_out(kInts);
    const auto in = std::make_shared<std::vector<int>>(shared_in.begin(), shared_in.end());
    const auto out = std::make_shared<std::vector<int>>(kInts);
    const auto checked = [](std::string_view name, auto results, auto run) {
        return Competitor{std::string(name), [=] {
                              std::fill(results().begin(), results().end(), 0);
                              const double ns = timed(run);
                              check(results());
                              return ns;
                          }};
    };
    const auto own = [out] { return std::span(*out); };
    return {
        checked(
            kMultihull, [=] { return shared_out.span(); },
            [=] { pool->map_into([](int x) { return square(x); }, shared_in, shared_out); }),
        checked(kTbb, own,
                [=] {
                    arena->execute([&] {
                        oneapi::tbb::parallel_for(oneapi::tbb::blocked_range<std::size_t>(0, kInts),
                                                  [&](const auto& range) {
                                                      for (std::size_t i = range.begin(); i != range.end(); ++i)
                                                          (*out)[i] = square((*in)[i]);
                                                  });
                    });
                }),
        checked(kLoop, own, [=] { std::ranges::transform(*in, out->begin(), square); }),
    };
}

std::vector<Competitor> prepare_map_microsecond(const Settings& settings) {
    const auto pool = std::make_shared<multihull::Pool>(settings.workers);
    const auto threads = std::make_shared<ThreadPool>(settings.workers);
    const auto arena = make_arena(settings);
    const int turns = turns_of_a_microsecond();
    const auto inputs = std::make_shared<std::vector<int>>(kShortTasks, turns);
    const auto input = [inputs](int i) { return (*inputs)[static_cast<std::size_t>(i)]; };
    return {
        {std::string(kMultihull), [=] { return timed([&] { keep(pool->map(spin, *inputs)); }); }},
        {std::string(kThreadPool),
         [=] { return timed([&] { keep(thread_pool_map(*threads, kShortTasks, input, spin)); }); }},
        {std::string(kTbb), [=] { return timed([&] { keep(tbb_map(*arena, kShortTasks, input, spin)); }); }},
        {std::string(kLoop), [=] { return timed([&] { keep(loop_map(kShortTasks, input, spin)); }); }},
    };
}

std::vector<Competitor> prepare_map_microsecond_traced(const Settings& settings) {
    const auto traced =
        std::make_shared<multihull::Pool>(multihull::PoolOptions{.processes = settings.workers, .trace = true});
    const auto untraced = std::make_shared<multihull::Pool>(settings.workers);
    const auto inputs = std::make_shared<std::vector<int>>(kShortTasks, turns_of_a_microsecond());
    return {
        {std::string(kMultihull), [=] { return timed([&] { keep(traced->map(spin, *inputs)); }); }},
        {std::string(kUntraced), [=] { return timed([&] { keep(untraced->map(spin, *inputs)); }); }},
    };
}

}    // namespace bench
