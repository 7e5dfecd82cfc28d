#include <multihull/pool_stats.hpp>

#include <cstdio>

namespace multihull {

namespace {

std::string duration(std::chrono::nanoseconds time) {
    char text[32];
    const double seconds = std::chrono::duration<double>(time).count();
    if (seconds >= 1) {
        std::snprintf(text, sizeof text, "%.2f s", seconds);
    } else if (seconds >= 1e-3) {
        std::snprintf(text, sizeof text, "%.2f ms", seconds * 1e3);
    } else {
        std::snprintf(text, sizeof text, "%.1f us", seconds * 1e6);
    }
    return text;
}

void add_row(std::string& text, const char* format, const std::string& a, const std::string& b, const std::string& c,
             const std::string& d, const std::string& e, const std::string& f) {
    char row[256];
    std::snprintf(row, sizeof row, format, a.c_str(), b.c_str(), c.c_str(), d.c_str(), e.c_str(), f.c_str());
    text += row;
}

}    // namespace

const char* to_string(WorkerState state) noexcept {
    switch (state) {
        case WorkerState::starting:
            return "starting";
        case WorkerState::idle:
            return "idle";
        case WorkerState::busy:
            return "busy";
        case WorkerState::leaving:
            return "leaving";
        default:
            return "absent";
    }
}

const char* to_string(TaskOutcome outcome) noexcept {
    switch (outcome) {
        case TaskOutcome::exception:
            return "exception";
        case TaskOutcome::crashed:
            return "crashed";
        case TaskOutcome::timed_out:
            return "timed out";
        case TaskOutcome::cancelled:
            return "cancelled";
        case TaskOutcome::running:
            return "running";
        default:
            return "value";
    }
}

std::string PoolInsights::to_string() const {
    std::string text;
    constexpr const char* kRow = "%-8s%12s%12s%12s%12s%12s\n";
    add_row(text, kRow, "worker", "start", "init", "wait", "work", "done");
    for (std::size_t i = 0; i < workers.size(); ++i) {
        const WorkerInsights& worker = workers[i];
        add_row(text, kRow, std::to_string(i), duration(worker.start), duration(worker.init),
                traced ? duration(worker.wait) : "-", traced ? duration(worker.work) : "-",
                std::to_string(worker.done));
    }
    for (const SlowTask& task : slowest) {
        text += task.function;
        if (task.inputs != 0) {
            text += " [" + std::to_string(task.first_input);
            if (task.inputs > 1) text += ".." + std::to_string(task.first_input + task.inputs - 1);
            text += "]";
        }
        text += ": " + duration(task.work) + " in worker " + std::to_string(task.worker);
        if (task.outcome != TaskOutcome::value) text += std::string(", ") + multihull::to_string(task.outcome);
        text += "\n";
    }
    for (const PoolFailure& failure : failures) text += "at " + duration(failure.when) + ": " + failure.what + "\n";
    return text;
}

}    // namespace multihull
