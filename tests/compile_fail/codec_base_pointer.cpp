// expect: and what it points to would be cut down to the base
#include <memory>
#include <multihull/codec.hpp>

struct Shape {
    virtual ~Shape() = default;
};

int main() {
    multihull::detail::VectorGrowth growth;
    multihull::detail::Writer writer({}, growth);
    multihull::detail::Reader reader(writer.bytes());
    auto value = multihull::detail::decode<std::unique_ptr<Shape>>(reader);
    multihull::detail::encode(writer, value);
}
