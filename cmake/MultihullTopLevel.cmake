# What this project decides only for a build of its own, never for one that it is a part of.
include_guard()

if(NOT CMAKE_BUILD_TYPE AND NOT CMAKE_CONFIGURATION_TYPES)
    set(CMAKE_BUILD_TYPE RelWithDebInfo CACHE STRING "Debug, Release, RelWithDebInfo or MinSizeRel" FORCE)
endif()

set(CMAKE_EXPORT_COMPILE_COMMANDS ON)
set(CMAKE_CXX_EXTENSIONS OFF)
set(CMAKE_POSITION_INDEPENDENT_CODE ON)

find_program(MULTIHULL_CCACHE ccache)
mark_as_advanced(MULTIHULL_CCACHE)
if(MULTIHULL_CCACHE AND NOT CMAKE_CXX_COMPILER_LAUNCHER)
    set(CMAKE_CXX_COMPILER_LAUNCHER "${MULTIHULL_CCACHE}")
    if(MULTIHULL_PRECOMPILE)
        # Without these, and the compiler's option, ccache keeps nothing that was compiled with a precompiled header.
        set(CMAKE_CXX_COMPILER_LAUNCHER
            "${CMAKE_COMMAND}" -E env CCACHE_SLOPPINESS=pch_defines,time_macros "${MULTIHULL_CCACHE}")
        add_compile_options($<$<CXX_COMPILER_ID:GNU>:-fpch-preprocess>)
    endif()
endif()

if(MULTIHULL_SANITIZE)
    set(multihull_sanitizers address undefined thread address,undefined)
    if(NOT MULTIHULL_SANITIZE IN_LIST multihull_sanitizers)
        message(FATAL_ERROR "MULTIHULL_SANITIZE is \"${MULTIHULL_SANITIZE}\"; it can be address, undefined, thread, or "
                            "address,undefined.")
    endif()
    add_compile_options(-fsanitize=${MULTIHULL_SANITIZE} -fno-omit-frame-pointer)
    add_link_options(-fsanitize=${MULTIHULL_SANITIZE})
    if(MULTIHULL_SANITIZE MATCHES "undefined")
        # To look at an object's type its runtime makes a pipe; tests have processes that can't.
        add_compile_options(-fno-sanitize-recover=all -fno-sanitize=vptr)
    endif()
endif()
