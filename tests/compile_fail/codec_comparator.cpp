// expect: it holds a container whose comparator or hash has a state of its own
#include <multihull/codec.hpp>
#include <set>

int main() {
    multihull::detail::VectorGrowth growth;
    multihull::detail::Writer writer({}, growth);
    multihull::detail::Reader reader(writer.bytes());
    auto value = multihull::detail::decode<std::set<int, bool (*)(int, int)>>(reader);
    multihull::detail::encode(writer, value);
}
