// Starting the program anew: what the start method `spawn` does, and how init() knows that it is in such a process.
#pragma once

#include "os/fd.hpp"

#include <sys/types.h>

namespace multihull::detail {

struct SpawnedZygote {
    pid_t pid = 0;
    os::Fd socket;
};

/// Starts this program again; its init() serves as a zygote. Throws StartError where init() did not run here.
SpawnedZygote spawn_zygote();

}    // namespace multihull::detail
