# The warnings under which everything of this project compiles.
function(multihull_set_warnings target)
    target_compile_options(${target} PRIVATE -Wall -Wextra -Wpedantic -Wshadow -Wconversion)
    if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
        # GCC 12 sees overlapping copies in std::string's operator+ where there are none (its bug 105651).
        if(CMAKE_CXX_COMPILER_VERSION VERSION_LESS 13)
            target_compile_options(${target} PRIVATE -Wno-restrict)
        endif()
    endif()
    if(MULTIHULL_WERROR)
        target_compile_options(${target} PRIVATE -Werror)
        if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU" AND MULTIHULL_SANITIZE STREQUAL "thread")
            # It warns of each atomic_thread_fence, which the thread sanitizer does not follow.
            target_compile_options(${target} PRIVATE -Wno-error=tsan)
        endif()
        if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU" AND MULTIHULL_SANITIZE MATCHES "address")
            # Between the checks that the sanitizer adds, GCC loses sight of what is initialized: Asio's use_future, for one.
            target_compile_options(${target} PRIVATE -Wno-error=maybe-uninitialized)
        endif()
    endif()
endfunction()

# Precompiles the headers of others for the target, where that is asked for: each file's compiler reads 50,000 to 100,000 lines of them.
# multihull_precompile(TARGET [HEADER...]): what TARGET includes beside the standard library's.
function(multihull_precompile target)
    if(MULTIHULL_PRECOMPILE)
        target_precompile_headers(${target} PRIVATE
            <algorithm> <array> <atomic> <chrono> <condition_variable> <cstdint> <cstring> <deque> <exception> <filesystem> <fstream>
            <functional> <limits> <list> <map> <memory> <mutex> <numeric> <optional> <random> <ranges> <set> <span> <sstream>
            <stdexcept> <string> <string_view> <system_error> <thread> <tuple> <type_traits> <unordered_map> <unordered_set>
            <utility> <variant> <vector> ${ARGN})
        # GCC forgets of what it precompiled that it stands in system headers, in which it would keep these warnings to itself.
        target_compile_options(${target} PRIVATE "$<$<CXX_COMPILER_ID:GNU>:-Wno-array-bounds;-Wno-stringop-overflow>")
    endif()
endfunction()

# Uses what was precompiled for another target, which is compiled with the same options.
function(multihull_reuse_precompiled target other)
    if(MULTIHULL_PRECOMPILE)
        target_precompile_headers(${target} REUSE_FROM ${other})
        target_compile_options(${target} PRIVATE "$<$<CXX_COMPILER_ID:GNU>:-Wno-array-bounds;-Wno-stringop-overflow>")
    endif()
endfunction()
