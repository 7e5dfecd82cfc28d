// The program gnuplot, which draws the pictures: a script goes in, the bytes of a picture come out. It writes no file.
#pragma once

#include <string>

namespace app {

/// Whether it is installed.
bool has_gnuplot();

/// Runs the script, which must not set an output. Throws EnvironmentError with what gnuplot said where it draws nothing.
std::string run_gnuplot(const std::string& script);

}    // namespace app
