// What was measured, as a table for people and as JSON for programs.
#pragma once

#include "measure.hpp"

#include <string>
#include <vector>

namespace bench {

/// Prints rows as they come. `best`: shows the least of the samples instead of their median.
class Table {
public:
    explicit Table(bool best) : best_(best) {}

    void print_head() const;
    void print_row(const Measured& measured) const;

private:
    bool best_;
};

/// Multihull's time over the baseline's: the median of the ratios within each round, or the ratio of the best; 0 for none.
double ratio(const Measured& measured, bool best);

/// The machine in a line: processors, model, kernel, load.
std::string machine();

/// Writes all samples, with their medians. Throws std::runtime_error when the file can't be written.
void write_json(const std::string& file, const std::vector<Measured>& all, const Settings& settings);

}    // namespace bench
