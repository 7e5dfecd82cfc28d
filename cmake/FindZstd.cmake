# Finds libzstd.
#
# Defines Zstd_FOUND, Zstd_VERSION and the target Zstd::zstd. Installed beside MultihullConfig.cmake, which needs it again
# for whoever links a static Multihull. (zstd's own CMake file is not in every distribution, and names its targets
# differently in different releases.)
find_path(Zstd_INCLUDE_DIR NAMES zstd.h DOC "Folder of zstd.h")
find_library(Zstd_LIBRARY NAMES zstd DOC "libzstd")

if(Zstd_INCLUDE_DIR AND EXISTS "${Zstd_INCLUDE_DIR}/zstd.h")
    set(Zstd_VERSION "")
    foreach(part IN ITEMS MAJOR MINOR RELEASE)
        file(STRINGS "${Zstd_INCLUDE_DIR}/zstd.h" zstd_line REGEX "^#define ZSTD_VERSION_${part} +[0-9]+")
        if(zstd_line MATCHES "([0-9]+)$")
            list(APPEND Zstd_VERSION "${CMAKE_MATCH_1}")
        endif()
    endforeach()
    list(JOIN Zstd_VERSION "." Zstd_VERSION)
    unset(zstd_line)
endif()

include(FindPackageHandleStandardArgs)
find_package_handle_standard_args(Zstd
    REQUIRED_VARS Zstd_LIBRARY Zstd_INCLUDE_DIR
    VERSION_VAR Zstd_VERSION
    REASON_FAILURE_MESSAGE "install libzstd-dev (Debian, Ubuntu) or libzstd-devel (Fedora)")
mark_as_advanced(Zstd_INCLUDE_DIR Zstd_LIBRARY)

if(Zstd_FOUND AND NOT TARGET Zstd::zstd)
    add_library(Zstd::zstd UNKNOWN IMPORTED)
    set_target_properties(Zstd::zstd PROPERTIES
        IMPORTED_LOCATION "${Zstd_LIBRARY}"
        INTERFACE_INCLUDE_DIRECTORIES "${Zstd_INCLUDE_DIR}")
endif()
