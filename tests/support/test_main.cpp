// The main of every test: as a program of a user would, it calls init() first, so that all start methods can be tried.
#include <multihull/process.hpp>

#include <gtest/gtest.h>

#include <unistd.h>

namespace {

const pid_t the_program = ::getpid();

}    // namespace

// What the sanitizers' runtimes ask for.
extern "C" {
// Tests crash workers on purpose, and look at the signal that ended them: it is not to become an exit status.
const char* __asan_default_options() {
    return "handle_segv=0:handle_sigbus=0:handle_sigill=0:handle_sigfpe=0:handle_abort=0";
}
// A forked process has a copy of what its parent's threads own and it can never reach; a task that calls exit() is no leak.
int __lsan_is_turned_off() { return ::getpid() != the_program; }
}

int main(int argc, char** argv) {
    multihull::init(argc, argv);
    ::testing::InitGoogleTest(&argc, argv);
    return RUN_ALL_TESTS();
}
