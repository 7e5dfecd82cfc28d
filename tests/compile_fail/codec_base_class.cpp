// expect: there is no way to encode it
#include <multihull/codec.hpp>
#include <string>

struct Base {
    std::string name;
};

struct Derived : Base {
    std::string value;
};

int main() {
    multihull::detail::VectorGrowth growth;
    multihull::detail::Writer writer({}, growth);
    multihull::detail::Reader reader(writer.bytes());
    auto value = multihull::detail::decode<Derived>(reader);
    multihull::detail::encode(writer, value);
}
