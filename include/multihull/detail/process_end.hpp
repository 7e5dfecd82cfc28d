// The end of a process, for those who are told of it instead of waiting.
#pragma once

#include <functional>
#include <optional>

namespace multihull::detail {

/// Thread-safe. Outlives the Process that it came from.
class ProcessEnd {
public:
    virtual ~ProcessEnd() = default;
    /// As Process::exitcode().
    virtual std::optional<int> exitcode() = 0;
    /// Calls back once when the process has ended: at once when it has, else in a thread of the library, where it must not wait.
    virtual void on_end(std::function<void()> callback) = 0;
};

}    // namespace multihull::detail
