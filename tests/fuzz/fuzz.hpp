// What fuzzers share: a check that stops them, and a count of the memory that was asked for.
#pragma once

#include <cstddef>
#include <cstdio>
#include <cstdlib>

#include <sanitizer/allocator_interface.h>

namespace fuzz {

/// Stops the fuzzer, which then keeps the input.
inline void require(bool condition, const char* what) {
    if (condition) return;
    std::fprintf(stderr, "%s\n", what);
    std::abort();
}

inline std::size_t bytes_allocated = 0;

/// Counts what is asked for from its beginning on. Fuzzers run in one thread.
class Allocations {
public:
    Allocations() {
        static const int installed = __sanitizer_install_malloc_and_free_hooks(
            [](const volatile void*, std::size_t size) { bytes_allocated += size; }, [](const volatile void*) {});
        require(installed != 0, "the sanitizer takes no hooks");
        bytes_allocated = 0;
    }
    std::size_t bytes() const { return bytes_allocated; }
};

}    // namespace fuzz
