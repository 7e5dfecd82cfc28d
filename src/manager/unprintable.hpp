// Which code points repr() shows as themselves.
#pragma once

#include <cstdint>

namespace multihull::detail {

/// As Python's str.isprintable() has it: everything but control and format characters, separators other than the space, surrogates, and
/// what Unicode 14 has not assigned.
bool is_printable(std::uint32_t code_point) noexcept;

}    // namespace multihull::detail
