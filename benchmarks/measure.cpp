#include "measure.hpp"

#include "child_program.hpp"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <sstream>
#include <thread>

namespace bench {

namespace {

// Those who wait awake for more work fall asleep before the next one is measured.
constexpr std::chrono::milliseconds kRest(3);

// The script names its competitors in its first line, then answers each name with a sample.
void add_python(const Work& work, const Settings& settings, const std::string& script,
                std::vector<Competitor>& competitors) {
    const auto peer = std::make_shared<ChildProgram>(std::vector<std::string>{"python3", script, std::string(work.name),
                                                                              std::to_string(settings.workers)});
    std::istringstream names(peer->read_line().value_or(""));
    for (std::string name; std::getline(names, name, ',');) {
        competitors.push_back({name, [peer, name] {
                                   peer->write_line(name);
                                   const auto answer = peer->read_line();
                                   require(answer.has_value(), "Python's " + name);
                                   return std::strtod(answer->c_str(), nullptr);
                               }});
    }
}

}    // namespace

double median(std::vector<double> values) {
    if (values.empty()) return 0;
    std::sort(values.begin(), values.end());
    const std::size_t middle = values.size() / 2;
    return values.size() % 2 == 1 ? values[middle] : (values[middle - 1] + values[middle]) / 2;
}

void require(bool right, std::string_view what) {
    if (right) return;
    std::fprintf(stderr, "compare: this went wrong: %.*s\n", static_cast<int>(what.size()), what.data());
    std::_Exit(1);
}

void measure_here(const Work& work, const Settings& settings, const std::string& python) {
    std::vector<Competitor> competitors = work.prepare(settings);
    if (!python.empty()) add_python(work, settings, python, competitors);
    for (int round = -1; round < settings.rounds; ++round) {
        for (std::size_t i = 0; i < competitors.size(); ++i) {
            const auto turn = (i + static_cast<std::size_t>(round + 1)) % competitors.size();
            std::this_thread::sleep_for(kRest);
            const double ns = competitors[turn].sample();
            // The first round warms up and does not count.
            if (round >= 0) std::printf("%s\t%.3f\n", competitors[turn].name.c_str(), ns);
        }
    }
    std::fflush(stdout);
}

bool measure_apart(const Work& work, const Settings& settings, const std::string& python, Measured& measured) {
    std::vector<std::string> arguments{"/proc/self/exe",
                                       "--work",
                                       std::string(work.name),
                                       "--rounds",
                                       std::to_string(settings.rounds),
                                       "--workers",
                                       std::to_string(settings.workers)};
    if (!python.empty()) arguments.insert(arguments.end(), {"--python", python});
    ChildProgram child(std::move(arguments));
    measured.work = &work;
    while (const auto line = child.read_line()) {
        const auto tab = line->find('\t');
        if (tab == std::string::npos) continue;
        measured.samples[line->substr(0, tab)].push_back(std::strtod(line->c_str() + tab + 1, nullptr));
    }
    return child.finish();
}

}    // namespace bench
