// A program of somebody else's: it knows of Multihull only what a user knows.
#include <multihull/memory.hpp>
#include <multihull/pool.hpp>
#include <multihull/process.hpp>

#include <cstdio>
#include <iostream>
#include <string>
#include <vector>

int length(const std::string& word) { return static_cast<int>(word.size()); }

void leave() {}

int main(int argc, char** argv) {
    multihull::init(argc, argv);

    multihull::Process process(leave);
    process.start();
    process.join();

    multihull::Pool pool(2);
    const std::vector<std::string> words{"one", "three", "eleven"};
    const std::vector<int> lengths = pool.map(length, words);

    const std::string file = "consumer-lengths.bin";
    multihull::dump(lengths, file, {.compress = multihull::zstd()});
    const bool same = multihull::load<std::vector<int>>(file) == lengths;
    std::remove(file.c_str());

    const bool right = same && process.exitcode() == 0 && lengths == std::vector<int>{3, 5, 6};
    std::cout << (right ? "Multihull works here\n" : "Multihull does not work here\n");
    return right ? 0 : 1;
}
