// expect: a closure with captures (or std::function, or a bound member function) refers to this process's memory
#include <multihull/process_pool_executor.hpp>

int main() {
    int factor = 2;
    multihull::ProcessPoolExecutor executor(1);
    executor.submit([&factor](int x) { return factor * x; }, 1);
}
