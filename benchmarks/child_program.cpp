#include "child_program.hpp"

#include "harness.hpp"

#include <fcntl.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

extern char** environ;

namespace bench {

ChildProgram::ChildProgram(std::vector<std::string> arguments) {
    int input[2];
    int output[2];
    require(::pipe2(input, O_CLOEXEC) == 0 && ::pipe2(output, O_CLOEXEC) == 0, "pipe() failed");
    std::vector<char*> pointers;
    for (std::string& argument : arguments) pointers.push_back(argument.data());
    pointers.push_back(nullptr);
    posix_spawn_file_actions_t actions;
    ::posix_spawn_file_actions_init(&actions);
    ::posix_spawn_file_actions_adddup2(&actions, input[0], STDIN_FILENO);
    ::posix_spawn_file_actions_adddup2(&actions, output[1], STDOUT_FILENO);
    const int error = ::posix_spawnp(&pid_, pointers[0], &actions, nullptr, pointers.data(), environ);
    ::posix_spawn_file_actions_destroy(&actions);
    require(error == 0, arguments[0] + " can't be started");
    ::close(input[0]);
    ::close(output[1]);
    in_ = ::fdopen(input[1], "w");
    out_ = ::fdopen(output[0], "r");
}

ChildProgram::~ChildProgram() {
    finish();
    if (out_ != nullptr) std::fclose(out_);
}

void ChildProgram::write_line(const std::string& line) {
    std::fprintf(in_, "%s\n", line.c_str());
    std::fflush(in_);
}

std::optional<std::string> ChildProgram::read_line() {
    std::string line;
    for (int c = std::fgetc(out_); c != EOF; c = std::fgetc(out_)) {
        if (c == '\n') return line;
        line.push_back(static_cast<char>(c));
    }
    return std::nullopt;
}

bool ChildProgram::finish() {
    if (in_ != nullptr) std::fclose(in_);
    in_ = nullptr;
    if (pid_ == 0) return false;
    int status = 0;
    ::waitpid(pid_, &status, 0);
    pid_ = 0;
    return WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

}    // namespace bench
