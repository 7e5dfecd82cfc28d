#include "report.hpp"

#include <multihull/process.hpp>

#include <fmt/format.h>

#include <sys/utsname.h>

#include <algorithm>
#include <array>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <stdexcept>

namespace bench {

namespace {

constexpr std::array kColumns{kMultihull, kUntraced, kThreadPool, kAsio,          kTbb,
                              kLoop,      kBare,     kPythonPool, kPythonExecutor};
constexpr int kTitleWidth = 38;
constexpr int kWidth = 12;

double least(const std::vector<double>& values) { return *std::min_element(values.begin(), values.end()); }

std::string duration(double ns) {
    if (ns < 1e3) return fmt::format("{:.0f} ns", ns);
    if (ns < 1e6) return fmt::format("{:.{}f} us", ns / 1e3, ns < 1e5 ? 2 : 0);
    if (ns < 1e9) return fmt::format("{:.{}f} ms", ns / 1e6, ns < 1e8 ? 2 : 0);
    return fmt::format("{:.2f} s", ns / 1e9);
}

const std::vector<double>* samples_of(const Measured& measured, std::string_view name) {
    const auto entry = measured.samples.find(std::string(name));
    return entry == measured.samples.end() || entry->second.empty() ? nullptr : &entry->second;
}

std::string model_name() {
    std::ifstream file("/proc/cpuinfo");
    for (std::string line; std::getline(file, line);) {
        if (line.starts_with("model name")) return line.substr(line.find(':') + 2);
    }
    return "processor of unknown model";
}

}    // namespace

double ratio(const Measured& measured, bool best) {
    const auto* const own = samples_of(measured, kMultihull);
    const auto* const other = samples_of(measured, measured.work->baseline);
    if (own == nullptr || other == nullptr) return 0;
    if (best) return least(*own) / least(*other);
    std::vector<double> ratios;
    for (std::size_t i = 0; i < std::min(own->size(), other->size()); ++i) ratios.push_back((*own)[i] / (*other)[i]);
    return median(std::move(ratios));
}

void Table::print_head() const {
    fmt::print("{:<{}}", best_ ? "work (best of all rounds)" : "work (median of all rounds)", kTitleWidth);
    for (const auto column : kColumns) fmt::print("{:>{}}", column, kWidth);
    fmt::print("  ratio\n");
    std::fflush(stdout);
}

void Table::print_row(const Measured& measured) const {
    fmt::print("{:<{}}", measured.work->title, kTitleWidth);
    for (const auto column : kColumns) {
        const auto* const samples = samples_of(measured, column);
        const std::string cell = samples == nullptr ? "-" : duration(best_ ? least(*samples) : median(*samples));
        fmt::print("{:>{}}", cell, kWidth);
    }
    const double value = ratio(measured, best_);
    fmt::print("  {}\n", value > 0 ? fmt::format("{:.2f} x {}", value, measured.work->baseline) : "-");
    std::fflush(stdout);
}

std::string machine() {
    utsname system{};
    ::uname(&system);
    double load = 0;
    ::getloadavg(&load, 1);
    return fmt::format("{} processors ({}), Linux {}, load average {:.1f}", multihull::cpu_count(), model_name(),
                       system.release, load);
}

void write_json(const std::string& file, const std::vector<Measured>& all, const Settings& settings) {
    std::ofstream out(file);
    out << fmt::format(
        "{{\n  \"machine\": \"{}\",\n  \"workers\": {},\n  \"rounds\": {},\n  \"unit\": \"ns\",\n  \"works\": [",
        machine(), settings.workers, settings.rounds);
    const char* work_separator = "";
    for (const Measured& measured : all) {
        out << fmt::format(
            "{}\n    {{\n      \"name\": \"{}\",\n      \"title\": \"{}\",\n      \"baseline\": \"{}\",\n"
            "      \"ratio\": {:.4f},\n      \"competitors\": {{",
            work_separator, measured.work->name, measured.work->title, measured.work->baseline, ratio(measured, false));
        const char* separator = "";
        for (const auto& [name, samples] : measured.samples) {
            out << fmt::format("{}\n        \"{}\": {{\"median\": {:.3f}, \"min\": {:.3f}, \"samples\": [{:.1f}]}}",
                               separator, name, median(samples), least(samples), fmt::join(samples, ", "));
            separator = ",";
        }
        out << "\n      }\n    }";
        work_separator = ",";
    }
    out << "\n  ]\n}\n";
    out.close();
    if (!out) throw std::runtime_error("the file " + file + " can't be written");
}

}    // namespace bench
