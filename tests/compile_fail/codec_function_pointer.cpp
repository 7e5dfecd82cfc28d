// expect: it holds a function pointer; pass the function itself as what is to be called
#include <multihull/codec.hpp>
#include <utility>

int main() {
    multihull::detail::VectorGrowth growth;
    multihull::detail::Writer writer({}, growth);
    multihull::detail::Reader reader(writer.bytes());
    auto value = multihull::detail::decode<std::pair<int, int (*)(int)>>(reader);
    multihull::detail::encode(writer, value);
}
