// What is to be done when a process of the library's leaves.
#pragma once

namespace multihull::detail {

/// Something to run in a process that leave_child() ends, before it gives back what it holds.
class LeaveHook {
public:
    explicit LeaveHook(void (*hook)() noexcept) noexcept;

private:
    friend void run_leave_hooks() noexcept;
    void (*hook_)() noexcept;
    LeaveHook* next_;
};

}    // namespace multihull::detail
