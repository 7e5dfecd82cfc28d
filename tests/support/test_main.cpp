// The main of every test: as a program of a user would, it calls init() first, so that all start methods can be tried.
#include <multihull/process.hpp>

#include <gtest/gtest.h>

int main(int argc, char** argv) {
    multihull::init(argc, argv);
    ::testing::InitGoogleTest(&argc, argv);
    return RUN_ALL_TESTS();
}
