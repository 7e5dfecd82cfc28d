// A worker: the process that takes tasks from a pool's queue and runs them, until it is told to leave.
#pragma once

#include "os/fd.hpp"
#include "process/zygote.hpp"

#include <vector>

namespace multihull::detail {

/// What the zygote runs in a new worker; words: the pool's home, the worker's index. Does not return.
void worker_entry(const ZygoteRequest& request, std::vector<os::Fd>& fds);

}    // namespace multihull::detail
