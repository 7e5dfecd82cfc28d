// expect: where it takes a non-const reference, give std::ref(argument)
#include <multihull/thread_pool_executor.hpp>

void count(int& counter) { ++counter; }

int main() {
    int counter = 0;
    multihull::ThreadPoolExecutor executor(1);
    executor.submit(count, counter);
}
