// expect: it holds a std::function, which may hold anything
#include <functional>
#include <multihull/codec.hpp>
#include <optional>

int main() {
    multihull::detail::VectorGrowth growth;
    multihull::detail::Writer writer({}, growth);
    multihull::detail::Reader reader(writer.bytes());
    auto value = multihull::detail::decode<std::optional<std::function<int()>>>(reader);
    multihull::detail::encode(writer, value);
}
