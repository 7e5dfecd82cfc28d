# The component Multihull::asio, with standalone Asio or Boost's. What is compiled of it is the same for both.
set(MULTIHULL_ASIO_FLAVOUR "${MULTIHULL_ASIO}")
if(MULTIHULL_ASIO STREQUAL "auto")
    find_package(Asio 1.22 QUIET)
    if(Asio_FOUND)
        set(MULTIHULL_ASIO_FLAVOUR standalone)
    else()
        set(MULTIHULL_ASIO_FLAVOUR boost)
    endif()
elseif(MULTIHULL_ASIO STREQUAL "standalone")
    find_package(Asio 1.22 REQUIRED)
elseif(MULTIHULL_ASIO AND NOT MULTIHULL_ASIO STREQUAL "boost")
    message(FATAL_ERROR "MULTIHULL_ASIO is \"${MULTIHULL_ASIO}\"; it can be standalone, boost, auto, or empty.")
endif()
if(NOT MULTIHULL_ASIO_FLAVOUR)
    return()
endif()

file(GLOB_RECURSE multihull_asio_sources CONFIGURE_DEPENDS src/asio/*.cpp)
file(GLOB_RECURSE multihull_asio_headers CONFIGURE_DEPENDS include/multihull/asio/*.hpp)

add_library(multihull_asio ${multihull_asio_sources})
add_library(Multihull::asio ALIAS multihull_asio)
target_sources(multihull_asio PUBLIC FILE_SET HEADERS BASE_DIRS include
    FILES include/multihull/asio.hpp ${multihull_asio_headers})
target_include_directories(multihull_asio PRIVATE src)
target_link_libraries(multihull_asio PUBLIC Multihull::multihull)
if(MULTIHULL_ASIO_FLAVOUR STREQUAL "boost")
    target_link_libraries(multihull_asio PUBLIC Boost::headers)
    target_compile_definitions(multihull_asio PUBLIC MULTIHULL_ASIO_BOOST=1)
else()
    target_link_libraries(multihull_asio PUBLIC Asio::asio)
endif()
# These Asios look for the coroutines that clang had before C++20.
if(MULTIHULL_ASIO_FLAVOUR STREQUAL "boost")
    set(multihull_asio_prefix BOOST_ASIO)
else()
    set(multihull_asio_prefix ASIO)
endif()
target_compile_definitions(multihull_asio PUBLIC
    $<$<CXX_COMPILER_ID:Clang>:${multihull_asio_prefix}_HAS_CO_AWAIT=1>
    $<$<CXX_COMPILER_ID:Clang>:${multihull_asio_prefix}_HAS_STD_COROUTINE=1>)
set_target_properties(multihull_asio PROPERTIES
    EXPORT_NAME asio
    POSITION_INDEPENDENT_CODE ON
    CXX_EXTENSIONS OFF
    VERSION ${PROJECT_VERSION}
    SOVERSION ${PROJECT_VERSION_MAJOR}.${PROJECT_VERSION_MINOR})
multihull_set_warnings(multihull_asio)
