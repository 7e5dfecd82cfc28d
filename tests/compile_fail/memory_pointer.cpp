// expect: this type can't be hashed for a cache key: it holds a pointer, a reference or a view
#include <multihull/memory.hpp>

struct Node {
    int value = 0;
    const Node* next = nullptr;
};
int sum(const Node& node) { return node.value; }

int main() {
    const multihull::Memory memory("cache");
    memory.cache("sum", sum)(Node{});
}
