// The real Python interpreter, as the judge of what we say it does.
#pragma once

#include <gtest/gtest.h>

#include <cstdio>
#include <cstdlib>
#include <stdexcept>
#include <string>
#include <sys/mman.h>
#include <unistd.h>

namespace test {

/// Text in memory that another process reads by its path.
class TextFile {
public:
    explicit TextFile(const std::string& text) : fd_(::memfd_create("test text", MFD_CLOEXEC)) {
        std::size_t done = 0;
        while (fd_ >= 0 && done < text.size()) {
            const auto n = ::write(fd_, text.data() + done, text.size() - done);
            if (n <= 0) throw std::runtime_error("no memory for a test's text");
            done += static_cast<std::size_t>(n);
        }
    }
    TextFile(const TextFile&) = delete;
    TextFile& operator=(const TextFile&) = delete;
    ~TextFile() { ::close(fd_); }

    std::string path() const { return "/proc/" + std::to_string(::getpid()) + "/fd/" + std::to_string(fd_); }

private:
    int fd_;
};

/// Whether there is an interpreter of that name, and it runs the statement without an error.
inline bool python_can(const std::string& statement, const std::string& interpreter = "python3") {
    return std::system((interpreter + " -c '" + statement + "' >/dev/null 2>&1").c_str()) == 0;
}

/// What a script prints. It must succeed.
inline std::string python(const std::string& script, const std::string& input = {}, const std::string& arguments = {},
                          const std::string& interpreter = "python3") {
    const TextFile script_file(script);
    const TextFile input_file(input);
    const std::string command =
        interpreter + " -X utf8 " + script_file.path() + " " + arguments + " < " + input_file.path();
    std::FILE* const pipe = ::popen(command.c_str(), "r");
    if (pipe == nullptr) throw std::runtime_error("python3 can't be started");
    std::string output;
    char buffer[4096];
    for (std::size_t got = 0; (got = std::fread(buffer, 1, sizeof buffer, pipe)) > 0;) output.append(buffer, got);
    EXPECT_EQ(::pclose(pipe), 0) << output;
    return output;
}

}    // namespace test
