// expect: it holds a raw pointer or an iterator, which means nothing there; send the value it points to
#include <multihull/codec.hpp>
#include <vector>

struct Node {
    int value;
    Node* next;
};

struct Graph {
    std::vector<Node> nodes;
};

int main() {
    multihull::detail::VectorGrowth growth;
    multihull::detail::Writer writer({}, growth);
    multihull::detail::Reader reader(writer.bytes());
    auto value = multihull::detail::decode<Graph>(reader);
    multihull::detail::encode(writer, value);
}
