// The life of a Process's child, whichever way it was started.
#pragma once

#include "os/fd.hpp"
#include "process/zygote.hpp"

#include <multihull/codec.hpp>

#include <cstdint>
#include <string>
#include <sys/types.h>
#include <vector>

namespace multihull::detail {

/// What the child needs to know, in front of its call.
struct CallPreamble {
    Token token;
    std::uint64_t memory;
    std::int64_t cpu_ns;
    std::uint8_t daemon;
};

/// Runs the call, and ends this process.
[[noreturn]] void run_child(Reader& reader, const std::string& name, pid_t parent, const std::string& parent_name);

/// Where a zygote's child begins, for forkserver and spawn: the call lies in the family's shared memory.
void child_entry(const ZygoteRequest& request, std::vector<os::Fd>& fds);

}    // namespace multihull::detail
