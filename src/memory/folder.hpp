// The folder of a Memory: whose it is, what lies in it, and what may be removed. See README.md.
#pragma once

#include "os/fd.hpp"

#include <multihull/memory_options.hpp>

#include <cstddef>
#include <string>

namespace multihull::detail {

inline constexpr const char* kEntrySuffix = ".entry";

/// Makes the folder, with those above it, and marks it as a cache. Throws Error for one that holds something else, and
/// std::system_error where the system does not let us.
void make_cache_folder(const std::string& path);
/// The folder of a function, made if need be, and the cache's own too. Throws std::system_error.
os::Fd open_function_folder(const std::string& path, const std::string& folder);
/// Removes the entries of one function or of all, and nothing else. Throws Error.
void clear_cache_folder(const std::string& path, const std::string* folder);
/// Removes entries until the limits hold; how many. Throws Error.
std::size_t reduce_cache_folder(const std::string& path, const ReduceLimits& limits);

}    // namespace multihull::detail
