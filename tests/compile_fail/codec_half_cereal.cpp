// expect: cereal must find exactly one way to save it and one way to load it
#include <multihull/codec.hpp>

struct OneWay {
    int value = 0;

    template <class Archive>
    void save(Archive& archive) const {
        archive(value);
    }
};

int main() {
    multihull::detail::VectorGrowth growth;
    multihull::detail::Writer writer({}, growth);
    multihull::detail::Reader reader(writer.bytes());
    auto value = multihull::detail::decode<OneWay>(reader);
    multihull::detail::encode(writer, value);
}
