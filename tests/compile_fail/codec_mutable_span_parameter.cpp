// expect: the function takes a std::span that it can write through
#include <multihull/codec.hpp>

#include <span>

int main() { multihull::detail::require_parameter<std::span<int>>(); }
