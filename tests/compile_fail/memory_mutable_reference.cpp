// expect: the cached function takes a non-const reference: what it changes would be missing when the result comes from the cache
#include <multihull/memory.hpp>

#include <vector>

int sort(std::vector<int>& numbers) { return static_cast<int>(numbers.size()); }

int main() {
    const multihull::Memory memory("cache");
    std::vector<int> numbers{2, 1};
    memory.cache("sort", sort)(numbers);
}
