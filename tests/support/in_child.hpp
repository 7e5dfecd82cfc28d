// A part of a test that runs in another process.
#pragma once

#include <sys/wait.h>
#include <unistd.h>

namespace test {

/// Runs a function in a forked child; its exit status, or minus the signal that killed it.
template <class Function>
int in_child(Function function) {
    const pid_t child = ::fork();
    if (child == 0) ::_exit(function());
    int status = 0;
    ::waitpid(child, &status, 0);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
}

}    // namespace test
