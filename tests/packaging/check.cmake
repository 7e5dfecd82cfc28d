# Builds consumer/ against Multihull in the given WAY, install or subdirectory, and runs it. See CMakeLists.txt.
function(run)
    execute_process(COMMAND ${ARGV} RESULT_VARIABLE status)
    if(NOT status EQUAL 0)
        list(JOIN ARGV " " command)
        message(FATAL_ERROR "Exited with ${status}: ${command}")
    endif()
endfunction()

file(REMOVE_RECURSE "${WORK_DIR}")

if(WAY STREQUAL "install")
    run("${CMAKE_COMMAND}" --install "${BINARY_DIR}" --prefix "${WORK_DIR}/prefix")
    set(options -D CMAKE_PREFIX_PATH=${WORK_DIR}/prefix)
else()
    # It is the library's second build; nobody debugs this one.
    set(options -D MULTIHULL_SOURCE_DIR=${SOURCE_DIR} -D BUILD_SHARED_LIBS=ON -D MULTIHULL_PRECOMPILE=${PRECOMPILE}
        -D CMAKE_CXX_FLAGS_DEBUG= -D MULTIHULL_MPI=${MPI})
endif()
set(ENV{CCACHE_SLOPPINESS} pch_defines,time_macros)

run("${CMAKE_COMMAND}" -S "${CMAKE_CURRENT_LIST_DIR}/consumer" -B "${WORK_DIR}/build" -G "${GENERATOR}"
    -D CMAKE_MAKE_PROGRAM=${MAKE_PROGRAM}
    -D CMAKE_CXX_COMPILER=${COMPILER}
    -D CMAKE_CXX_COMPILER_LAUNCHER=${LAUNCHER}
    -D CMAKE_CXX_FLAGS=${FLAGS}
    -D CMAKE_BUILD_TYPE=Debug
    -D MULTIHULL_VERSION=${VERSION}
    ${options})
run("${CMAKE_COMMAND}" --build "${WORK_DIR}/build" --parallel 2)
run("${WORK_DIR}/build/consumer")
run("${WORK_DIR}/build/consumer_asio")
if(EXISTS "${WORK_DIR}/build/consumer_mpi")
    run("${CMAKE_COMMAND}" -E env OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
        "${WORK_DIR}/build/consumer_mpi")
endif()
