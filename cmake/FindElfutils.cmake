# Finds elfutils' libdw, which reads symbol tables and debug information of running programs.
#
# Defines Elfutils_FOUND, Elfutils_VERSION and the target Elfutils::dw. Installed beside MultihullConfig.cmake, which
# needs it again for whoever links a static Multihull.
find_path(Elfutils_INCLUDE_DIR NAMES elfutils/libdwfl.h DOC "Folder of elfutils/libdwfl.h")
find_library(Elfutils_DW_LIBRARY NAMES dw DOC "elfutils' libdw")

if(Elfutils_INCLUDE_DIR AND EXISTS "${Elfutils_INCLUDE_DIR}/elfutils/version.h")
    file(STRINGS "${Elfutils_INCLUDE_DIR}/elfutils/version.h" elfutils_version_line
        REGEX "^#define _ELFUTILS_VERSION [0-9]+")
    if(elfutils_version_line MATCHES "([0-9]+)$")
        set(Elfutils_VERSION "0.${CMAKE_MATCH_1}")
    endif()
    unset(elfutils_version_line)
endif()

include(FindPackageHandleStandardArgs)
find_package_handle_standard_args(Elfutils
    REQUIRED_VARS Elfutils_DW_LIBRARY Elfutils_INCLUDE_DIR
    VERSION_VAR Elfutils_VERSION
    REASON_FAILURE_MESSAGE "install libdw-dev (Debian, Ubuntu) or elfutils-devel (Fedora)")
mark_as_advanced(Elfutils_INCLUDE_DIR Elfutils_DW_LIBRARY)

if(Elfutils_FOUND AND NOT TARGET Elfutils::dw)
    add_library(Elfutils::dw UNKNOWN IMPORTED)
    set_target_properties(Elfutils::dw PROPERTIES
        IMPORTED_LOCATION "${Elfutils_DW_LIBRARY}"
        INTERFACE_INCLUDE_DIRECTORIES "${Elfutils_INCLUDE_DIR}")
endif()
