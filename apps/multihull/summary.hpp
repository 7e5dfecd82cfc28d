// What a run has done, told at its end: the failures on stderr, the figures on stdout.
#pragma once

#include "plan.hpp"

#include <cstddef>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

namespace app {

/// The figures of a run.
struct Summary {
    std::filesystem::path output;
    std::size_t planned = 0;    ///< Thumbnails that were to be made.
    std::size_t made = 0;
    std::size_t failed = 0;
    std::size_t up_to_date = 0;
    std::vector<Failure>
        failures;    ///< Files without a thumbnail, and whatever else went wrong without ending the run.
    std::size_t workers = 0;
    double seconds = 0;
    std::optional<double> seconds_alone;    ///< What one worker needed for the same work.
    std::filesystem::path contact_sheet;    ///< Empty where none was made.
    std::filesystem::path report;           ///< The same.
    int signal = 0;                         ///< The signal that interrupted the run; 0 where none did.
    std::string stopped;                    ///< Why the run was stopped early, a sentence; empty where it was not.

    /// Whether nothing has ended the run early.
    bool goes_on() const { return signal == 0 && stopped.empty(); }
};

/// Tells the user.
void print(const Summary& summary);

/// What the program exits with: 0, or 1 where files failed, 2 where the run was stopped, 128 + N after signal N.
int exit_status(const Summary& summary);

}    // namespace app
