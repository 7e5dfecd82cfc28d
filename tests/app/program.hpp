// Runs the program `multihull` as a user does, and makes the files it is given.
#pragma once

#include "support/folder.hpp"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <pty.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <functional>
#include <sstream>
#include <stdexcept>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

namespace app_test {

namespace fs = std::filesystem;

/// Waits until the condition holds; false when it never does.
inline bool eventually(const std::function<bool()>& condition) {
    const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(120);
    while (!condition()) {
        if (std::chrono::steady_clock::now() > end) {
            return false;
        }
        std::this_thread::sleep_for(std::chrono::milliseconds(5));
    }
    return true;
}

inline std::string read_file(const fs::path& path) {
    std::ifstream file(path, std::ios::binary);
    std::ostringstream content;
    content << file.rdbuf();
    return content.str();
}

inline void write_file(const fs::path& path, std::string_view content) {
    fs::create_directories(path.parent_path());
    std::ofstream(path, std::ios::binary) << content;
}

using test::Folder;

/// The names in a folder, hidden ones too, but for the manifest.
inline std::vector<std::string> names_in(const fs::path& folder) {
    std::vector<std::string> names;
    for (const auto& entry : fs::directory_iterator(folder)) {
        if (entry.path().filename() != ".multihull-thumbnails") {
            names.push_back(entry.path().filename());
        }
    }
    std::ranges::sort(names);
    return names;
}

/// A picture in the simplest format there is.
inline void write_ppm(const fs::path& path, int width, int height) {
    std::string content = "P6\n" + std::to_string(width) + " " + std::to_string(height) + "\n255\n";
    for (int y = 0; y < height; ++y) {
        for (int x = 0; x < width; ++x) {
            content += static_cast<char>(x * 255 / width);
            content += static_cast<char>(y * 255 / height);
            content += static_cast<char>((x ^ y) & 255);
        }
    }
    write_file(path, content);
}

/// Shapes each of which is the one before it: librsvg 2.54 draws them by recursion, which overflows its stack.
inline void write_crasher(const fs::path& path) {
    std::ostringstream svg;
    svg << R"(<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" width="64" height="48">)"
        << R"(<defs><rect id="s0" width="64" height="48"/>)";
    for (int i = 1; i <= 20000; ++i) {
        svg << "<use id=\"s" << i << "\" xlink:href=\"#s" << i - 1 << "\"/>\n";
    }
    svg << R"(</defs><use xlink:href="#s20000"/></svg>)";
    write_file(path, svg.str());
}

/// Two thousand million layers of noise for each pixel: days of work, without a system call.
inline void write_endless(const fs::path& path) {
    write_file(path, R"svg(<svg xmlns="http://www.w3.org/2000/svg" width="640" height="480">
<filter id="n"><feTurbulence baseFrequency="0.01" numOctaves="2000000000"/></filter>
<rect width="640" height="480" filter="url(#n)"/></svg>)svg");
}

/// A file of 40 bytes that asks for 17 GB: one frame on a canvas of 65535 x 65535.
inline void write_memory_hog(const fs::path& path) {
    constexpr std::string_view kGif(
        "GIF89a\xFF\xFF\xFF\xFF\x80\x00\x00\x00\x00\x00\xFF\xFF\xFF"
        "\x2C\x00\x00\x00\x00\xFF\xFF\xFF\xFF\x00\x02\x02\x4C\x01\x00\x3B",
        35);
    write_file(path, kGif);
}

/// How the program ended and what it wrote.
struct Outcome {
    int status = -1;    ///< As a shell has it: 128 + N after signal N.
    std::string out;
    std::string err;
};

/// A run of the program.
class Program {
public:
    /// Starts it with a command of its; `before` runs in the child just before.
    explicit Program(
        const std::vector<std::string>& arguments, const std::function<bool()>& before = [] { return true; },
        const std::string& command = "thumbnails")
        : mark_("MULTIHULL_APP_TEST=" + std::to_string(getpid()) + "-" + std::to_string(++count_)) {
        const char* path = std::getenv("MULTIHULL_APP");
        if (path == nullptr) {
            throw std::runtime_error("MULTIHULL_APP must hold the path of the program");
        }
        std::vector<std::string> words{path, command};
        words.insert(words.end(), arguments.begin(), arguments.end());
        pid_ = ::fork();
        if (pid_ == 0) {
            ::dup2(::open((folder_ / "out").c_str(), O_WRONLY | O_CREAT, 0600), STDOUT_FILENO);
            ::dup2(::open((folder_ / "err").c_str(), O_WRONLY | O_CREAT, 0600), STDERR_FILENO);
            run(words, before);
        }
    }
    Program(const Program&) = delete;
    Program& operator=(const Program&) = delete;
    ~Program() {
        if (pid_ > 0) {
            ::kill(pid_, SIGKILL);
            wait();
        }
    }

    void signal(int number) const { ::kill(pid_, number); }

    /// What it has written until now.
    std::string err() const { return read_file(folder_ / "err"); }
    std::string out() const { return read_file(folder_ / "out"); }

    /// Waits for its end.
    Outcome wait() {
        int status = 0;
        ::waitpid(pid_, &status, 0);
        pid_ = -1;
        return {.status = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status),
                .out = read_file(folder_ / "out"),
                .err = read_file(folder_ / "err")};
    }

    /// Whether a process that it started, or itself, still lives: all have inherited its environment.
    bool has_processes() const {
        for (const auto& entry : fs::directory_iterator("/proc")) {
            if (read_file(entry.path() / "environ").find(mark_) != std::string::npos) {
                return true;
            }
        }
        return false;
    }

private:
    [[noreturn]] void run(const std::vector<std::string>& words, const std::function<bool()>& before) {
        std::vector<char*> argv;
        for (const std::string& word : words) {
            argv.push_back(const_cast<char*>(word.c_str()));
        }
        argv.push_back(nullptr);
        ::putenv(mark_.data());
        if (before()) {
            ::execv(argv[0], argv.data());
        }
        ::_exit(127);
    }

    static inline int count_ = 0;
    Folder folder_;
    std::string mark_;
    pid_t pid_ = -1;
};

inline Outcome run_program(const std::vector<std::string>& arguments) { return Program(arguments).wait(); }

}    // namespace app_test
