// expect: it holds a raw pointer or an iterator, which means nothing there; send the value it points to
#include <multihull/codec.hpp>

struct Buffer {
    char* bytes = nullptr;

    template <class Archive>
    void serialize(Archive& archive) {
        archive(bytes);
    }
};

int main() {
    multihull::detail::VectorGrowth growth;
    multihull::detail::Writer writer({}, growth);
    multihull::detail::encode(writer, Buffer());
}
