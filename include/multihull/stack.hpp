// A stack of another process, taken where it crashed, threw or was stuck, with the names looked up only when asked for.
//
// Thread-safe for reading; copies share what they hold.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

namespace multihull {

/// One call on a stack, or a function that the compiler put into its caller instead of calling it.
struct Frame {
    std::uintptr_t address = 0;          ///< Inside the instruction it was at, as an address of this process.
    std::string function{};              ///< Demangled name; empty where no symbol is known.
    std::string module{};                ///< Path of the program or shared library.
    std::uintptr_t module_offset = 0;    ///< The address as that file's own tables have it: what addr2line takes.
    std::string file{};                  ///< Source file; empty without debug information.
    int line = 0;                        ///< Source line; 0 without debug information.
};

/// A list of program counters, innermost first, that can be turned into names.
class Stack {
public:
    Stack() = default;
    /// Each must lie inside the instruction that its function was at: a return address less one.
    explicit Stack(std::span<const std::uintptr_t> addresses);

    bool empty() const noexcept;
    /// The program counters that it was made of.
    std::span<const std::uintptr_t> addresses() const noexcept;
    /// The same with names, files and lines; looked up once, on the first call (milliseconds, in the caller's thread).
    const std::vector<Frame>& frames() const;
    /// One line a frame: `#0 decode(File&) at decode.cpp:31`.
    std::string to_string() const;

private:
    struct State;
    std::shared_ptr<State> state_;
};

}    // namespace multihull
