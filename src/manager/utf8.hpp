// UTF-8 as Python's str has it: half surrogate pairs count as code points ("surrogatepass").
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

namespace multihull::detail {

struct CodePoint {
    std::uint32_t value = 0;
    std::size_t size = 0;    // in bytes; 0 where there is no whole one
};

/// The code point that the text begins with. The text is not empty.
CodePoint first_code_point(std::string_view text) noexcept;

bool is_utf8(std::string_view text) noexcept;

}    // namespace multihull::detail
