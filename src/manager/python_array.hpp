// The numbers of Python's array.array, as a list of them or as their bytes.
#pragma once

#include <multihull/object.hpp>

#include <vector>

namespace multihull::detail {

/// The elements of an instance of `array.array`. Throws TypeError for one of no known type.
std::vector<Object> array_elements(const Object& array);

}    // namespace multihull::detail
