// Waiting for a map that stops at its first failure.
#include "pool/engine.hpp"
#include "pool/map_state.hpp"

#include <multihull/detail/future_group.hpp>

namespace multihull::detail {

namespace {

// Most maps that are worth no more than this are over by then, and nobody need be told of their parts one by one.
constexpr std::chrono::microseconds kAtOnce{200};

void wait_for_parts(MapState& map, std::chrono::nanoseconds period, const std::function<void(std::size_t)>& tick) {
    if (map.wait(0, deadline_after(kAtOnce))) return;
    FutureGroup parts;
    const auto engine = as_completion(map.engine());
    for (const std::uint32_t task : map.tasks()) parts.add(engine, task);
    for (std::size_t left = parts.size(); left != 0;) {
        const auto ended = parts.next(period.count() > 0 ? deadline_after(period) : kNoDeadline);
        if (!ended) {
            tick(map.done_about());
            continue;
        }
        // The part in which an input failed has ended early; those that run are not waited for.
        if (--left != 0 && map.stopped()) map.cancel(0);
    }
}

}    // namespace

void wait_for_map(const std::shared_ptr<Completion>& map, std::chrono::nanoseconds period,
                  const std::function<void(std::size_t)>& tick) {
    auto& state = static_cast<MapState&>(*map);
    try {
        wait_for_parts(state, period, tick);
    } catch (...) {
        state.cancel(0);
        throw;
    }
    if (auto why = state.first_element_failure()) std::rethrow_exception(std::move(why));
    if (auto why = state.failure(0)) std::rethrow_exception(std::move(why));
}

void report_map(const std::shared_ptr<Completion>& map, std::size_t total,
                const std::function<void(const Progress&)>& progress) {
    constexpr std::chrono::milliseconds kPeriod{100};
    auto& state = static_cast<MapState&>(*map);
    const auto began = std::chrono::steady_clock::now();
    const auto report = [&](std::size_t done) { progress({done, total, std::chrono::steady_clock::now() - began}); };
    try {
        while (!state.wait(0, deadline_after(kPeriod))) report(state.done_about());
        report(state.stopped() ? state.done_about() : total);
    } catch (...) {
        state.cancel(0);
        throw;
    }
}

}    // namespace multihull::detail
