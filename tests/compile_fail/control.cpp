// expect: (compiles)
#include <multihull/pool.hpp>
#include <multihull/process.hpp>

#include <string>
#include <vector>

std::string join(std::vector<std::string> words, char between) {
    std::string text;
    for (const std::string& word : words) {
        text += word;
        text += between;
    }
    return text;
}

void use() {
    multihull::Process process(join, std::vector<std::string>{"a", "b"}, ',');
    multihull::Pool pool(2);
    std::string text = pool.apply(join, std::vector<std::string>{"a", "b"}, ',');
}
