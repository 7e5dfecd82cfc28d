// expect: a function that returns nothing has no result to be kept
#include <multihull/memory.hpp>

void print(int) {}

int main() {
    const multihull::Memory memory("cache");
    memory.cache("print", print)(3);
}
