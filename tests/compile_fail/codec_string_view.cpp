// expect: send std::string instead of std::string_view, std::vector instead of std::span or a range
#include <map>
#include <multihull/codec.hpp>
#include <string_view>

int main() {
    multihull::detail::VectorGrowth growth;
    multihull::detail::Writer writer({}, growth);
    multihull::detail::Reader reader(writer.bytes());
    auto value = multihull::detail::decode<std::map<int, std::string_view>>(reader);
    multihull::detail::encode(writer, value);
}
