// Why a file has no thumbnail, or why a run can't go on, in one sentence each.
#pragma once

#include <exception>
#include <stdexcept>
#include <string>

namespace app {

/// What ends the program with one sentence and status 2: a bad option, a missing file, a full disk.
class EnvironmentError : public std::runtime_error {
public:
    using std::runtime_error::runtime_error;
};

/// What happened to a task, from the error its future holds: `crashed with SIGSEGV in librsvg-2.so.2`.
std::string describe(const std::exception_ptr& error);

/// Whether the error is about the pool and not about one file, so that every other file would meet it too.
bool ends_the_run(const std::exception_ptr& error);

}    // namespace app
