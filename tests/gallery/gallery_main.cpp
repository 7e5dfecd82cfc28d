// The small main that wraps a gallery program's, to run it under the start method named by its argument.
#include <multihull/process.hpp>

#include <cstdio>
#include <string_view>

extern "C" int gallery_main();

int main(int argc, char** argv) {
    multihull::init(argc, argv);
    const std::string_view method = argc > 1 ? argv[1] : "";
    if (method == "fork") {
        multihull::set_start_method(multihull::StartMethod::fork);
    } else if (method == "forkserver") {
        multihull::set_start_method(multihull::StartMethod::forkserver);
    } else if (method == "spawn") {
        multihull::set_start_method(multihull::StartMethod::spawn);
    } else {
        std::fprintf(stderr, "usage: %s fork|forkserver|spawn\n", argv[0]);
        return 2;
    }
    return gallery_main();
}
