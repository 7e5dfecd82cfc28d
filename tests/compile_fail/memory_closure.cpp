// expect: a closure with captures can't be hashed for a cache key: nobody can look at what it captures
#include <multihull/memory.hpp>

int main() {
    const multihull::Memory memory("cache");
    int factor = 2;
    memory.cache("scale", [factor](int x) { return factor * x; })(3);
}
