# Install rules, and what find_package(Multihull) finds afterwards.
include(CMakePackageConfigHelpers)

set(multihull_config_dir "${CMAKE_INSTALL_LIBDIR}/cmake/Multihull")

install(TARGETS multihull
    EXPORT MultihullTargets
    ARCHIVE DESTINATION "${CMAKE_INSTALL_LIBDIR}"
    LIBRARY DESTINATION "${CMAKE_INSTALL_LIBDIR}"
    FILE_SET HEADERS DESTINATION "${CMAKE_INSTALL_INCLUDEDIR}")
if(TARGET Multihull::mpi)
    install(TARGETS multihull_mpi
        EXPORT MultihullMpiTargets
        ARCHIVE DESTINATION "${CMAKE_INSTALL_LIBDIR}"
        LIBRARY DESTINATION "${CMAKE_INSTALL_LIBDIR}"
        FILE_SET HEADERS DESTINATION "${CMAKE_INSTALL_INCLUDEDIR}")
    install(EXPORT MultihullMpiTargets NAMESPACE Multihull:: DESTINATION "${multihull_config_dir}")
endif()
install(EXPORT MultihullTargets NAMESPACE Multihull:: DESTINATION "${multihull_config_dir}")

if(TARGET multihull_asio)
    install(TARGETS multihull_asio
        EXPORT MultihullAsioTargets
        ARCHIVE DESTINATION "${CMAKE_INSTALL_LIBDIR}"
        LIBRARY DESTINATION "${CMAKE_INSTALL_LIBDIR}"
        FILE_SET HEADERS DESTINATION "${CMAKE_INSTALL_INCLUDEDIR}")
    install(EXPORT MultihullAsioTargets NAMESPACE Multihull:: DESTINATION "${multihull_config_dir}")
endif()

configure_package_config_file(
    "${CMAKE_CURRENT_LIST_DIR}/MultihullConfig.cmake.in" "${PROJECT_BINARY_DIR}/MultihullConfig.cmake"
    INSTALL_DESTINATION "${multihull_config_dir}")
write_basic_package_version_file(
    "${PROJECT_BINARY_DIR}/MultihullConfigVersion.cmake" COMPATIBILITY SameMinorVersion)
install(
    FILES
        "${PROJECT_BINARY_DIR}/MultihullConfig.cmake"
        "${PROJECT_BINARY_DIR}/MultihullConfigVersion.cmake"
        "${CMAKE_CURRENT_LIST_DIR}/FindAsio.cmake"
        "${CMAKE_CURRENT_LIST_DIR}/FindElfutils.cmake"
        "${CMAKE_CURRENT_LIST_DIR}/FindZstd.cmake"
    DESTINATION "${multihull_config_dir}")
install(FILES "${PROJECT_SOURCE_DIR}/LICENSE" DESTINATION "${CMAKE_INSTALL_DOCDIR}")
