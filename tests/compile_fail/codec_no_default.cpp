// expect: give it a public default constructor, or specialise multihull::Codec
#include <multihull/codec.hpp>

class Meter {
public:
    explicit Meter(double reading) : reading_(reading) {}

    template <class Archive>
    void serialize(Archive& archive) {
        archive(reading_);
    }

private:
    double reading_;
};

int main() {
    multihull::detail::VectorGrowth growth;
    multihull::detail::Writer writer({}, growth);
    multihull::detail::Reader reader(writer.bytes());
    auto value = multihull::detail::decode<Meter>(reader);
    multihull::detail::encode(writer, value);
}
