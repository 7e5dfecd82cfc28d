// A program of somebody else's with the component mpi, run without a launcher: one rank.
#include <multihull/mpi.hpp>

#include <iostream>

int square(int x) { return x * x; }

int main(int argc, char** argv) {
    multihull::mpi::Session session(argc, argv);
    multihull::mpi::PoolExecutor executor(1);
    const bool right = executor.submit(square, 7).get() == 49;
    std::cout << (right ? "Multihull's mpi works here\n" : "Multihull's mpi does not work here\n");
    return right ? 0 : 1;
}
