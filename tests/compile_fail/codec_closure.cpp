// expect: a closure with captures can't travel to another process: pass what it captures as arguments
#include <multihull/codec.hpp>

int main() {
    int factor = 2;
    const auto scale = [&factor](int x) { return factor * x; };
    multihull::detail::VectorGrowth growth;
    multihull::detail::Writer writer({}, growth);
    multihull::detail::encode(writer, scale);
}
