// Runs one work in this process, and all of them in processes of their own.
#pragma once

#include "harness.hpp"

#include <map>
#include <string>
#include <vector>

namespace bench {

/// What was measured of one work: samples by competitor, one a round, in nanoseconds.
struct Measured {
    const Work* work = nullptr;
    std::map<std::string, std::vector<double>> samples;
};

/// Takes the samples and writes a line for each to stdout. `python`: the script with Python's peers; empty for none.
void measure_here(const Work& work, const Settings& settings, const std::string& python);

/// Starts this program anew for the work and collects what it writes; false when it failed.
bool measure_apart(const Work& work, const Settings& settings, const std::string& python, Measured& measured);

}    // namespace bench
