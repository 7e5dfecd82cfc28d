// Shared objects: what Lock, Queue, Value and the others are behind their handles.
//
// Safe across processes and threads. Survives the death of any process at any instruction: see "Shared objects" in README.md.
//
// Invariants
// (1) An object's memory is used for objects only, for as long as the family lives: a lock in it may be looked at by somebody who
//     is late, and finds a free lock.
// (2) The ledger says which process holds which object: one bit each, written by that process under the object's guard, or cleared
//     by the recovery when the process is dead.
// (3) An object ends when no process holds it and no message on its way names it; then its generation moves on, and every handle
//     that is left anywhere is known to be of an object that is gone.
#pragma once

#include "os/clock.hpp"
#include "shm/object_layout.hpp"
#include "shm/region.hpp"

#include <multihull/detail/shared_object.hpp>

#include <cstddef>
#include <cstdint>

namespace multihull::detail {

class SharedObject {
public:
    SharedObject(shm::ObjectHead* head, std::uint32_t index, std::uint32_t generation) noexcept
        : head_(head), index_(index), generation_(generation) {}
    ~SharedObject();
    SharedObject(const SharedObject&) = delete;
    SharedObject& operator=(const SharedObject&) = delete;

    shm::ObjectHead& head() const noexcept { return *head_; }
    std::uint32_t index() const noexcept { return index_; }
    std::uint32_t generation() const noexcept { return generation_; }
    /// What follows the head.
    void* data() const noexcept { return head_ + 1; }

private:
    shm::ObjectHead* head_;
    std::uint32_t index_;
    std::uint32_t generation_;
};

}    // namespace multihull::detail

namespace multihull::shm {

/// Makes an object of that many bytes behind its head, which read as zeros; up to 192 are cheap. Throws StartError when there is no room.
detail::ObjectRef make_object(ObjectKind kind, std::size_t bytes);
/// Bytes at most behind the head of any object; more comes from claim_for().
inline constexpr std::size_t kObjectRoom = kLargeObjectSize - sizeof(ObjectHead);

/// Whole extents for the object, zeros, given back when it ends; 0 when there is no room.
Offset claim_for(const detail::SharedObject& object, std::size_t bytes) noexcept;
/// The same without a sweep for dead processes where there is no room: for who holds a lock of the object, which their recovery needs.
Offset try_claim_for(const detail::SharedObject& object, std::size_t bytes) noexcept;

/// Which of all objects it is.
std::uint32_t index_of(const ObjectHead& head) noexcept;

/// What a kind has to say when a process that held the object has died; called with the object's guard held, maybe twice.
using Recover = void (*)(ObjectHead& head, std::uint32_t number);
/// What a kind has to make right when its guard was left by a dead owner; called with the guard held.
using Repair = void (*)(ObjectHead& head);
/// Set once per kind, when the program starts.
struct KindRules {
    Recover recover = nullptr;
    Repair repair = nullptr;
    /// This process gives its last handle back in good order; called with the guard held.
    Recover leave = nullptr;
};
struct RegisterKind {
    RegisterKind(ObjectKind kind, KindRules rules) noexcept;
};

/// The object's guard, held for as long as this lives. What a dead owner left half done is made right first.
class Guard {
public:
    explicit Guard(ObjectHead& head) : Guard(head, this_thread()) {}
    Guard(ObjectHead& head, ThreadId self) noexcept;
    ~Guard() {
        if (!released_) head_.guard.unlock(self_);
    }
    Guard(const Guard&) = delete;
    Guard& operator=(const Guard&) = delete;
    void release() noexcept {
        released_ = true;
        head_.guard.unlock(self_);
    }

private:
    ObjectHead& head_;
    ThreadId self_;
    bool released_ = false;
};

/// Gives back, in good order, whatever this process holds: it is about to leave without running destructors.
void leave_objects() noexcept;
/// In a forked child: its handles become its own.
void objects_after_fork() noexcept;
/// Around a fork, in the parent: no other thread is in the middle of changing the table of handles.
void objects_before_fork() noexcept;
void objects_forked() noexcept;

/// Shared objects that exist now; for tests.
std::size_t count_objects() noexcept;

}    // namespace multihull::shm
