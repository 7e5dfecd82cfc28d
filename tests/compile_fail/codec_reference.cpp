// expect: it holds a reference, which means nothing there; send the value it refers to
#include <multihull/codec.hpp>

struct View {
    const int& value;
    int weight;
};

int main() {
    multihull::detail::VectorGrowth growth;
    multihull::detail::Writer writer({}, growth);
    multihull::detail::Reader reader(writer.bytes());
    auto value = multihull::detail::decode<View>(reader);
    multihull::detail::encode(writer, value);
}
