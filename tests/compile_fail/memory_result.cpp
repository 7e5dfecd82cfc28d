// expect: this type can't travel to another process: it holds a raw pointer
#include <multihull/memory.hpp>

int* find(int) { return nullptr; }

int main() {
    const multihull::Memory memory("cache");
    memory.cache("find", find)(3);
}
