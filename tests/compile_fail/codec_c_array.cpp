// expect: a C array can't travel by itself: use std::array or std::vector
#include <multihull/codec.hpp>

int main() {
    int numbers[3] = {1, 2, 3};
    multihull::detail::VectorGrowth growth;
    multihull::detail::Writer writer({}, growth);
    multihull::detail::encode(writer, numbers);
}
