// Reading what calls made of the numbers 0, 1, 2 and so on, one of which failed.
#pragma once

#include <gtest/gtest.h>

namespace test {

/// Expects each result to be its number, but number 3, which throws an E; answers how many there were.
template <class E, class Results>
int expect_numbers_but_three(Results results) {
    int i = 0;
    for (auto place = results.begin(); place != results.end(); ++place, ++i) {
        if (i == 3) {
            EXPECT_THROW(*place, E);
        } else {
            EXPECT_EQ(*place, i);
        }
    }
    return i;
}

}    // namespace test
