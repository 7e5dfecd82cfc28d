# Finds standalone Asio, headers that have no CMake file of their own.
#
# Defines Asio_FOUND, Asio_VERSION and the target Asio::asio. Installed beside MultihullConfig.cmake, which needs it again for
# the component asio.
find_path(Asio_INCLUDE_DIR NAMES asio.hpp DOC "Folder of asio.hpp")

if(Asio_INCLUDE_DIR AND EXISTS "${Asio_INCLUDE_DIR}/asio/version.hpp")
    file(STRINGS "${Asio_INCLUDE_DIR}/asio/version.hpp" asio_version_line REGEX "^#define ASIO_VERSION [0-9]+")
    if(asio_version_line MATCHES "// ([0-9.]+)")
        set(Asio_VERSION "${CMAKE_MATCH_1}")
    endif()
    unset(asio_version_line)
endif()

include(FindPackageHandleStandardArgs)
find_package_handle_standard_args(Asio
    REQUIRED_VARS Asio_INCLUDE_DIR
    VERSION_VAR Asio_VERSION
    REASON_FAILURE_MESSAGE "install libasio-dev (Debian, Ubuntu) or asio-devel (Fedora), or take Boost's: MULTIHULL_ASIO=boost")
mark_as_advanced(Asio_INCLUDE_DIR)

if(Asio_FOUND AND NOT TARGET Asio::asio)
    add_library(Asio::asio INTERFACE IMPORTED)
    set_target_properties(Asio::asio PROPERTIES
        INTERFACE_INCLUDE_DIRECTORIES "${Asio_INCLUDE_DIR}"
        INTERFACE_LINK_LIBRARIES Threads::Threads)
endif()
