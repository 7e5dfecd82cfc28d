# The component Multihull::mpi, with the MPI that is asked for, or whichever CMake finds.
if(NOT MULTIHULL_MPI)
    return()
endif()
if(MULTIHULL_MPI MATCHES "^(openmpi|mpich)$")
    set(MPI_EXECUTABLE_SUFFIX ".${MULTIHULL_MPI}")    # as Debian names the programs of each
    if(MPI_CXX_COMPILER AND NOT MPI_CXX_COMPILER MATCHES "${MPI_EXECUTABLE_SUFFIX}$")
        message(FATAL_ERROR "This build folder has another MPI (${MPI_CXX_COMPILER}): use a new one for ${MULTIHULL_MPI}.")
    endif()
endif()
set(MPI_CXX_SKIP_MPICXX ON)    # the C functions are all that is called
find_package(MPI 3.0 QUIET COMPONENTS CXX)
if(NOT MPI_CXX_FOUND)
    if(NOT MULTIHULL_MPI STREQUAL "auto")
        message(FATAL_ERROR "Multihull::mpi needs an MPI: install libopenmpi-dev or libmpich-dev.")
    endif()
    message(STATUS "Multihull::mpi is not built: it needs an MPI, libopenmpi-dev or libmpich-dev")
    return()
endif()

file(GLOB multihull_mpi_sources CONFIGURE_DEPENDS src/mpi/*.cpp)
add_library(multihull_mpi ${multihull_mpi_sources})
add_library(Multihull::mpi ALIAS multihull_mpi)
target_sources(multihull_mpi PUBLIC FILE_SET HEADERS BASE_DIRS include
    FILES include/multihull/mpi.hpp include/multihull/detail/mpi_value.hpp)
target_include_directories(multihull_mpi PRIVATE src)
target_link_libraries(multihull_mpi PUBLIC Multihull::multihull PRIVATE MPI::MPI_CXX)
set_target_properties(multihull_mpi PROPERTIES
    EXPORT_NAME mpi
    POSITION_INDEPENDENT_CODE ON
    CXX_EXTENSIONS OFF
    VERSION ${PROJECT_VERSION}
    SOVERSION ${PROJECT_VERSION_MAJOR}.${PROJECT_VERSION_MINOR})
multihull_set_warnings(multihull_mpi)
multihull_reuse_precompiled(multihull_mpi multihull)
if(MULTIHULL_PRECOMPILE)
    # Two compilers' work instead of fifteen: most of each is what all of them include.
    set_target_properties(multihull_mpi PROPERTIES UNITY_BUILD ON UNITY_BUILD_BATCH_SIZE 8)
endif()
