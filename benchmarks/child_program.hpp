// A program that runs beside this one and is talked to by lines.
#pragma once

#include <sys/types.h>

#include <cstdio>
#include <optional>
#include <string>
#include <vector>

namespace bench {

class ChildProgram {
public:
    /// Starts it, found as a shell would find it. Stops the program when that can't be done.
    explicit ChildProgram(std::vector<std::string> arguments);
    ChildProgram(const ChildProgram&) = delete;
    ChildProgram& operator=(const ChildProgram&) = delete;
    /// Closes its input and waits for it.
    ~ChildProgram();

    void write_line(const std::string& line);
    /// Empty at the end of its output.
    std::optional<std::string> read_line();
    /// Closes its input and waits for it; true when it ended well.
    bool finish();

private:
    pid_t pid_ = 0;
    std::FILE* in_ = nullptr;
    std::FILE* out_ = nullptr;
};

}    // namespace bench
