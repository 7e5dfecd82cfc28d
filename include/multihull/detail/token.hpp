// Functions across processes: a token names a function in whichever process of the family it is read.
//
// A token is a module's number (its build-id, in the family's table) and an offset from that module's load base. A process
// that runs a task looks the offset up in its own copy of the module: another build of it has another build-id and is refused.
// Workers run registered thunks only; thunks register themselves before main() runs.
//
// Thread-safe.
#pragma once

#include <cstdint>
#include <span>
#include <typeinfo>
#include <vector>

namespace multihull::detail {

class TaskContext;

/// What a worker calls: reads arguments from the context, leaves the result there.
using Thunk = void (*)(TaskContext&);

/// Puts a thunk on the list of what workers may run; one static object for each.
class ThunkRegistration {
public:
    /// `callable`: the type of what the thunk calls; `by_pointer`: the call's bytes begin with the token of the function itself.
    ThunkRegistration(Thunk thunk, const std::type_info& callable, bool by_pointer) noexcept;

    const std::type_info& callable() const noexcept { return callable_; }
    bool by_pointer() const noexcept { return by_pointer_; }

private:
    friend class ThunkTable;
    Thunk thunk_;
    const std::type_info& callable_;
    bool by_pointer_;
    ThunkRegistration* next_;
};

using Token = std::uint64_t;

/// The token of a function of this program or one of its libraries. Throws Error for other addresses.
Token token_of(const void* code);
/// The function's address here. Throws Error when its module is not loaded here or the place holds no code.
const void* code_of(Token token);
/// The thunk's address here. Throws Error also when no such thunk is registered.
Thunk thunk_of(Token token);
/// What is known of a registered thunk; nullptr for any other number.
const ThunkRegistration* find_thunk(Token token) noexcept;

/// Whether two addresses lie in the code of one module.
bool same_module(std::uintptr_t a, std::uintptr_t b) noexcept;

/// A module that is loaded here: its build-id (hashed), and where its code is.
struct ModulePlace {
    std::uint64_t identity;
    std::uintptr_t begin;
    std::uintptr_t end;
};
/// The modules of this process, the program itself first.
std::vector<ModulePlace> module_places();
/// The family's table: the build-id of the module with each number. Every module that is loaded here now has its number in it.
std::vector<std::uint64_t> module_numbers();
/// Gives modules the numbers, from `first` on, that another family's table gives them, so that tokens mean the same in both. Throws
/// Error where this family has spoken of another module under one of them.
void adopt_module_numbers(std::size_t first, std::span<const std::uint64_t> identities);

/// Fills this process's tables, so that its forked children find them full.
void prepare_tokens();
/// Around a fork, so that no thread which does not exist in the child is in the middle of changing the tables. Needs prepare_tokens().
void lock_tokens_before_fork() noexcept;
void unlock_tokens_after_fork() noexcept;

}    // namespace multihull::detail
