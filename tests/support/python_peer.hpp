// The real Python as a peer: a script that runs to its end, or one to talk to line by line.
#pragma once

#include <array>
#include <csignal>
#include <cstdio>
#include <stdexcept>
#include <string>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>
#include <vector>

namespace test {

/// Debian's Python, which script/bootstrap gave numpy.
inline const char* python_program() { return ::access("/usr/bin/python3", X_OK) == 0 ? "/usr/bin/python3" : "python3"; }

/// A running script. Its stdin and stdout are here; its stderr is the test's.
class PythonPeer {
public:
    explicit PythonPeer(const std::string& script, const std::vector<std::string>& arguments = {}) {
        int ends[2];
        if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) != 0) throw std::runtime_error("no socket pair");
        std::vector<std::string> words{python_program(), "-c", script};
        words.insert(words.end(), arguments.begin(), arguments.end());
        std::vector<char*> pointers;
        for (std::string& word : words) pointers.push_back(word.data());
        pointers.push_back(nullptr);
        pid_ = ::fork();
        if (pid_ == 0) {
            ::dup2(ends[1], STDIN_FILENO);
            ::dup2(ends[1], STDOUT_FILENO);
            ::execvp(pointers[0], pointers.data());
            ::_exit(127);
        }
        ::close(ends[1]);
        socket_ = ends[0];
        if (pid_ < 0) throw std::runtime_error("Python can't be started");
    }
    PythonPeer(const PythonPeer&) = delete;
    PythonPeer& operator=(const PythonPeer&) = delete;
    ~PythonPeer() {
        if (pid_ > 0) {
            ::kill(pid_, SIGKILL);
            wait();
        }
        ::close(socket_);
    }

    /// The next line it prints, without its end; what there is where it ends before.
    std::string read_line() {
        std::string line;
        char character = 0;
        while (::read(socket_, &character, 1) == 1 && character != '\n') line += character;
        return line;
    }
    std::string read_all() {
        std::string text;
        std::array<char, 4096> buffer;
        for (ssize_t got = 0; (got = ::read(socket_, buffer.data(), buffer.size())) > 0;) {
            text.append(buffer.data(), static_cast<std::size_t>(got));
        }
        return text;
    }
    void write_line(const std::string& line) {
        const std::string text = line + "\n";
        if (::send(socket_, text.data(), text.size(), MSG_NOSIGNAL) < 0) throw std::runtime_error("Python is gone");
    }
    /// Waits for its end: the exit status, or minus the signal that killed it.
    int wait() {
        int status = 0;
        ::waitpid(pid_, &status, 0);
        pid_ = -1;
        return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
    }

private:
    pid_t pid_ = -1;
    int socket_ = -1;
};

struct PythonRun {
    int status;
    std::string output;
};

/// Runs a script to its end.
inline PythonRun run_python(const std::string& script, const std::vector<std::string>& arguments = {}) {
    PythonPeer python(script, arguments);
    std::string output = python.read_all();
    return {python.wait(), std::move(output)};
}

inline bool python_has(const std::string& module) { return run_python("import " + module).status == 0; }

}    // namespace test
