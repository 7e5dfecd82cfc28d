// The README's first program: one task of three crashes, and costs itself alone.
#include <iostream>
#include <multihull/pool.hpp>

int square(int x) {
    if (x == 2) *static_cast<volatile int*>(nullptr) = 1;
    return x * x;
}

int main() {
    multihull::Pool pool(2);
    std::vector<multihull::Future<int>> futures;
    for (int x : {1, 2, 3}) futures.push_back(pool.apply_async(square, x));
    for (auto& future : futures) {
        try {
            std::cout << future.get() << '\n';
        } catch (const multihull::WorkerCrashed& error) {
            std::cout << error.what() << '\n' << error.stack().to_string() << '\n';
        }
    }
}
