# Finds the header of xxHash, which is compiled in: nothing of it is linked.
#
# Defines XxHash_FOUND, XxHash_VERSION and the target XxHash::header.
find_path(XxHash_INCLUDE_DIR NAMES xxhash.h DOC "Folder of xxhash.h")

if(XxHash_INCLUDE_DIR AND EXISTS "${XxHash_INCLUDE_DIR}/xxhash.h")
    set(XxHash_VERSION "")
    foreach(part IN ITEMS MAJOR MINOR RELEASE)
        file(STRINGS "${XxHash_INCLUDE_DIR}/xxhash.h" xxhash_line REGEX "^#define XXH_VERSION_${part} +[0-9]+")
        if(xxhash_line MATCHES "([0-9]+)$")
            list(APPEND XxHash_VERSION "${CMAKE_MATCH_1}")
        endif()
    endforeach()
    list(JOIN XxHash_VERSION "." XxHash_VERSION)
    unset(xxhash_line)
endif()

include(FindPackageHandleStandardArgs)
find_package_handle_standard_args(XxHash
    REQUIRED_VARS XxHash_INCLUDE_DIR
    VERSION_VAR XxHash_VERSION
    REASON_FAILURE_MESSAGE "install libxxhash-dev (Debian, Ubuntu) or xxhash-devel (Fedora)")
mark_as_advanced(XxHash_INCLUDE_DIR)

if(XxHash_FOUND AND NOT TARGET XxHash::header)
    add_library(XxHash::header INTERFACE IMPORTED)
    set_target_properties(XxHash::header PROPERTIES INTERFACE_INCLUDE_DIRECTORIES "${XxHash_INCLUDE_DIR}")
endif()
