// expect: the function takes a non-const reference: what it changes would be lost in the other process
#include <multihull/codec.hpp>

#include <vector>

template <class... P>
struct Call {
    static consteval void check() { (multihull::detail::require_parameter<P>(), ...); }
};

int main() { Call<int, std::vector<int>&>::check(); }
