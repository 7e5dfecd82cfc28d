#include "top_screen.hpp"

#include <fmt/format.h>
#include <multihull/compare.hpp>

#include <algorithm>
#include <array>

namespace app {

using multihull::PublishedFailure;
using multihull::WorkerState;
using multihull::WorkerStats;

namespace {

constexpr std::size_t kWide = 100;
constexpr std::size_t kShownFailures = 5;    // of each pool, the last ones

/// One cell of the terminal a byte, and nothing that steers it.
std::string plain(std::string text) {
    std::ranges::replace_if(
        text, [](unsigned char c) { return c < 0x20 || c >= 0x7F; }, '?');
    return text;
}

class Lines {
public:
    explicit Lines(std::size_t width) : width_(width) {}

    void add(Tone tone, std::string text) {
        text = plain(std::move(text));
        text.resize(std::min(text.size(), width_));
        lines_.push_back({tone, std::move(text)});
    }
    bool wide() const { return width_ >= kWide; }
    std::vector<ScreenLine> take() { return std::move(lines_); }

private:
    const std::size_t width_;
    std::vector<ScreenLine> lines_;
};

std::string count(std::uint64_t number, const char* one, const char* many) {
    return fmt::format("{} {}", number, number == 1 ? one : many);
}

void add_worker(Lines& lines, std::size_t place, const WorkerStats& worker, std::size_t memory) {
    const std::string pid = worker.pid > 0 ? std::to_string(worker.pid) : "-";
    const std::string age = worker.task_age ? multihull::to_string(*worker.task_age) : "-";
    const Tone tone = worker.state == WorkerState::busy ? Tone::busy : Tone::faint;
    const std::string task = worker.task.empty() ? "-" : worker.task;
    if (lines.wide()) {
        lines.add(tone, fmt::format("  {:>4} {:>8} {:<8} {:>8} {:>9} {:>9} {:>7} {:>8}  {}", place, pid,
                                    multihull::to_string(worker.state), age, size_text(memory), worker.done,
                                    worker.failed, worker.restarts, task));
    } else {
        lines.add(tone, fmt::format("{:>3} {:>8} {:<8} {:>8} {:>9}  {}", place, pid, multihull::to_string(worker.state),
                                    age, size_text(memory), task));
    }
}

void add_failures(Lines& lines, const std::vector<PublishedFailure>& failures) {
    const std::size_t shown = std::min(failures.size(), kShownFailures);
    for (std::size_t i = 0; i < shown; ++i) {
        const PublishedFailure& failure = failures[failures.size() - 1 - i];
        const std::string where = failure.function.empty() ? "" : fmt::format(", in {}", failure.function);
        const auto age = std::chrono::duration_cast<std::chrono::seconds>(failure.age);
        lines.add(Tone::bad, fmt::format("  {} {} s ago{}: {}", multihull::to_string(failure.outcome), age.count(),
                                         where, failure.what));
    }
}

void add_pool(Lines& lines, const PoolView& view) {
    const multihull::PoolStats& stats = view.pool.stats;
    const std::string lost = fmt::format("{} failed, {} crashed, {} timed out, {}", stats.failed, stats.crashed,
                                         stats.timed_out, count(stats.restarts, "restart", "restarts"));
    const std::string speed = fmt::format("{:.1f} tasks/s, {} queued, {} of {} busy, {}", view.tasks_per_second,
                                          stats.queued, stats.running, stats.workers.size(), size_text(view.memory()));
    if (lines.wide()) {
        lines.add(Tone::head, fmt::format(" {}: {}, {} done, {}", stats.name, speed, stats.done, lost));
        lines.add(Tone::faint, fmt::format("  {:>4} {:>8} {:<8} {:>8} {:>9} {:>9} {:>7} {:>8}  {}", "#", "PID", "STATE",
                                           "AGE", "MEMORY", "DONE", "FAILED", "RESTARTS", "TASK"));
    } else {
        lines.add(Tone::head, fmt::format(" {}: {}", stats.name, speed));
        lines.add(Tone::head, fmt::format("   {} done, {}", stats.done, lost));
        lines.add(Tone::faint,
                  fmt::format("{:>3} {:>8} {:<8} {:>8} {:>9}  {}", "#", "PID", "STATE", "AGE", "MEMORY", "TASK"));
    }
    for (std::size_t i = 0; i < stats.workers.size(); ++i) {
        add_worker(lines, i, stats.workers[i], view.pool.memory[i]);
    }
    add_failures(lines, view.pool.failures);
}

}    // namespace

std::string size_text(std::size_t bytes) {
    constexpr std::array kUnits{"B", "kB", "MB", "GB", "TB"};
    auto value = static_cast<double>(bytes);
    std::size_t unit = 0;
    while (value >= 999.5 && unit + 1 < kUnits.size()) {
        value /= 1000;
        ++unit;
    }
    return bytes == 0 ? "-" : fmt::format("{:.{}f} {}", value, unit == 0 || value >= 99.95 ? 0 : 1, kUnits.at(unit));
}

std::vector<ScreenLine> top_lines(const std::vector<ProgramView>& programs, std::size_t width) {
    Lines lines(width);
    std::size_t pools = 0;
    std::size_t workers = 0;
    for (const ProgramView& program : programs) {
        pools += program.pools.size();
        for (const PoolView& pool : program.pools) {
            workers += pool.pool.stats.workers.size();
        }
    }
    lines.add(Tone::title, fmt::format("multihull top: {}, {}, {}", count(programs.size(), "program", "programs"),
                                       count(pools, "pool", "pools"), count(workers, "worker", "workers")));
    if (programs.empty()) {
        lines.add(Tone::plain, "");
        lines.add(Tone::plain, "No running program of yours publishes its pools.");
        lines.add(Tone::plain, "To see one, set PoolOptions::publish,");
        lines.add(Tone::plain, "or start it with MULTIHULL_MONITOR=1.");
    }
    for (const ProgramView& program : programs) {
        lines.add(Tone::plain, "");
        lines.add(Tone::title, fmt::format("{} ({}), {}", program.command, program.pid, size_text(program.memory)));
        if (!program.trouble.empty()) {
            lines.add(Tone::bad, fmt::format("  {}", program.trouble));
        } else if (program.pools.empty()) {
            lines.add(Tone::faint, "  no pool now");
        }
        for (const PoolView& pool : program.pools) {
            add_pool(lines, pool);
        }
    }
    return lines.take();
}

}    // namespace app
