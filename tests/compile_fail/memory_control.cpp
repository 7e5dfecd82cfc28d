// expect: (compiles)
#include <multihull/memory.hpp>

#include <ostream>
#include <string>
#include <vector>

struct Scale {
    int factor = 1;
    int operator()(int x) const { return factor * x; }
};
std::vector<int> count(const std::string& text, std::ostream& log) {
    log << text;
    return {1};
}

void use(std::ostream& log) {
    const multihull::Memory memory("cache", {.compress = multihull::zstd(1)});
    int six = memory.cache("scale", Scale{2})(3);
    std::vector<int> one = memory.cache("count", count, multihull::ignoring<1>, {.version = "2"})("a", log);
    multihull::Shelved<int> shelved = memory.cache("scale", Scale{2}).call_and_shelve(six + one[0]);
    multihull::dump(shelved.get(), "file");
}
